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
#include "sample.h"
#include "syscall.h"
#include "timewait.h"
#include "timewait_end.h"
#include "transition.h"

/* Whether all filters match except those on owners, and those on namespaces, checked before. */
static __always_inline bool matches_except_owner(const struct transition *t)
{
	if (!states_match(t->ec->old_state, emitted_new_state(t)))
		return false;
	if (exclude_orphan_fin_wait2 && t->ec->new_state == TCP_FIN_WAIT2 && !t->ec->socket)
		return false;
	if (!role_matches(t->ec->role))
		return false;
	return uid_matches(t->ec->uid) && endpoints_match(&t->ec->ep) && cgroup_matches(t->sk);
}

/* FIN_WAIT2 or TIME_WAIT; 0 if the transition leaves no timewait socket, or it is not known. */
static __always_inline __u8 timewait_substate_of(const struct transition *t)
{
	struct inet_timewait_sock *tw = (struct inet_timewait_sock *)t->ec->timewait;

	return is_timewait(t->ec->timewait) ? READ_AT(tw, tw_substate) : 0;
}

#define NSEC_PER_SEC 1000000000ULL

/*
 * transition_event.timeout_or_reason. The timer is armed before the socket is closed
 * (tcp_time_wait()), so it shows the timeout with all that decides about it: TCP_LINGER2,
 * tcp_fin_timeout and the retransmission timeout.
 */
static __always_inline __u8 timeout_or_reason_of(const struct transition *t, __u8 substate)
{
	struct inet_timewait_sock *tw = (struct inet_timewait_sock *)t->ec->timewait;
	__u64 left;

	if (substate != TCP_FIN_WAIT2)
		return t->ec->new_state == TCP_CLOSE ? t->ec->reset.reason : 0;
	left = (READ_AT(tw, tw_timer.expires) - bpf_jiffies64()) * jiffy_ns + NSEC_PER_SEC - 1;
	if (!jiffy_ns || left >> 63) /* not known, or the timer has expired */
		return 0;
	left /= NSEC_PER_SEC;
	return left < 255 ? left : 255;
}

/*
 * Adds flags in the event's memory, whose content the verifier does not track. In a register
 * they would be a known constant, and the verifier would walk the rest of the program once
 * for each combination of flags: up to 6.1 that was most of what it walked.
 */
static __always_inline void add_flags_if(bool condition, struct transition_event *e, __u32 flags)
{
	if (condition)
		*(volatile __u32 *)&e->flags |= flags;
}

/*
 * What the event shows about a timewait socket. Without a timestamp of the peer,
 * tcp_twsk_unique() never lets connect() reuse it.
 */
static __always_inline void add_timewait_flags(const struct transition *t,
					       struct transition_event *e)
{
	struct tcp_timewait_sock *tw = (struct tcp_timewait_sock *)t->ec->timewait;

	add_flags_if(t->ec->timewait == TIMEWAIT_UNKNOWN, e, EVENT_TIMEWAIT_UNKNOWN);
	add_flags_if(is_timewait(t->ec->timewait) && READ_AT(tw, tw_ts_recent_stamp), e,
		     EVENT_TIMEWAIT_TIMESTAMP);
}

/* Whether the socket is a client that has set IP_LOCAL_PORT_RANGE, since 6.3. */
static __always_inline bool connects_from_own_port_range(const struct transition *t)
{
	struct inet_sock___before_6_8 *old = (void *)t->sk;
	struct inet_sock *inet = (void *)t->sk;
	__u32 range = 0;

	if (t->ec->role != ROLE_CLIENT)
		return false;
	if (bpf_core_field_exists(inet->local_port_range))
		range = READ_AT(inet, local_port_range);
	else if (bpf_core_field_exists(old->local_port_range))
		range = BPF_CORE_READ(old, local_port_range.lo) |
			BPF_CORE_READ(old, local_port_range.hi);
	return range;
}

/* Whether the socket has a flag; CO-RE takes the flag's number from the running kernel. */
#define has_sock_flag(sk, flag)                                                                    \
	((sk)->__sk_common.skc_flags >> bpf_core_enum_value(enum sock_flags, flag) & 1)

