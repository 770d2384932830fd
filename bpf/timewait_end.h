/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * When and how a TIME_WAIT ends. Its timer ends it, or something removes it before: a
 * connect() or a SYN that reuses its ports, a reset, ss -K, or the end of its namespace.
 *
 * All of these free the timewait socket, so the programs trace kmem_cache_free. It fires for each
 * object of a slab cache that the kernel frees, except those of kmalloc() and those freed in bulk.
 * That is often, so the programs are loaded only if asked for.
 */
#ifndef TCPSHIFT_TIMEWAIT_END_H
#define TCPSHIFT_TIMEWAIT_END_H

#include "kernel.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include "config.h"
#include "counters.h"
#include "event.h"
#include "read.h"
#include "ring.h"
#include "timewait.h"

/* Distinguishes timewait sockets that had the same address one after another. */
struct timewait_identity {
	__s64 cookie; /* the socket's; 0: none has been asked for yet */
	__u32 hash;
	__u32 snd_nxt; /* constant in a timewait socket */
};

/* A TIME_WAIT whose end is to be emitted. */
struct tracked_timewait {
	struct transition_event entered; /* the transition to TIME_WAIT */
	struct timewait_identity identity;
};

/*
 * The TIME_WAITs whose end is to be emitted, by the timewait socket's address. The programs of
 * inet_sock_set_state insert when they emit the transition, and those of kmem_cache_free delete
 * at the end. User space sets the size before load. Full: the end of that TIME_WAIT is counted
 * as lost, and not emitted.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, __u64);
	__type(value, struct tracked_timewait);
} tracked_timewaits SEC(".maps");

/* Reads what distinguishes the timewait socket at this address from others that had it. */
static __always_inline void read_timewait_identity(__u64 timewait,
						   struct timewait_identity *identity)
{
	const struct sock_common *tw = (const struct sock_common *)timewait;

	identity->cookie = BPF_CORE_READ(tw, skc_cookie.counter);
	identity->hash = BPF_CORE_READ(tw, skc_hash);
	identity->snd_nxt = BPF_CORE_READ(tw, skc_tw_snd_nxt);
}

/* Whether the address still has the timewait socket with this identity, in use or just freed. */
static __always_inline bool is_same_timewait(__u64 timewait,
					     const struct timewait_identity *identity)
{
	struct timewait_identity now;

	read_timewait_identity(timewait, &now);
	return (now.cookie == identity->cookie || !identity->cookie) &&
	       now.hash == identity->hash && now.snd_nxt == identity->snd_nxt;
}

/* Whether the reference count of the timewait socket is not 0: it is not released. */
static __always_inline bool is_referenced(__u64 timewait)
{
	const struct sock_common *tw = (const struct sock_common *)timewait;

	return BPF_CORE_READ(tw, skc_refcnt.refs.counter) != 0;
}

/* Stops tracking a TIME_WAIT whose end was missed. The program that deletes it counts it. */
static __always_inline void drop_tracked_timewait(__u64 timewait, struct program_counters *counters)
{
	if (!bpf_map_delete_elem(&tracked_timewaits, &timewait) && counters)
		count_shared(counters->timewait_ends_lost);
}

/*
 * Not inlined, because struct tracked_timewait takes too much of the caller's stack.
 *
 * If another TIME_WAIT is tracked under this address, its end was missed. This TIME_WAIT
 * may have ended by now as well, on another CPU, before it could be found in the map.
 */
static __noinline void insert_tracked_timewait(__u64 timewait,
					       const struct transition_event *entered, __u32 hash,
					       struct program_counters *counters)
{
	struct tracked_timewait tracked = {};

	read_timewait_identity(timewait, &tracked.identity);
	if (tracked.identity.hash != hash) {
		count_shared(counters->timewait_ends_lost);
		return;
	}
	if (bpf_map_lookup_elem(&tracked_timewaits, &timewait))
		drop_tracked_timewait(timewait, counters);
	tracked.entered = *entered;
	if (bpf_map_update_elem(&tracked_timewaits, &timewait, &tracked, BPF_ANY))
		count_shared(counters->timewait_ends_lost);
	else if (!is_same_timewait(timewait, &tracked.identity) || !is_referenced(timewait))
		drop_tracked_timewait(timewait, counters);
}

/* Tracks the TIME_WAIT that this transition begins, if it begins one and its end is asked for. */
static __always_inline void track_timewait_end(const struct sock *sk, __u64 timewait,
					       const struct transition_event *entered,
					       struct program_counters *counters)
{
	if (want_timewait_ends && is_timewait(timewait))
		insert_tracked_timewait(timewait, entered, sk->__sk_common.skc_hash, counters);
}

/*
 * Called for each timer of the kernel that expires. If it is that of a tracked timewait socket,
 * records that it ended the TIME_WAIT; the free that follows emits the event. Returns 0.
 */
static __always_inline int on_timer_expired(const struct timer_list *timer)
{
	__u64 timewait =
		address_of(timer) - bpf_core_field_offset(struct inet_timewait_sock, tw_timer);
	struct tracked_timewait *tracked = bpf_map_lookup_elem(&tracked_timewaits, &timewait);

	if (tracked)
		tracked->entered.flags |= EVENT_EXPIRED;
	return 0;
}

/*
 * The second argument of the tracepoint kmem_cache_free. It is a pointer to void, which
 * verifiers up to 6.1 at least do not allow to be loaded from the context.
 */
static __always_inline __u64 freed_object(const __u64 *ctx)
{
	__u64 object = 0;

	bpf_probe_read_kernel(&object, sizeof(object), &ctx[1]);
	return object;
}

/* Turns the transition to TIME_WAIT into the one from TIME_WAIT to CLOSE, and emits it. */
static __always_inline void emit_timewait_end(struct transition_event *e,
					      struct program_counters *counters)
{
	__u64 now_ns = bpf_ktime_get_boot_ns();
	void *ring = this_cpu_ring();

	e->kind = EVENT_TRANSITION;
	e->in_state_ns = now_ns - e->timestamp_ns;
	e->timestamp_ns = now_ns;
	e->old_state = TCP_TIME_WAIT;
	e->new_state = TCP_CLOSE;
	e->time_wait_substate = 0;
	e->timeout_or_reason = 0;
	e->pid = 0;
	e->pid_source = PID_UNKNOWN;
	e->flags |= EVENT_TIMED;
	if (ring && bpf_ringbuf_output(ring, e, sizeof(*e), wakeup_flags(ring, now_ns)) && counters)
		count_shared(counters->timewait_ends_lost);
}

/*
 * Several programs may see one end; the program whose delete succeeds emits it.
 *
 * If the release of a tracked timewait socket was missed, the object that is freed here
 * may be a later one at its address. Up to 5.17 the tracepoint fires after the release,
 * so the memory may already belong to the next timewait socket, which is referenced.
 */
static __always_inline int on_object_freed(__u64 object, enum program_rank rank)
{
	struct tracked_timewait *tracked = bpf_map_lookup_elem(&tracked_timewaits, &object);
	struct transition_event e;

	if (!tracked) /* nearly always */
		return 0;
	if (!is_same_timewait(object, &tracked->identity)) {
		drop_tracked_timewait(object, counters_of(rank));
		return 0;
	}
	if (is_referenced(object))
		return 0;
	e = tracked->entered;
	if (!bpf_map_delete_elem(&tracked_timewaits, &object))
		emit_timewait_end(&e, counters_of(rank));
	return 0;
}

#endif
