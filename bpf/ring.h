/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The way out: room in the ring buffer, and when to wake the reader. */
#ifndef TCPSHIFT_RING_H
#define TCPSHIFT_RING_H

#include <bpf/bpf_helpers.h>
#include "config.h"
#include "counters.h"

#define WAKE_INTERVAL_NS 1000000

/*
 * The programs insert, the tracer reads and thereby deletes, and sets the size
 * before load. Full: the event is counted as lost, nothing waits.
 */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 16 << 20);
} events SEC(".maps");

static __u64 last_wake_ns;

/*
 * A wake-up costs more than the rest of an event. The reader looks by itself
 * every few tens of milliseconds; only a ring that fills faster wakes it, at most
 * once a WAKE_INTERVAL_NS.
 */
static __always_inline __u64 wake_flags(__u64 now_ns)
{
	if (bpf_ringbuf_query(&events, BPF_RB_AVAIL_DATA) < wake_bytes)
		return BPF_RB_NO_WAKEUP;
	if (now_ns - last_wake_ns < WAKE_INTERVAL_NS)
		return BPF_RB_NO_WAKEUP;
	last_wake_ns = now_ns;
	return BPF_RB_FORCE_WAKEUP;
}

/* No room, or no lock: less free than any event could need means the former. */
static __always_inline void count_lost(struct program_counters *counters)
{
	__u64 size = bpf_ringbuf_query(&events, BPF_RB_RING_SIZE);

	if (bpf_ringbuf_query(&events, BPF_RB_AVAIL_DATA) + 4096 > size)
		count(counters->ring_full);
	else
		count(counters->ring_busy);
}

#endif
