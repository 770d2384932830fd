/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Transitions that are emitted later than they happen. Up to 6.12 the tracepoint reports
 * a child's LISTEN -> SYN_RECV before the kernel has set the child's peer, and while its
 * cookie is still the listener's. So the programs store only its time and its user. They emit
 * it right before the child's next transition, with that time and that user.
 */
#ifndef TCPSHIFT_DEFERRED_H
#define TCPSHIFT_DEFERRED_H

#include "kernel.h"

#include <bpf/bpf_helpers.h>
#include "counters.h"
#include "emit.h"
#include "event_ctx.h"
#include "filter.h"
#include "owner.h"
#include "sock_state.h"
#include "transition.h"

/* Whether a child's creation lacks the peer. Without a sock_state there is no place to defer it. */
static __always_inline bool must_be_deferred(const struct transition *t)
{
	return !leaves_out_creations() && t->sock_state && is_child_creation(t) &&
	       !t->ec->ep.peer_port;
}

/* Stores the transition's time and user in the sock_state, and counts it as deferred. */
static __always_inline void defer(struct transition *t, struct program_counters *counters)
{
	t->sock_state->deferred_ns = t->ec->now_ns;
	t->sock_state->deferred_uid = t->ec->uid;
	count(counters->deferred);
}

/* Whether an earlier transition of the socket is stored and still has to be emitted. */
static __always_inline bool has_deferred(const struct transition *t)
{
	return !leaves_out_creations() && t->sock_state && t->sock_state->deferred_ns;
}

/*
 * Emits the deferred transition. The program has no second struct event_ctx to use, so this
 * changes ec and restores it. It does not restore the owners: update_owner() loads them again.
 *
 * A socket has no error and no struct socket when it is created, and no task owns its lock. A
 * fast-open child may have got all three since, and the user of the process that accepted it.
 */
static __always_inline void emit_deferred(struct transition *t, struct program_counters *counters)
{
	struct event_ctx *ec = t->ec;
	int old_state, new_state, error;
	__u64 now_ns, in_state_ns, socket;
	bool locked;
	__u32 uid;

	load_stored_owners(t->sock_state, ec);
	use_listener_owner(t->slot);
	old_state = ec->old_state;
	new_state = ec->new_state;
	now_ns = ec->now_ns;
	in_state_ns = ec->in_state_ns;
	error = ec->error;
	socket = ec->socket;
	locked = ec->locked;
	uid = ec->uid;
	ec->old_state = TCP_LISTEN;
	ec->new_state = TCP_SYN_RECV;
	ec->now_ns = t->sock_state->deferred_ns;
	ec->in_state_ns = 0;
	ec->error = 0;
	ec->socket = 0;
	ec->locked = false;
	ec->uid = t->sock_state->deferred_uid;
	t->sock_state->deferred_ns = 0;
	count(counters->resumed);
	emit_if_matching(t, counters);
	ec->old_state = old_state;
	ec->new_state = new_state;
	ec->now_ns = now_ns;
	ec->in_state_ns = in_state_ns;
	ec->error = error;
	ec->socket = socket;
	ec->locked = locked;
	ec->uid = uid;
}

#endif
