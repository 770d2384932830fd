/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* One transition, from the tracepoint to the ring. */
#ifndef TCPSHIFT_TRANSITION_H
#define TCPSHIFT_TRANSITION_H

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include "afterlife.h"
#include "cgroup.h"
#include "clients.h"
#include "config.h"
#include "counters.h"
#include "endpoints.h"
#include "event.h"
#include "facts.h"
#include "filter.h"
#include "memory.h"
#include "owner.h"
#include "ring.h"
#include "timewait.h"
#include "twins.h"

/*
 * One transition on its way to the ring. All else is in facts: of what comes from a map the
 * verifier knows nothing, and so it does not follow each way on which a state was
 * compared to its end.
 */
struct transition {
	const struct sock *sk;
	__u32 place; /* of facts */
	struct facts *facts;
	struct socket_memory *memory; /* may be NULL */
};

static __always_inline int shown_new_state(const struct transition *t)
{
	return is_timewait(t->facts->timewait) ? TCP_TIME_WAIT : t->facts->new_state;
}

static __always_inline __u8 substate_of(const struct transition *t)
{
	struct inet_timewait_sock *tw = (struct inet_timewait_sock *)t->facts->timewait;

	return is_timewait(t->facts->timewait) ? READ(tw, tw_substate) : 0;
}

/* As far as can be told without its owner. */
static __always_inline bool may_be_wanted(const struct transition *t)
{
	if (!states_wanted(t->facts->old_state, shown_new_state(t)))
		return false;
	if (filter_roles && !has_bit(filter_roles, t->facts->role))
		return false;
	return socket_wanted(t->sk, &t->facts->ep);
}

/* How it came to that; of no other transition does anybody ask. */
static __always_inline __u16 flags_of_close(const struct sock *sk, const struct facts *facts)
{
	struct tcp_sock *tp = tcp_sock_of(sk);

	return (sk->__sk_common.skc_flags >> SOCK_DONE & 1 ? EVENT_PEER_FIN : 0) |
	       (tp && tp->linger2 < 0 ? EVENT_NO_LINGER2 : 0) |
	       (is_unsent(sk, facts->old_state, facts->new_state) ? EVENT_UNSENT : 0) |
	       (tp && tp->snd_una == tp->write_seq ? EVENT_ACKED : 0) |
	       (tp && BPF_CORE_READ_BITFIELD(tp, repair) ? EVENT_REPAIR : 0);
}

static __always_inline __u16 flags_of(const struct transition *t)
{
	const struct facts *facts = t->facts;

	return (facts->ep.mapped ? EVENT_MAPPED : 0) | (facts->locked ? EVENT_LOCKED : 0) |
	       (facts->in_state_ns ? EVENT_TIMED : 0) |
	       (facts->timewait == WALK_BOUND ? EVENT_WALK_BOUND : 0) |
	       (facts->socket ? 0 : EVENT_ORPHAN) |
	       (facts->new_state == TCP_CLOSE ? flags_of_close(t->sk, facts) : 0);
}

static __always_inline void describe(const struct transition *t, struct transition_event *e)
{
	e->timestamp_ns = t->facts->now_ns;
	e->cookie = t->facts->cookie;
	e->cgroup_id = t->facts->owner.cgroup_id;
	e->in_state_ns = t->facts->in_state_ns;
	__builtin_memcpy(e->local_addr, t->facts->ep.local_addr, sizeof(e->local_addr));
	__builtin_memcpy(e->peer_addr, t->facts->ep.peer_addr, sizeof(e->peer_addr));
	__builtin_memcpy(e->comm, t->facts->owner.comm, sizeof(e->comm));
	e->netns = t->facts->netns;
	e->uid = t->sk->sk_uid.val;
	e->pid = t->facts->owner.pid;
	e->error = t->sk->sk_err;
	e->local_port = t->facts->ep.local_port;
	e->peer_port = t->facts->ep.peer_port;
	e->kind = EVENT_TRANSITION;
	e->family = t->facts->ep.family;
	e->old_state = t->facts->old_state;
	e->new_state = t->facts->new_state;
	e->time_wait_substate = substate_of(t);
	e->role = t->facts->role;
	e->pid_source = source_of(&t->facts->owner);
	e->flags = flags_of(t);
	e->reserved = 0;
	__builtin_memset(e->reserved2, 0, sizeof(e->reserved2));
}

static __always_inline void describe_end(const struct transition *t, struct end_event *e)
{
	struct tcp_sock *tp = tcp_sock_of(t->sk);

	e->transition.kind = EVENT_END;
	e->opened_ns = t->facts->opened_ns;
	e->established_ns = t->facts->established_ns;
	e->sent_bytes = tp ? tp->bytes_sent - tp->bytes_retrans : 0;
	e->received_bytes = tp ? tp->bytes_received : 0;
	e->retransmits = tp ? tp->total_retrans : 0;
	e->rtt_us = tp ? tp->srtt_us >> 3 : 0;
}

