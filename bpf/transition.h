/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The transition that a program handles: the steps of dispatch.h pass it on. */
#ifndef TCPSHIFT_TRANSITION_H
#define TCPSHIFT_TRANSITION_H

#include "kernel.h"

#include <bpf/bpf_helpers.h>
#include "config.h"
#include "event_ctx.h"
#include "sock_state.h"
#include "timewait.h"

/*
 * The values that most branches depend on are in ec, because ec points into a map. The verifier
 * does not track values that are loaded from a map, so it does not walk the rest of the program
 * once for each outcome of a comparison.
 */
struct transition {
	const struct sock *sk;
	__u32 slot; /* of ec */
	struct event_ctx *ec;
	struct sock_state *sock_state; /* may be NULL */
};

/* Whether this is the first transition of a socket that a listener has created. */
static __always_inline bool is_child_creation(const struct transition *t)
{
	return t->ec->old_state == TCP_LISTEN && t->ec->new_state == TCP_SYN_RECV;
}

/*
 * The new state as it is emitted. The tracepoint never reports TIME_WAIT: a socket that
 * leaves a timewait socket behind goes to CLOSE.
 */
static __always_inline int emitted_new_state(const struct transition *t)
{
	return is_timewait(t->ec->timewait) ? TCP_TIME_WAIT : t->ec->new_state;
}

/* Whether the event is an EVENT_END. */
static __always_inline bool wants_end_event(const struct transition *t)
{
	return want_ends && t->ec->new_state == TCP_CLOSE && t->ec->old_state != TCP_CLOSE;
}

/* Makes the kernel give the socket a cookie, if it has none yet. */
static __always_inline void create_cookie(const struct sock *sk)
{
	if (has_socket_cookie && !sk->__sk_common.skc_cookie.counter)
		bpf_get_socket_cookie((void *)sk);
}

/*
 * The socket's cookie, which the kernel creates if there is none. 0 where tracing programs cannot
 * ask for it (has_socket_cookie), and where it cannot be trusted: up to 6.12 a new child without a
 * peer port still has its listener's cookie. deferred.h waits for the child's own, but without a
 * sock_state it cannot.
 */
static __always_inline __u64 cookie_of(const struct transition *t)
{
	__u64 cookie;

	if (!has_socket_cookie || (is_child_creation(t) && !t->ec->ep.peer_port && !t->sock_state))
		return 0;
	cookie = t->sk->__sk_common.skc_cookie.counter;
	return cookie ? cookie : bpf_get_socket_cookie((void *)t->sk);
}

#endif
