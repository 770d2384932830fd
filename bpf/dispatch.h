/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The steps that a program takes for a transition, in their order. */
#ifndef TCPSHIFT_DISPATCH_H
#define TCPSHIFT_DISPATCH_H

#include "kernel.h"

#include <bpf/bpf_helpers.h>
#include "config.h"
#include "counters.h"
#include "dedup.h"
#include "deferred.h"
#include "emit.h"
#include "endpoints.h"
#include "event.h"
#include "event_ctx.h"
#include "filter.h"
#include "listen_port.h"
#include "owner.h"
#include "sample.h"
#include "sock_state_update.h"
#include "timewait.h"
#include "transition.h"
#include "unwanted.h"

/*
 * Whether to drop the transition, because the filter on states does not match and no
 * deferred transition waits to be emitted. A dropped transition may still prove the owner
 * for later ones; without the socket's lock it would prove nothing.
 */
static __always_inline bool drop_by_states(struct transition *t)
{
	if (states_may_match(t->ec->old_state, t->ec->new_state) || has_deferred(t))
		return false;
	if (t->ec->locked)
		store_proven_owner(t);
	return true;
}

/*
 * Whether the connection is out of scope: no transition of it can match the filters on
 * endpoints, so the programs need neither its owner nor its sock_state. Never true for a listener,
 * which may have children that match, nor for a child's second transition, because its first one
 * may be deferred.
 */
static __always_inline bool endpoints_never_match(const struct transition *t)
{
	const struct endpoints *ep = &t->ec->ep;

	return t->ec->old_state != TCP_SYN_RECV && ep->local_port && ep->peer_port &&
	       !endpoints_match(ep);
}

/* The steps after t has its endpoints and its sock_state: update, filter, emit. */
static __always_inline void filter_and_emit(struct transition *t, struct program_counters *counters)
{
	struct event_ctx *ec = t->ec;
	int proof;

	ec->netns = netns_of(t);
	ec->timewait = NOT_TIMEWAIT;
	if (ec->new_state == TCP_CLOSE)
		take_reset_note(t);
	if (!netns_matches(ec->netns)) {
		if (t->sock_state)
			forget_times(t->sock_state);
		count(counters->filtered);
		return;
	}
	update_role_and_times(t);
	delete_unbound_listener(t);
	read_socket_fields(t->sk, ec);
	if ((may_be_preempted && endpoints_never_match(t)) || drop_by_states(t)) {
		count(counters->filtered);
		return;
	}
	ec->cookie = cookie_of(t);
	if (must_be_deferred(t)) {
		defer(t, counters);
		return;
	}
	if (has_deferred(t))
		emit_deferred(t, counters);
	proof = update_owner(t);
	ec->timewait = timewait_of(t->sk, &ec->ep, ec->old_state, ec->new_state);
	if (ec->timewait == TIMEWAIT_UNKNOWN)
		count(counters->timewait_unknown);
	/* The stored owner is verified only for an event, because that is expensive. */
	if (!matches_except_owner(t)) {
		count(counters->filtered);
		return;
	}
	/* Before the owner is verified; with a filter on owners emit_if_matching() does this. */
	if (!filters_on_owners() && leave_out_of_sample(t, counters))
		return;
	if (proof != OWNER_PROVEN)
		use_stored_owner(t->slot);
	add_unbound_listener(t);
	emit_if_matching(t, counters);
}

/*
 * Handles a transition that no earlier program of the chain has handled.
 *
 * With may_be_preempted every transition must be marked in its socket's sock_state, because the
 * next program may run on another CPU. So the sock_state is fetched first, even for a connection
 * that is out of scope.
 */
static __always_inline void handle_transition(enum program_rank rank, const struct sock *sk,
					      int old_state, int new_state,
					      struct program_counters *counters)
{
	struct transition t = {.sk = sk, .slot = event_ctx_slot(rank, sk)};
	bool unwanted = is_unwanted(sk, old_state, new_state);

	if (may_be_preempted)
		fetch_and_mark_sock_state(&t, rank, old_state, new_state, counters);
	if (sk->sk_protocol != IPPROTO_TCP) {
		if (sk->sk_protocol == IPPROTO_MPTCP)
			create_cookie(sk); /* process_ref.cookie identifies a listener */
		count(counters->other_protocol);
		return;
	}
	t.ec = event_ctx_at(t.slot);
	if (!t.ec)
		return;
	t.ec->old_state = old_state;
	t.ec->new_state = new_state;
	t.ec->is_unwanted = unwanted;
	if (filters_on_endpoints() || !unwanted)
		read_endpoints(sk, old_state, new_state, &t.ec->ep);
	if (!may_be_preempted && filters_on_endpoints() && endpoints_never_match(&t)) {
		forget_at_close(&t, old_state, new_state);
		count(counters->filtered);
		return;
	}
	t.ec->now_ns =
		unwanted && needs_no_time(old_state, new_state) ? 0 : bpf_ktime_get_boot_ns();
	if (!may_be_preempted)
		fetch_and_mark_sock_state(&t, rank, old_state, new_state, counters);
	barrier(); /* the compiler reloads ec: the verifier does not track its values */
	if (unwanted) {
		keep_unwanted(&t, !may_be_preempted || !filters_on_endpoints() ||
					  !endpoints_never_match(&t));
		count(counters->filtered);
		return;
	}
	filter_and_emit(&t, counters);
}

/*
 * Called by each program of the chain at each firing. Counts the firing, and handles it unless an
 * earlier program of the chain has. Returns 0.
 */
static __always_inline int on_transition(enum program_rank rank, const struct sock *sk,
					 int old_state, int new_state)
{
	struct program_counters *counters = counters_of(rank);

	if (!counters)
		return 0;
	count(counters->entered);
	if (rank != PROGRAM_PRIMARY && take_handled_mark(rank, sk, old_state, new_state)) {
		count(counters->deduplicated);
		return 0;
	}
	handle_transition(rank, sk, old_state, new_state, counters);
	if (has_successor(rank))
		mark_handled(sk, old_state, new_state);
	return 0;
}

#endif