static __always_inline bool is_end(const struct transition *t)
{
	return want_ends && t->facts->new_state == TCP_CLOSE && t->facts->old_state != TCP_CLOSE;
}

static __always_inline bool emit_transition(const struct transition *t,
					    struct program_counters *counters)
{
	struct transition_event *e;
	void *ring = ring_here();

	if (!ring)
		return false;
	e = bpf_ringbuf_reserve(ring, sizeof(*e), 0);
	if (!e)
		return false;
	describe(t, e);
	watch_end(t->sk, t->facts->timewait, e, counters);
	bpf_ringbuf_submit(e, sparing_wake_flags(ring, t->facts->now_ns, counters));
	return true;
}

static __always_inline bool emit_end(const struct transition *t, struct program_counters *counters)
{
	struct end_event *e;
	void *ring = ring_here();

	if (!ring)
		return false;
	e = bpf_ringbuf_reserve(ring, sizeof(*e), 0);
	if (!e)
		return false;
	describe(t, &e->transition);
	describe_end(t, e);
	watch_end(t->sk, t->facts->timewait, &e->transition, counters);
	bpf_ringbuf_submit(e, sparing_wake_flags(ring, t->facts->now_ns, counters));
	return true;
}

static __always_inline void tell(struct transition *t, struct program_counters *counters)
{
	if (!may_be_wanted(t) || !owner_wanted(&t->facts->owner)) {
		count(counters->filtered);
		return;
	}
	/* Before the event's place in the ring is taken: a new path goes out first. */
	if (!t->facts->owner.pid)
		t->facts->owner.cgroup_id = cgroup_id_of_socket(t->sk);
	if (is_end(t) ? emit_end(t, counters) : emit_transition(t, counters))
		count(counters->emitted);
	else
		count_lost(counters);
}

static __always_inline bool is_begin_of_child(const struct transition *t)
{
	return t->facts->old_state == TCP_LISTEN && t->facts->new_state == TCP_SYN_RECV;
}

/*
 * Up to 6.12 a child's LISTEN -> SYN_RECV has no peer yet, and its cookie is not
 * its own. It is told right before the socket's next transition, as it was.
 */
static __always_inline bool must_be_held(const struct transition *t)
{
	return t->memory && is_begin_of_child(t) && !t->facts->ep.peer_port;
}

/* Before it is whole the child's cookie is its listener's, which no memory means no waiting for. */
static __always_inline __u64 cookie_of(const struct transition *t)
{
	__u64 cookie;

	if (!has_socket_cookie || (is_begin_of_child(t) && !t->facts->ep.peer_port && !t->memory))
		return 0;
	cookie = t->sk->__sk_common.skc_cookie.counter;
	return cookie ? cookie : bpf_get_socket_cookie((void *)t->sk);
}

/* In place: there is no room for a second one on older kernels' stacks. */
static __always_inline void release_held(struct transition *t, struct program_counters *counters)
{
	struct facts *facts = t->facts;
	int old_state = t->facts->old_state, new_state = t->facts->new_state;
	__u64 now_ns = facts->now_ns, in_state_ns = facts->in_state_ns;

	t->facts->old_state = TCP_LISTEN;
	t->facts->new_state = TCP_SYN_RECV;
	facts->now_ns = t->memory->held_ns;
	facts->in_state_ns = 0;
	t->memory->held_ns = 0;
	count(counters->released);
	tell(t, counters);
	t->facts->old_state = old_state;
	t->facts->new_state = new_state;
	facts->now_ns = now_ns;
	facts->in_state_ns = in_state_ns;
}

static __always_inline void remember(struct transition *t)
{
	struct socket_memory *m = t->memory;

	t->facts->role = recall_role(m, t->facts->old_state, t->facts->new_state);
	t->facts->in_state_ns = t->facts->opened_ns = t->facts->established_ns = 0;
	if (!m)
		return;
	if (is_begin_of_child(t))
		begin_child(m);
	t->facts->in_state_ns =
		recall_times(m, t->facts->old_state, t->facts->new_state, t->facts->now_ns);
	t->facts->opened_ns = m->opened_ns;
	t->facts->established_ns = m->established_ns;
}

/* What the current task proves is remembered. */
static __always_inline int learn_owner(const struct transition *t)
{
	struct socket_memory *m = t->memory;
	int proof;

	recall_holders(m, t->facts);
	if (!t->facts->locked)
		return PROVES_NOTHING;
	proof = prove_owner(t->place);
	if (!m)
		return proof;
	if (proof == PROVES_OWNER)
		m->owner = t->facts->owner;
	if (proof == PROVES_OTHER) {
		m->owner.pid = 0;
		m->is_found = false;
		recall_holders(m, t->facts);
	}
	return proof;
}

/*
 * A transition that no filter on states lets through is remembered, and so is what
 * the current task proves; without the socket's lock, it proves nothing. What is held
 * back of the socket goes out at any.
 */
