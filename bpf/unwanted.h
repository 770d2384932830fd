/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Transitions that are never emitted: which they are, and what a program keeps of them.
 *
 * If only connection records are wanted, these are most of a connection's transitions. So the
 * programs do only what the last transition of the connection needs.
 */
#ifndef TCPSHIFT_UNWANTED_H
#define TCPSHIFT_UNWANTED_H

#include "kernel.h"

#include <bpf/bpf_helpers.h>
#include "config.h"
#include "counters.h"
#include "event_ctx.h"
#include "filter.h"
#include "listen_port.h"
#include "owner.h"
#include "reset.h"
#include "sock_state.h"
#include "sock_state_update.h"
#include "transition.h"

/*
 * Whether the transition is never emitted, because the filter on states leaves it out. False unless
 * that filter leaves out LISTEN -> SYN_RECV too. So no deferred transition waits for this one.
 */
static __always_inline bool is_unwanted(const struct sock *sk, int old_state, int new_state)
{
	if (!leaves_out_creations())
		return false;
	if (exclude_orphan_fin_wait2 && new_state == TCP_FIN_WAIT2 && !sk->sk_socket)
		return true;
	return !states_may_match(old_state, new_state);
}

/*
 * Whether an unwanted transition need not read the clock: no duration that the last transition of
 * the connection reports begins or ends with it.
 */
static __always_inline bool needs_no_time(int old_state, int new_state)
{
	return !want_state_times && !restarts_times(old_state, new_state) &&
	       old_state != TCP_ESTABLISHED && new_state != TCP_ESTABLISHED;
}

/*
 * Whether an unwanted transition changes nothing that a later one needs, except that since_ns is
 * outdated. A segment makes it: the ACK of this side's FIN, or the peer's FIN before that. So it
 * proves an owner only if a task owns the lock and has the file open. An orphan has no file, unless
 * it is a subflow. A task that owns an orphan's lock is in close(), which has proven the owner.
 */
static __always_inline bool leaves_nothing(const struct sock *sk, int old_state, int new_state)
{
	if (want_state_times || old_state != TCP_FIN_WAIT1 ||
	    (new_state != TCP_FIN_WAIT2 && new_state != TCP_CLOSING))
		return false;
	return !sk->sk_lock.owned || (!sk->sk_socket && !is_subflow((struct tcp_sock *)sk));
}

/*
 * Handles an unwanted transition, after t has its sock_state: the steps that later transitions of
 * the socket need. in_scope: false if no filter on endpoints can match, so no owner is stored.
 */
static __always_inline void keep_unwanted(struct transition *t, bool in_scope)
{
	struct event_ctx *ec = t->ec;

	if (leaves_nothing(t->sk, ec->old_state, ec->new_state)) {
		if (t->sock_state)
			t->sock_state->since_outdated = true;
		return;
	}
	if (ec->new_state == TCP_CLOSE)
		take_reset_note(t);
	if ((filter_netns || exclude_netns) && !netns_matches(netns_of(t))) {
		if (t->sock_state)
			forget_times(t->sock_state);
		return;
	}
	update_role_and_times(t);
	delete_unbound_listener(t);
	if (!in_scope || !t->sk->sk_lock.owned)
		return;
	if (t->sock_state && confirm_stored_owner(t->sk, &t->sock_state->owner))
		return;
	read_socket_fields(t->sk, ec);
	store_proven_owner(t);
}

#endif
