/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Fills an event from a transition and submits it to the ring. */
#ifndef TCPSHIFT_EMIT_H
#define TCPSHIFT_EMIT_H

#include "kernel.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include "bytes.h"
#include "cgroup.h"
#include "config.h"
#include "connect.h"
#include "counters.h"
#include "endpoints.h"
#include "event.h"
#include "event_ctx.h"
#include "filter.h"
#include "process_ref.h"
#include "read.h"
#include "reset.h"
#include "ring.h"
#include "syscall.h"
#include "timewait.h"
#include "timewait_end.h"
#include "transition.h"

/* All filters but those on namespaces, which are checked before, and on owners. */
static __always_inline bool matches_except_owner(const struct transition *t)
{
	if (!states_match(t->ec->old_state, emitted_new_state(t)))
		return false;
	if (filter_orphan_fin_wait2 && t->ec->new_state == TCP_FIN_WAIT2 && !t->ec->socket)
		return false;
	if (!role_matches(t->ec->role))
		return false;
	return endpoints_and_cgroup_match(t->sk, &t->ec->ep);
}

static __always_inline __u8 timewait_substate_of(const struct transition *t)
{
	struct inet_timewait_sock *tw = (struct inet_timewait_sock *)t->ec->timewait;

	return is_timewait(t->ec->timewait) ? READ_UNTYPED(tw, tw_substate) : 0;
}

/*
 * What the event shows about a timewait socket. Without a timestamp of the peer,
 * tcp_twsk_unique() never lets connect() reuse it.
 */
static __always_inline __u32 timewait_flags_of(const struct transition *t)
{
	struct tcp_timewait_sock *tw = (struct tcp_timewait_sock *)t->ec->timewait;

	if (t->ec->timewait == TIMEWAIT_UNKNOWN)
		return EVENT_TIMEWAIT_UNKNOWN;
	if (!is_timewait(t->ec->timewait) || !READ_UNTYPED(tw, tw_ts_recent_stamp))
		return 0;
	return EVENT_TIMEWAIT_TIMESTAMP;
}

/* Whether connect() takes the socket's ports from IP_LOCAL_PORT_RANGE, since 6.3. */
static __always_inline __u32 port_range_flag_of(const struct transition *t)
{
	struct inet_sock___before_6_8 *old = (void *)t->sk;
	struct inet_sock *inet = (void *)t->sk;
	__u32 range = 0;

	if (t->ec->role != ROLE_CLIENT)
		return 0;
	if (bpf_core_field_exists(inet->local_port_range))
		range = READ_UNTYPED(inet, local_port_range);
	else if (bpf_core_field_exists(old->local_port_range))
		range = BPF_CORE_READ(old, local_port_range.lo) |
			BPF_CORE_READ(old, local_port_range.hi);
	return range ? EVENT_OWN_PORT_RANGE : 0;
}

/* Whether the socket has a flag; CO-RE takes the flag's number from the running kernel. */
#define has_sock_flag(sk, flag)                                                                    \
	((sk)->__sk_common.skc_flags >> bpf_core_enum_value(enum sock_flags, flag) & 1)

static __always_inline __u16 connect_flags_of(const struct sock *sk, const struct tcp_sock *tp,
					      const struct event_ctx *ec)
{
	enum port_search search;

	if (!is_connect_end(ec->old_state, ec->new_state))
		return 0;
	search = port_search_of(sk);
	return (search == PORT_NOT_FOUND ? EVENT_NO_PORT : 0) |
	       (search == PORT_SEARCH_UNKNOWN ? EVENT_PORT_UNKNOWN : 0) |
	       (tp && has_made_syn(sk, tp) ? 0 : EVENT_UNSENT);
}

/*
 * inet_csk_listen_start() sets LISTEN before it asks for the port, and CLOSE if that
 * fails. Hashing a listener sets SOCK_RCU_FREE for the rest of its life, and this one was
 * not hashed. If the socket listened before, the flag is set; then the current call decides:
 * no other close happens in listen().
 */
static __always_inline bool is_listen_failure(const struct sock *sk, const struct event_ctx *ec)
{
	if (ec->old_state != TCP_LISTEN || ec->new_state != TCP_CLOSE || !ec->locked)
		return false;
	return !has_sock_flag(sk, SOCK_RCU_FREE) || current_call().class == CALL_LISTEN;
}

/* Flags that only transitions to CLOSE have: how the connection ended. */
static __always_inline __u32 close_flags_of(const struct sock *sk, const struct event_ctx *ec)
{
	struct tcp_sock *tp = tcp_sock_of(sk);

	return (has_sock_flag(sk, SOCK_DONE) ? EVENT_PEER_FIN : 0) |
	       (tp && tp->linger2 < 0 ? EVENT_NO_LINGER2 : 0) | connect_flags_of(sk, tp, ec) |
	       (is_listen_failure(sk, ec) ? EVENT_LISTEN_FAILED : 0) |
	       (tp && tp->snd_una == tp->write_seq ? EVENT_ACKED : 0) |
	       (tp && BPF_CORE_READ_BITFIELD(tp, repair) ? EVENT_REPAIR : 0);
}

/*
 * What is known about resets at a transition to CLOSE. In LAST_ACK and CLOSING the
 * acknowledgment of the FIN ends the connection, whatever else is in the segment, so no reset
 * follows.
 */
static __always_inline __u32 reset_flags_of(const struct transition *t, __u32 close_flags)
{
	const struct event_ctx *ec = t->ec;
	bool in_order = close_flags & EVENT_ACKED &&
			(ec->old_state == TCP_LAST_ACK || ec->old_state == TCP_CLOSING);

	return (ec->reset.received ? EVENT_RESET_RECEIVED : 0) |
	       (ec->reset.sent ? EVENT_RESET_SENT : 0) |
	       (may_be_followed_by_reset(ec) && !in_order ? EVENT_RESET_AWAITED : 0);
}