static __always_inline bool is_done_with(struct transition *t)
{
	if (states_may_be_wanted(t->facts->old_state, t->facts->new_state) ||
	    (t->memory && t->memory->held_ns))
		return false;
	if (t->facts->locked) {
		t->facts->cookie = cookie_of(t); /* which a listener is known by later */
		learn_owner(t);
	}
	return true;
}

/*
 * A socket never leaves its namespace, whose number lies in one cache line with the
 * count of those that hold it: each socket that comes or goes takes it from this CPU.
 */
static __always_inline __u32 netns_of(const struct transition *t)
{
	struct socket_memory *m = t->memory;
	struct net *net;
	__u32 netns;

	if (m && m->netns)
		return m->netns;
	net = t->sk->__sk_common.skc_net.net;
	netns = READ(net, ns.inum);
	if (m)
		m->netns = netns;
	return netns;
}

/*
 * A connection that is none of those asked for stays that as long as it lasts, and needs
 * no owner and no memory. A listener may have children that are, and at its second
 * transition a child may have the first one held back.
 */
static __always_inline bool is_stranger(const struct transition *t)
{
	const struct endpoints *ep = &t->facts->ep;

	return t->facts->old_state != TCP_SYN_RECV && ep->local_port && ep->peer_port &&
	       !endpoints_wanted(ep);
}

static __always_inline void handle(struct transition *t, struct program_counters *counters)
{
	int proof;

	t->facts->netns = netns_of(t);
	t->facts->timewait = NOT_TIMEWAIT;
	if (!netns_wanted(t->facts->netns)) {
		count(counters->filtered);
		return;
	}
	remember(t);
	look_at_socket(t->sk, t->facts);
	if ((may_be_preempted && is_stranger(t)) || is_done_with(t)) {
		count(counters->filtered);
		return;
	}
	t->facts->cookie = cookie_of(t);
	if (must_be_held(t)) {
		t->memory->held_ns = t->facts->now_ns;
		count(counters->held);
		return;
	}
	if (t->memory && t->memory->held_ns) {
		recall_holders(t->memory, t->facts);
		recall_listener(t->place);
		release_held(t, counters);
	}
	proof = learn_owner(t);
	t->facts->timewait =
		timewait_of(t->sk, &t->facts->ep, t->facts->old_state, t->facts->new_state);
	if (t->facts->timewait == WALK_BOUND)
		count(counters->walk_bound);
	/* What is learned now may be told later; the rest is looked up only to be told. */
	if (!may_be_wanted(t)) {
		count(counters->filtered);
		return;
	}
	if (proof != PROVES_OWNER)
		recall_owner(t->place);
	tell(t, counters);
}

/* A stranger that has memory may connect again, to who is wanted. */
static __always_inline void forget_times(const struct sock *sk, int old_state, int new_state)
{
	struct socket_memory *m;

	if (new_state != TCP_CLOSE)
		return;
	m = find_memory(sk, old_state);
	if (!m)
		return;
	m->since_ns = 0;
	m->mark = 0;
}

/* Where a task may be moved between the programs, every event needs its mark there. */
static __always_inline void fetch_memory(struct transition *t, enum twin twin, int old_state,
					 int new_state)
{
	t->memory = memory_of(t->sk, old_state, new_state);
	if (t->memory)
		t->memory->mark = twin == TWIN_FIRST ? states_of(old_state, new_state) : 0;
}

/* What the tracepoint shows to the first program, or to the second instead of it. */
static __always_inline void on_claimed(enum twin twin, const struct sock *sk, int old_state,
				       int new_state, struct program_counters *counters)
{
	struct transition t = {.sk = sk, .place = place_for(twin, sk)};

	if (may_be_preempted)
		fetch_memory(&t, twin, old_state, new_state);
	if (sk->sk_protocol != IPPROTO_TCP) {
		count(counters->other_protocol);
		return;
	}
	t.facts = facts_at(t.place);
	if (!t.facts)
		return;
	t.facts->old_state = old_state;
	t.facts->new_state = new_state;
	read_endpoints(sk, old_state, new_state, &t.facts->ep);
	if (!may_be_preempted && is_stranger(&t)) {
		forget_times(sk, old_state, new_state);
		count(counters->filtered);
		return;
	}
	t.facts->now_ns = bpf_ktime_get_ns();
	if (!may_be_preempted)
		fetch_memory(&t, twin, old_state, new_state);
	barrier();
	handle(&t, counters);
}

static __always_inline int on_transition(enum twin twin, const struct sock *sk, int old_state,
					 int new_state)
{
	struct program_counters *counters = counters_of(twin);

	if (!counters)
		return 0;
	count(counters->entered);
	if (twin == TWIN_SECOND && take_mark(sk, old_state, new_state)) {
		count(counters->left_to_twin);
		return 0;
	}
	on_claimed(twin, sk, old_state, new_state, counters);
	if (twin == TWIN_FIRST)
		leave_mark(sk, old_state, new_state);
	return 0;
}

#endif
