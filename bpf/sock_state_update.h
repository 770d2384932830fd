/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What a transition adds to its socket's sock_state, and takes from it. */
#ifndef TCPSHIFT_SOCK_STATE_UPDATE_H
#define TCPSHIFT_SOCK_STATE_UPDATE_H

#include "kernel.h"

#include <bpf/bpf_helpers.h>
#include "dedup.h"
#include "event.h"
#include "event_ctx.h"
#include "owner.h"
#include "read.h"
#include "sock_state.h"
#include "sock_state_lookup.h"
#include "transition.h"

/*
 * Looks up or creates the sock_state, and marks the transition as handled in it for the
 * backup programs. The last program of the chain removes the mark.
 */
static __always_inline void fetch_and_mark_sock_state(struct transition *t, enum program_rank rank,
						      int old_state, int new_state)
{
	t->sock_state = sock_state_of(t->sk, old_state, new_state);
	if (t->sock_state)
		t->sock_state->handled_states =
			has_successor(rank) ? state_pair_of(old_state, new_state) : 0;
}

/*
 * The network namespace's inode number. It is cached because a socket never leaves its
 * namespace, and because the number shares a cache line with the namespace's reference
 * count: each socket that is created or freed takes that line from this CPU.
 */
static __always_inline __u32 netns_of(const struct transition *t)
{
	struct sock_state *s = t->sock_state;
	struct net *net;
	__u32 netns;

	if (s && s->netns)
		return s->netns;
	net = t->sk->__sk_common.skc_net.net;
	netns = READ_UNTYPED(net, ns.inum);
	if (s)
		s->netns = netns;
	return netns;
}

/* Updates the role and the times, and copies them to ec. */
static __always_inline void update_role_and_times(struct transition *t)
{
	struct sock_state *s = t->sock_state;
	struct event_ctx *ec = t->ec;

	ec->role = update_role(s, ec->old_state, ec->new_state);
	ec->in_state_ns = ec->opened_ns = ec->established_ns = 0;
	if (!s)
		return;
	if (is_child_creation(t))
		init_child_state(s);
	ec->in_state_ns = update_times(s, ec->old_state, ec->new_state, ec->now_ns);
	ec->opened_ns = s->opened_ns;
	ec->established_ns = s->established_ns;
}

/* Stores what the current task proves about the owner. Returns enum owner_proof. */
static __always_inline int update_owner(const struct transition *t)
{
	struct sock_state *s = t->sock_state;
	int proof;

	load_stored_owners(s, t->ec);
	if (!t->ec->locked)
		return OWNER_UNPROVEN;
	proof = prove_owner(t->slot);
	if (!s)
		return proof;
	if (proof == OWNER_PROVEN)
		s->owner = t->ec->owner;
	if (proof == OWNER_DISPROVEN) {
		s->owner.pid = 0;
		s->has_initial_owner = false;
		load_stored_owners(s, t->ec);
	}
	return proof;
}

/*
 * Makes the times unknown at the end of a connection that is out of scope. Its other
 * transitions were not recorded, and the socket may connect again, to a peer that is in
 * scope. Clears an old mark too, so that a backup does not take it for a later transition.
 */
static __always_inline void reset_times(const struct sock *sk, int old_state, int new_state)
{
	struct sock_state *s;

	if (new_state != TCP_CLOSE)
		return;
	s = find_sock_state(sk, old_state);
	if (!s)
		return;
	s->since_ns = 0;
	s->handled_states = 0;
}

#endif