static __always_inline __u32 all_close_flags_of(const struct transition *t)
{
	__u32 flags = close_flags_of(t->sk, t->ec);

	return flags | reset_flags_of(t, flags);
}

static __always_inline __u32 flags_of(const struct transition *t)
{
	const struct event_ctx *ec = t->ec;

	return (ec->ep.mapped ? EVENT_MAPPED : 0) | (ec->locked ? EVENT_LOCKED : 0) |
	       (ec->in_state_ns ? EVENT_TIMED : 0) | timewait_flags_of(t) | port_range_flag_of(t) |
	       (ec->socket ? 0 : EVENT_ORPHAN) |
	       (ec->new_state == TCP_CLOSE ? all_close_flags_of(t) : 0);
}

/*
 * An error that is there before connect() made a SYN is of an earlier connection, except
 * ECONNABORTED, which ss -K sets at any time.
 */
static __always_inline int error_of(const struct transition *t)
{
	const struct sock *sk = t->sk;
	struct tcp_sock *tp;

	if (!sk->sk_err || sk->sk_err == ECONNABORTED ||
	    !is_connect_end(t->ec->old_state, t->ec->new_state))
		return sk->sk_err;
	tp = tcp_sock_of(sk);
	return tp && has_made_syn(sk, tp) ? sk->sk_err : 0;
}

static __always_inline void fill_transition(const struct transition *t, struct transition_event *e)
{
	e->timestamp_ns = t->ec->now_ns;
	e->cookie = t->ec->cookie;
	e->cgroup_id = t->ec->owner.cgroup_id;
	e->in_state_ns = t->ec->in_state_ns;
	__builtin_memcpy(e->local_addr, t->ec->ep.local_addr, sizeof(e->local_addr));
	__builtin_memcpy(e->peer_addr, t->ec->ep.peer_addr, sizeof(e->peer_addr));
	__builtin_memcpy(e->comm, t->ec->owner.comm, sizeof(e->comm));
	e->netns = t->ec->netns;
	e->uid = t->sk->sk_uid.val;
	e->pid = t->ec->owner.ref.pid;
	e->error = error_of(t);
	e->local_port = t->ec->ep.local_port;
	e->peer_port = t->ec->ep.peer_port;
	e->kind = EVENT_TRANSITION;
	e->family = t->ec->ep.family;
	e->old_state = t->ec->old_state;
	e->new_state = t->ec->new_state;
	e->time_wait_substate = timewait_substate_of(t);
	e->role = t->ec->role;
	e->pid_source = source_of(&t->ec->owner.ref);
	e->flags = flags_of(t);
	e->reset_reason = t->ec->new_state == TCP_CLOSE ? t->ec->reset.reason : 0;
}

static __always_inline void fill_connection(const struct transition *t, struct end_event *e)
{
	struct tcp_sock *tp = tcp_sock_of(t->sk);

	e->transition.kind = EVENT_END;
	e->opened_ns = t->ec->opened_ns;
	e->established_ns = t->ec->established_ns;
	e->sent_bytes = tp ? payload_sent(t->sk, tp, t->ec) : 0;
	e->received_bytes = tp ? payload_received(tp, has_sock_flag(t->sk, SOCK_DONE), t->ec) : 0;
	e->retransmits = tp ? tp->total_retrans : 0;
	e->rtt_us = tp ? tp->srtt_us >> 3 : 0;
}

static __always_inline bool submit_transition_event(const struct transition *t,
						    struct program_counters *counters)
{
	struct transition_event *e;
	void *ring = this_cpu_ring();

	if (!ring)
		return false;
	e = bpf_ringbuf_reserve(ring, sizeof(*e), 0);
	if (!e)
		return false;
	fill_transition(t, e);
	track_timewait_end(t->sk, t->ec->timewait, e, counters);
	bpf_ringbuf_submit(e, sampled_wakeup_flags(ring, t->ec->now_ns, counters));
	return true;
}

static __always_inline bool submit_end_event(const struct transition *t,
					     struct program_counters *counters)
{
	struct end_event *e;
	void *ring = this_cpu_ring();

	if (!ring)
		return false;
	e = bpf_ringbuf_reserve(ring, sizeof(*e), 0);
	if (!e)
		return false;
	fill_transition(t, &e->transition);
	fill_connection(t, e);
	track_timewait_end(t->sk, t->ec->timewait, &e->transition, counters);
	bpf_ringbuf_submit(e, sampled_wakeup_flags(ring, t->ec->now_ns, counters));
	return true;
}

/* Whether the event is an EVENT_END. */
static __always_inline bool wants_end_event(const struct transition *t)
{
	return want_ends && t->ec->new_state == TCP_CLOSE && t->ec->old_state != TCP_CLOSE;
}

/* Emits the transition if it matches all filters, and counts what became of it. */
static __always_inline void emit_if_matching(struct transition *t,
					     struct program_counters *counters)
{
	if (!matches_except_owner(t) || !owner_matches(&t->ec->owner)) {
		count(counters->filtered);
		return;
	}
	/* Before the event is reserved, because it may emit the path of a new cgroup. */
	if (!t->ec->owner.ref.pid)
		t->ec->owner.cgroup_id = cgroup_id_of_socket(t->sk);
	if (wants_end_event(t) ? submit_end_event(t, counters)
			       : submit_transition_event(t, counters))
		count(counters->emitted);
	else
		count_lost_event(counters);
}

#endif
