/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The local ports of one network namespace that connect() does not choose, whatever the
 * destination, because bind() has made or joined their buckets: __inet_hash_connect() of
 * net/ipv4/inet_hashtables.c skips a bucket if fastreuse or fastreuseport is not negative. Such
 * a bucket has listeners, their children, also after the listener was closed, sockets that were
 * bound before connect(), and the TIME_WAITs of all of these. inet_diag does not show the bucket.
 * Sockets that are bound and neither listen nor are connected are in no table that an iterator
 * walks.
 */
#ifndef TCPSHIFT_BOUND_PORTS_H
#define TCPSHIFT_BOUND_PORTS_H

#include "kernel.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

/* The bind bucket of a socket, NULL if it has none. */
static __always_inline const struct inet_bind_bucket *bind_bucket_of(struct sock_common *skc)
{
	struct tcp_timewait_sock *tw;
	struct tcp_sock *tp;

	tp = bpf_skc_to_tcp_sock(skc);
	if (tp)
		return tp->inet_conn.icsk_bind_hash;
	tw = bpf_skc_to_tcp_timewait_sock(skc);
	return tw ? tw->tw_sk.tw_tb : NULL;
}

/* Called for each TCP socket. Writes the port (two bytes) if bind() made or joined its bucket. */
static __always_inline int on_bound_socket(struct bpf_iter__tcp *ctx)
{
	struct sock_common *skc = ctx->sk_common;
	const struct inet_bind_bucket *bucket;
	__u16 port;

	if (!skc)
		return 0;
	bucket = bind_bucket_of(skc);
	if (!bucket || (bucket->fastreuse < 0 && bucket->fastreuseport < 0))
		return 0;
	port = skc->skc_num;
	bpf_seq_write(ctx->meta->seq, &port, sizeof(port));
	return 0;
}

#endif
