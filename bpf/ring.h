/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The way out: room in the ring buffer, and when to wake the reader. */
#ifndef TCPSHIFT_RING_H
#define TCPSHIFT_RING_H

#include <bpf/bpf_helpers.h>
#include "config.h"
#include "counters.h"

#define WAKE_INTERVAL_NS 1000000
#define WAKE_EVERY 8 /* events: how often to look whether the reader is to be woken */

/* The size is set before load. */
struct ring {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
};

/*
 * One ring for each group of CPUs, since those that write into one wait for its lock,
 * and for the cache line that it is in, longer than for all else. The tracer makes the
 * rings before it attaches. The programs insert, the tracer reads and thereby deletes,
 * and puts the events of all rings in order by their times. Full: the event is counted
 * as lost, nothing waits.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, __u32);
	__array(values, struct ring);
} rings SEC(".maps");

/* The paths of cgroups, which are told before the events that name them. */
struct ring paths SEC(".maps");

static __u64 last_wake_ns;

/* A CPU that came later uses another group's. NULL never comes, but for the verifier. */
static __always_inline void *ring_here(void)
{
	__u32 index = bpf_get_smp_processor_id() * rings_per_cpu >> 32 & ring_mask;

	return bpf_map_lookup_elem(&rings, &index);
}

/*
 * A wake-up costs more than the rest of an event. The reader looks by itself
 * every few tens of milliseconds; only a ring that fills faster wakes it, at most
 * once a WAKE_INTERVAL_NS.
 */
static __always_inline __u64 wake_flags(void *ring, __u64 now_ns)
{
	if (bpf_ringbuf_query(ring, BPF_RB_AVAIL_DATA) < wake_bytes)
		return BPF_RB_NO_WAKEUP;
	/* Another CPU's may be later. */
	if ((__s64)(now_ns - last_wake_ns) < WAKE_INTERVAL_NS)
		return BPF_RB_NO_WAKEUP;
	last_wake_ns = now_ns;
	return BPF_RB_FORCE_WAKEUP;
}

/* To ask how full the ring is costs, too. */
static __always_inline __u64 sparing_wake_flags(void *ring, __u64 now_ns,
						const struct program_counters *counters)
{
	return counters->emitted % WAKE_EVERY ? BPF_RB_NO_WAKEUP : wake_flags(ring, now_ns);
}

/* No room, or no lock: less free than any event could need means the former. */
static __always_inline void count_lost(struct program_counters *counters)
{
	void *ring = ring_here();

	if (!ring)
		return;
	if (bpf_ringbuf_query(ring, BPF_RB_AVAIL_DATA) + 4096 >
	    bpf_ringbuf_query(ring, BPF_RB_RING_SIZE))
		count(counters->ring_full);
	else
		count(counters->ring_busy);
}

#endif
