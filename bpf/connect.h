/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * How far connect() came on a socket that goes from SYN_SENT to CLOSE.
 *
 * tcp_v4_connect() and tcp_v6_connect() set SYN_SENT, look for a local port
 * (inet_hash_connect()), set sk_txhash to a random number that is never 0, ask for the
 * route with that port (IPv4 only), and make the SYN (tcp_connect()), unless a fast open
 * puts that off. Each step may fail, and then they set CLOSE.
 */
#ifndef TCPSHIFT_CONNECT_H
#define TCPSHIFT_CONNECT_H

#include "kernel.h"

#include <bpf/bpf_helpers.h>
#include "read.h"
#include "sock_state.h"
#include "sock_state_lookup.h"

#define MAX_FASTOPEN_DATA 65536 /* more than a SYN carries */

/* The socket's protocol must be TCP; for another one the result may be NULL. */
static __always_inline struct tcp_sock *tcp_sock_of(const struct sock *sk)
{
	return has_rdonly_cast ? typed((struct tcp_sock *)sk) : bpf_skc_to_tcp_sock((void *)sk);
}

/* Whether the transition ends a connect() that has failed or was given up. */
static __always_inline bool is_connect_end(int old_state, int new_state)
{
	return old_state == TCP_SYN_SENT && new_state == TCP_CLOSE;
}

/*
 * Whether, at the end of a connect(), tcp_connect() has made a SYN and counts it as in flight. It
 * does so even if the lower layer did not send the SYN, except with ECONNREFUSED, where it returns
 * before.
 *
 * tcp_connect_init() sets snd_una to write_seq. That differs from the snd_una of an earlier
 * connection of the socket, because tcp_disconnect() moves write_seq beyond the old window. A
 * socket without a sock_state has no earlier snd_una to compare with. Then an earlier connection
 * whose window was below MAX_FASTOPEN_DATA looks like a SYN of this one.
 */
static __always_inline bool has_made_syn(const struct sock *sk, const struct tcp_sock *tp)
{
	struct sock_state *s = find_sock_state(sk, TCP_SYN_SENT);

	if (tp->snd_nxt == tp->snd_una)
		return false;
	return s ? tp->snd_una != s->connect_snd_una
		 : tp->write_seq - tp->snd_nxt < MAX_FASTOPEN_DATA;
}

/* What is known, at the end of a connect(), about its search for a local port. */
enum port_search {
	PORT_FOUND,
	PORT_NOT_FOUND,
	PORT_SEARCH_UNKNOWN,
};

/*
 * Whether, at the end of a connect(), inet_hash_connect() has found a port. A socket that connects
 * again has the sk_txhash of its earlier connection, which only its sock_state knows.
 */
static __always_inline enum port_search port_search_of(const struct sock *sk)
{
	struct sock_state *s = find_sock_state(sk, TCP_SYN_SENT);
	struct tcp_sock *tp;

	if (s)
		return sk->sk_txhash == s->connect_txhash ? PORT_NOT_FOUND : PORT_FOUND;
	if (!sk->sk_txhash)
		return PORT_NOT_FOUND;
	tp = tcp_sock_of(sk);
	return tp && has_made_syn(sk, tp) ? PORT_FOUND : PORT_SEARCH_UNKNOWN;
}

#endif