/* At the end of a connect(): adds a flag if no port was found, or if that is not known. */
static __always_inline void add_connect_flags(const struct sock *sk, struct transition_event *e)
{
	enum port_search search = port_search_of(sk);

	add_flags_if(search == PORT_NOT_FOUND, e, EVENT_NO_PORT);
	add_flags_if(search == PORT_SEARCH_UNKNOWN, e, EVENT_PORT_UNKNOWN);
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

/*
 * What is known about resets at a transition to CLOSE. In LAST_ACK and CLOSING the
 * acknowledgment of the FIN ends the connection, whatever else is in the segment, so no reset
 * follows.
 */
static __always_inline void add_reset_flags(const struct event_ctx *ec, struct transition_event *e)
{
	bool in_order = e->flags & EVENT_ALL_ACKED &&
			(ec->old_state == TCP_LAST_ACK || ec->old_state == TCP_CLOSING);

	add_flags_if(ec->reset.tcp_reset, e, EVENT_TCP_RESET);
	add_flags_if(ec->reset.sent, e, EVENT_RESET_SENT);
	add_flags_if(may_be_followed_by_reset(ec) && !in_order, e, EVENT_RESET_AWAITED);
}

/* Flags that only transitions to CLOSE have: how the connection ended. */
static __always_inline void add_close_flags(const struct transition *t, struct transition_event *e)
{
	const struct sock *sk = t->sk;
	struct tcp_sock *tp = tcp_sock_of(sk);

	add_flags_if(has_sock_flag(sk, SOCK_DONE), e, EVENT_PEER_FIN);
	add_flags_if(is_listen_failure(sk, t->ec), e, EVENT_LISTEN_FAILED);
	if (is_connect_end(t->ec->old_state, t->ec->new_state))
		add_connect_flags(sk, e);
	if (tp) {
		add_flags_if(tp->linger2 < 0, e, EVENT_NO_LINGER2);
		add_flags_if(tp->snd_una == tp->write_seq, e, EVENT_ALL_ACKED);
		add_flags_if(BPF_CORE_READ_BITFIELD(tp, repair), e, EVENT_REPAIR);
	}
	add_reset_flags(t->ec, e);
}

/* Sets all flags of the event; whatever was in e->flags is overwritten. */
static __always_inline void fill_flags(const struct transition *t, struct transition_event *e)
{
	const struct event_ctx *ec = t->ec;

	e->flags = (ec->ep.mapped ? EVENT_MAPPED : 0) | (ec->locked ? EVENT_LOCKED : 0);
	add_flags_if(ec->in_state_ns, e, EVENT_TIMED);
	add_flags_if(!ec->socket, e, EVENT_NO_SOCKET);
	add_flags_if(connects_from_own_port_range(t), e, EVENT_OWN_PORT_RANGE);
	add_timewait_flags(t, e);
	if (ec->new_state == TCP_CLOSE)
		add_close_flags(t, e);
}

/*
 * The error that the event has. An error that is there before connect() made a SYN is of an
 * earlier connection, except ECONNABORTED, which ss -K sets at any time. A listener has no error
 * of its own: ss -K closes it before it sets one.
 */
static __always_inline int error_of(const struct transition *t)
{
	int old_state = t->ec->old_state, new_state = t->ec->new_state, error = t->ec->error;
	struct tcp_sock *tp;

	if (new_state == TCP_SYN_SENT || is_listener(old_state, new_state))
		return 0;
	if (!error || error == ECONNABORTED || !is_connect_end(old_state, new_state))
		return error;
	tp = tcp_sock_of(t->sk);
	return tp && has_made_syn(t->sk, tp) ? error : 0;
}

/* Fills every field of the event, and replaces what was in it. */
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
	e->uid = t->ec->uid;
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
	fill_flags(t, e);
	e->timeout_or_reason = timeout_or_reason_of(t, e->time_wait_substate);
}

/*
 * Fills what an EVENT_END has besides its transition, and sets the kind. The caller has filled
 * e->transition.
 */
static __always_inline void fill_connection(const struct transition *t, struct end_event *e)
{
	struct tcp_sock *tp = tcp_sock_of(t->sk);

	e->transition.kind = EVENT_END;
	e->opened_ns = t->ec->opened_ns;
	e->in_established_ns = t->ec->in_established_ns;
	e->sent_bytes = tp ? payload_sent(t->sk, tp, t->ec) : 0;
	e->received_bytes = tp ? payload_received(tp, has_sock_flag(t->sk, SOCK_DONE), t->ec) : 0;
	e->retransmits = tp ? tp->total_retrans : 0;
	e->rtt_us = tp ? tp->srtt_us >> 3 : 0;
}

/* Submits an EVENT_TRANSITION, and begins to track the TIME_WAIT that it begins. False: no room. */
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

/* As submit_transition_event(), for an EVENT_END. */
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

/* Emits the transition if it matches all filters, and counts what became of it. */
static __always_inline void emit_if_matching(struct transition *t,
					     struct program_counters *counters)
{
	if (!matches_except_owner(t) || !owner_matches(&t->ec->owner)) {
		count(counters->filtered);
		return;
	}
	if (leave_out_of_sample(t, counters))
		return;
	/* Before the event is reserved, because it may emit the path of a new cgroup. */
	if (!t->ec->owner.ref.pid)
		t->ec->owner.cgroup_id = announce_cgroup_of_socket(t->sk);
	if (wants_end_event(t) ? submit_end_event(t, counters)
			       : submit_transition_event(t, counters))
		count(counters->emitted);
	else
		count_lost_event(counters);
}

#endif
