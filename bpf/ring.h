/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The ring buffers to user space, and when to wake their reader. */
#ifndef TCPSHIFT_RING_H
#define TCPSHIFT_RING_H

#include "kernel.h"

#include <bpf/bpf_helpers.h>
#include "config.h"
#include "counters.h"

/* At most one forced wakeup in this time, for all rings together. */
#define WAKEUP_INTERVAL_NS 1000000
/* A program looks at the fill of its ring once in so many events. */
#define EVENTS_PER_WAKEUP_CHECK 8
#define MAX_EVENT_BYTES 4096 /* more than any event needs in a ring */

/* User space sets the size before load. */
struct ring {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
};

/*
 * One ring per group of CPUs: writers of one ring contend for its lock and for the lock's
 * cache line, which costs more than all the rest of an event.
 *
 * User space creates the rings before it attaches the programs. The programs insert
 * events. User space reads them, which frees their space, and merges the rings in the
 * order of the timestamps. Full: the event is counted as lost; nothing waits.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, __u32);
	__array(values, struct ring);
} rings SEC(".maps");

/*
 * The paths of cgroups, apart from the events, because user space must read a path
 * before the events that have the cgroup's id. The programs insert, user space reads
 * and frees. Full: the next event with that cgroup's id tries again (cgroup.h).
 */
struct ring cgroup_paths SEC(".maps");

/* When a program last forced a wakeup. All CPUs share it. */
static __u64 last_wakeup_ns;

/*
 * The ring of this CPU's group. The mask keeps the index in bounds for CPUs that came
 * online after the start. Never NULL; only the verifier needs the check.
 */
static __always_inline void *this_cpu_ring(void)
{
	__u32 index = bpf_get_smp_processor_id() * rings_per_cpu_q32 >> 32 & ring_mask;

	return bpf_map_lookup_elem(&rings, &index);
}

/*
 * With these flags the kernel wakes the reader only if the reader has released all records before
 * this one. User space does that only when it goes to sleep, after a time without events
 * (internal/ring). A wakeup costs more than the rest of an event, and a reader that is awake polls
 * every few tens of milliseconds by itself. Only a ring that fills faster wakes it, and at most
 * once per WAKEUP_INTERVAL_NS.
 */
#define WAKE_SLEEPER 0

/*
 * How to submit an event: BPF_RB_FORCE_WAKEUP if the ring holds at least wakeup_bytes and no wakeup
 * was forced within WAKEUP_INTERVAL_NS, else WAKE_SLEEPER.
 */
static __always_inline __u64 wakeup_flags(void *ring, __u64 now_ns)
{
	if (bpf_ringbuf_query(ring, BPF_RB_AVAIL_DATA) < wakeup_bytes)
		return WAKE_SLEEPER;
	/* Signed: another CPU may have stored a later time. */
	if ((__s64)(now_ns - last_wakeup_ns) < WAKEUP_INTERVAL_NS)
		return WAKE_SLEEPER;
	last_wakeup_ns = now_ns;
	return BPF_RB_FORCE_WAKEUP;
}

/* As wakeup_flags(), but for one event in eight only: bpf_ringbuf_query() has a cost too. */
static __always_inline __u64 sampled_wakeup_flags(void *ring, __u64 now_ns,
						  const struct program_counters *counters)
{
	return counters->emitted % EVENTS_PER_WAKEUP_CHECK ? WAKE_SLEEPER
							   : wakeup_flags(ring, now_ns);
}

/*
 * bpf_ringbuf_reserve() does not report why it failed. If less than MAX_EVENT_BYTES is
 * free, the ring was full; otherwise its lock was contended.
 */
static __always_inline void count_lost_event(struct program_counters *counters)
{
	void *ring = this_cpu_ring();

	if (!ring)
		return;
	if (bpf_ringbuf_query(ring, BPF_RB_AVAIL_DATA) + MAX_EVENT_BYTES >
	    bpf_ringbuf_query(ring, BPF_RB_RING_SIZE))
		count(counters->ring_full);
	else
		count(counters->ring_busy);
}

#endif
