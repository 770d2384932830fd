/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What a transition adds to its socket's sock_state, and takes from it. */
#ifndef TCPSHIFT_SOCK_STATE_UPDATE_H
#define TCPSHIFT_SOCK_STATE_UPDATE_H

#include "kernel.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include "bytes.h"
#include "connect.h"
#include "counters.h"
#include "dedup.h"
#include "event.h"
#include "event_ctx.h"
#include "owner.h"
#include "read.h"
#include "reset.h"
#include "sock_state.h"
#include "sock_state_lookup.h"
#include "transition.h"

/*
 * Forgets the times of a socket, because the time of one of its transitions is not recorded: the
 * filters before a reload, or those after it, leave it out. The end of its connection then reports
 * what it reports of a connection that is older than the tracer.
 */
static __always_inline void forget_times(struct sock_state *s)
{
	s->since_outdated = true;
	s->opened_ns = s->in_established_ns = 0;
}

/*
 * Looks up or creates t->sock_state, NULL if it cannot, and marks the transition as handled in it
 * for the next programs; the last one leaves no mark. Without socket storage no socket has a
 * sock_state, and none counts as unavailable. A mark that ends in another state shows a gap.
 */
static __always_inline void fetch_and_mark_sock_state(struct transition *t, enum program_rank rank,
						      int old_state, int new_state,
						      struct program_counters *counters)
{
	struct sock_state *s = sock_state_of(t->sk, old_state, new_state);

	t->sock_state = s;
	if (!s) {
		if (has_socket_storage && t->sk->sk_protocol == IPPROTO_TCP)
			count(counters->state_unavailable);
		return;
	}
	make_state_own(s, address_of(t->sk));
	if (s->handled_states && (__u8)s->handled_states != (__u8)old_state)
		forget_times(s);
	s->handled_states = has_successor(rank) ? state_pair_of(old_state, new_state) : 0;
}

/*
 * The network namespace's inode number. It is cached because a socket never leaves its
 * namespace, and because the number shares a cache line with the namespace's reference
 * count: each socket that is created or freed takes that line from this CPU.
 */
static __always_inline __u32 netns_of(const struct transition *t)
{
	struct sock_state *s = t->sock_state;
	const struct sock *sk = t->sk;
	struct net *net;
	__u32 netns;

	if (s && s->netns)
		return s->netns;
	net = READ_AT(sk, __sk_common.skc_net.net);
	netns = READ_AT(net, ns.inum);
	if (s)
		s->netns = netns;
	return netns;
}

/* Whether TCP_REPAIR makes the connection: without a SYN, in one call. */
static __always_inline bool is_connecting_by_repair(const struct transition *t)
{
	struct tcp_sock *tp;

	if (t->ec->new_state != TCP_SYN_SENT && t->ec->old_state != TCP_SYN_SENT)
		return false;
	tp = tcp_sock_of(t->sk);
	return tp && BPF_CORE_READ_BITFIELD(tp, repair);
}

/*
 * Records what the end of the connection cannot show any more: sk_txhash and snd_una before
 * connect(), whether TCP_REPAIR made the connection, and whether bytes_received counts the peer's
 * FIN. A socket that leaves CLOSE begins a new connection, so the values of the last one are
 * cleared.
 */
static __always_inline void update_connection(const struct transition *t, struct sock_state *s)
{
	struct tcp_sock *tp;

	if (t->ec->old_state == TCP_CLOSE) {
		s->connect_txhash = t->sk->sk_txhash;
		tp = tcp_sock_of(t->sk);
		s->connect_snd_una = tp ? tp->snd_una : 0;
		s->fin_not_counted = false;
		s->is_repaired = false;
		s->reset = (struct reset_note){};
	}
	if (t->ec->is_repaired)
		s->is_repaired = true;
	if (t->ec->new_state != TCP_CLOSE_WAIT)
		return;
	tp = tcp_sock_of(t->sk);
	s->fin_not_counted = tp && is_fin_uncounted(tp);
}

/* Updates the role, the times and the connection, and copies them to ec. */
static __always_inline void update_role_and_times(struct transition *t)
{
	struct sock_state *s = t->sock_state;
	struct event_ctx *ec = t->ec;

	ec->is_repaired = is_connecting_by_repair(t);
	ec->role = update_role(s, ec->old_state, ec->new_state, ec->is_repaired);
	ec->in_state_ns = ec->opened_ns = ec->in_established_ns = 0;
	ec->fin_not_counted = false;
	if (!s)
		return;
	update_connection(t, s);
	ec->in_state_ns = update_times(s, ec->old_state, ec->new_state, ec->now_ns);
	ec->opened_ns = s->opened_ns;
	ec->in_established_ns = s->in_established_ns;
	ec->fin_not_counted = s->fin_not_counted;
	ec->is_repaired = s->is_repaired;
}

/*
 * Stores what the current task, which owns the socket's lock, proves about the owner, for a
 * transition that is not emitted. Without a sock_state there is no place for it.
 */
static __always_inline void store_proven_owner(const struct transition *t)
{
	struct sock_state *s = t->sock_state;
	int proof;

	create_cookie(t->sk); /* process_ref.cookie identifies a listener */
	if (!s)
		return;
	t->ec->stored_owner.ref.pid = 0;
	if (s->owner.ref.pid)
		t->ec->stored_owner = s->owner;
	load_initial_owner(s, s->sk, t->ec);
	proof = prove_owner(t->slot);
	if (proof == OWNER_PROVEN)
		s->owner = t->ec->owner;
	if (proof == OWNER_DISPROVEN) {
		s->owner.ref.pid = 0;
		s->initial_owner_sum = 0;
	}
}

/*
 * Copies the stored owners to ec, and stores what the current task proves about the owner. Returns
 * enum owner_proof.
 */
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
		s->owner.ref.pid = 0;
		s->initial_owner_sum = 0;
		load_stored_owners(s, t->ec);
	}
	return proof;
}

/*
 * At the CLOSE of a connection that is out of scope. The socket may connect again, to a peer that
 * is in scope, so nothing of this connection may remain:
 * - its time in the state, because its other transitions were not recorded;
 * - its mark, which the backup program would take for that of a later transition;
 * - the note of its reset on this CPU, which a later socket at the same address would get.
 */
static __always_inline void forget_at_close(const struct transition *t, int old_state,
					    int new_state)
{
	struct sock_state *s;

	if (new_state != TCP_CLOSE)
		return;
	take_reset_note(t);
	s = find_sock_state(t->sk, old_state);
	if (!s)
		return;
	s->since_ns = 0;
	s->handled_states = 0;
}

#endif
