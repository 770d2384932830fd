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

/* What tells a timewait socket from another one in the same memory. */
struct timewait_identity {
	__s64 cookie; /* the socket's; 0: nobody has asked for it yet */
	__u32 hash;
	__u32 snd_nxt; /* does not change any more */
};

struct watched {
	struct transition_event entered;
	struct timewait_identity identity;
};

/*
 * The transitions that left a timewait socket, by its address. The programs
 * insert with the transition and delete with the end; user space sizes it. Full:
 * that end is not told, and counted.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, __u64);
	__type(value, struct watched);
} timewaits SEC(".maps");

static __always_inline void identify(__u64 timewait, struct timewait_identity *identity)
{
	const struct sock_common *tw = (const struct sock_common *)timewait;

	identity->cookie = BPF_CORE_READ(tw, skc_cookie.counter);
	identity->hash = BPF_CORE_READ(tw, skc_hash);
	identity->snd_nxt = BPF_CORE_READ(tw, skc_tw_snd_nxt);
}

static __always_inline bool is_still(__u64 timewait, const struct timewait_identity *identity)
{
	struct timewait_identity now;

	identify(timewait, &now);
	return (now.cookie == identity->cookie || !identity->cookie) &&
	       now.hash == identity->hash && now.snd_nxt == identity->snd_nxt;
}

static __always_inline bool is_referred_to(__u64 timewait)
{
	const struct sock_common *tw = (const struct sock_common *)timewait;

	return BPF_CORE_READ(tw, skc_refcnt.refs.counter) != 0;
}

/* Who deletes it counts it: whoever watched has ended unseen. */
static __always_inline void forget(__u64 timewait, struct program_counters *counters)
{
	if (!bpf_map_delete_elem(&timewaits, &timewait) && counters)
		count_shared(counters->end_untold);
}

/*
 * A function of its own, for the room that it needs. What is there already under
 * this address has ended unseen. This one may have ended by now as well, on another
 * CPU, before there was anything to be found.
 */
static __noinline void watch(__u64 timewait, const struct transition_event *entered, __u32 hash,
			     struct program_counters *counters)
{
	struct watched w = {};

	identify(timewait, &w.identity);
	if (w.identity.hash != hash) {
		count_shared(counters->end_untold);
		return;
	}
	if (bpf_map_lookup_elem(&timewaits, &timewait))
		forget(timewait, counters);
	w.entered = *entered;
	if (bpf_map_update_elem(&timewaits, &timewait, &w, BPF_ANY))
		count_shared(counters->end_untold);
	else if (!is_still(timewait, &w.identity) || !is_referred_to(timewait))
		forget(timewait, counters);
}

static __always_inline void watch_end(const struct sock *sk, __u64 timewait,
				      const struct transition_event *entered,
				      struct program_counters *counters)
{
	if (want_timewait_ends && is_timewait(timewait))
		watch(timewait, entered, sk->__sk_common.skc_hash, counters);
}

static __always_inline int on_timer_expired(const struct timer_list *timer)
{
	__u64 timewait =
		address_of(timer) - bpf_core_field_offset(struct inet_timewait_sock, tw_timer);
	struct watched *w = bpf_map_lookup_elem(&timewaits, &timewait);

	if (w)
		w->entered.flags |= EVENT_EXPIRED;
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

static __always_inline void tell_end(struct transition_event *e, struct program_counters *counters)
{
	__u64 now_ns = bpf_ktime_get_ns();
	void *ring = ring_here();

	e->kind = EVENT_TRANSITION;
	e->in_state_ns = now_ns - e->timestamp_ns;
	e->timestamp_ns = now_ns;
	e->old_state = TCP_TIME_WAIT;
	e->new_state = TCP_CLOSE;
	e->time_wait_substate = 0;
	e->pid = 0;
	e->pid_source = PID_UNKNOWN;
	e->flags |= EVENT_TIMED;
	if (ring && bpf_ringbuf_output(ring, e, sizeof(*e), wake_flags(ring, now_ns)) && counters)
		count_shared(counters->end_untold);
}

/*
 * Of the programs that see the same end, the one that deletes it tells it. What is
 * released here may have come after the one that was watched, if that one's release
 * was missed. Up to 5.17 this comes after the release, and the memory may be the next
 * one's already: that one is referred to.
 */
static __always_inline int on_object_freed(__u64 object, enum twin twin)
{
	struct watched *w = bpf_map_lookup_elem(&timewaits, &object);
	struct transition_event e;

	if (!w) /* as nearly always */
		return 0;
	if (!is_still(object, &w->identity)) {
		forget(object, counters_of(twin));
		return 0;
	}
	if (is_referred_to(object))
		return 0;
	e = w->entered;
	if (!bpf_map_delete_elem(&timewaits, &object))
		tell_end(&e, counters_of(twin));
	return 0;
}

#endif
