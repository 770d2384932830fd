/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * When does a TIME_WAIT end, and how. Its timer ends it, or somebody takes it
 * away before: a connect() or a SYN that uses its ports again, a reset, ss -K, the
 * end of its namespace. Both free the timewait socket, and that is traced for
 * every object of the kernel; so this is off unless asked for.
 */
#ifndef TCPSHIFT_AFTERLIFE_H
#define TCPSHIFT_AFTERLIFE_H

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include "config.h"
#include "counters.h"
#include "event.h"
#include "ring.h"
#include "timewait.h"

/*
 * The transitions that left a timewait socket, by its address. The programs
 * insert with the transition and delete with the end; user space sizes it. Full:
 * that end is not told, and counted.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, __u64);
	__type(value, struct transition_event);
} timewaits SEC(".maps");

static __always_inline void watch_end(__u64 timewait, const struct transition_event *entered,
				      struct program_counters *counters)
{
	if (want_timewait_ends && is_timewait(timewait) &&
	    bpf_map_update_elem(&timewaits, &timewait, entered, BPF_ANY))
		count_shared(counters->end_untold);
}

static __always_inline int on_timer_expired(const struct timer_list *timer)
{
	__u64 timewait =
		address_of(timer) - bpf_core_field_offset(struct inet_timewait_sock, tw_timer);
	struct transition_event *t = bpf_map_lookup_elem(&timewaits, &timewait);

	if (t)
		t->flags |= EVENT_EXPIRED;
	return 0;
}

/*
 * The second argument of kmem_cache_free, a pointer to void, which verifiers up to
 * 6.1 at least do not let be read from the context.
 */
static __always_inline __u64 freed_object(const __u64 *ctx)
{
	__u64 object = 0;

	bpf_probe_read_kernel(&object, sizeof(object), &ctx[1]);
	return object;
}

/* Of the programs that see the same end, the one that deletes it tells it. */
static __always_inline int on_object_freed(__u64 object, enum twin twin)
{
	struct transition_event *entered = bpf_map_lookup_elem(&timewaits, &object);
	struct program_counters *counters;
	struct transition_event e;
	__u64 now_ns;

	if (!entered) /* as nearly always */
		return 0;
	counters = counters_of(twin);
	e = *entered;
	if (bpf_map_delete_elem(&timewaits, &object))
		return 0;
	now_ns = bpf_ktime_get_ns();
	e.kind = EVENT_TRANSITION;
	e.in_state_ns = now_ns - e.timestamp_ns;
	e.timestamp_ns = now_ns;
	e.old_state = TCP_TIME_WAIT;
	e.new_state = TCP_CLOSE;
	e.time_wait_substate = 0;
	e.pid = 0;
	e.pid_source = PID_UNKNOWN;
	e.flags |= EVENT_TIMED;
	if (bpf_ringbuf_output(&events, &e, sizeof(e), wake_flags(now_ns)) && counters)
		count_shared(counters->end_untold);
	return 0;
}

#endif
