/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Is this CLOSE a TIME_WAIT. tcp_time_wait() puts a small timewait socket into
 * the socket's bucket of the established-hash table before it closes the socket
 * (net/ipv4/tcp_minisocks.c), so the bucket has the answer.
 */
#ifndef TCPSHIFT_TIMEWAIT_H
#define TCPSHIFT_TIMEWAIT_H

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include "endpoints.h"
#include "event.h"
#include "read.h"

/*
 * Up to 6.18 at least the timewait socket comes to the head of the bucket, which is
 * nearly always shorter than two; kernels after it put it where the socket was.
 */
#define NODES_WALKED 64

/* What a walk gives instead of a timewait socket's address, which is even. */
#define NOT_TIMEWAIT 0
#define WALK_BOUND 1 /* it did not find out */

/* The network namespace's table; up to 6.0 there was but one for all. */
static __always_inline struct inet_hashinfo *hashinfo_of(const struct sock *sk)
{
	struct net *net = sk->__sk_common.skc_net.net;

	if (bpf_core_field_exists(struct netns_ipv4, tcp_death_row.hashinfo))
		return READ_POINTER(net, ipv4.tcp_death_row.hashinfo);
	return BPF_CORE_READ(sk, __sk_common.skc_prot, h.hashinfo);
}

/* Not 0: these are not the same addresses. */
static __always_inline __u64 addrs_differ(struct sock_common *a, struct sock_common *b)
{
	__u64 differ = READ(a, skc_daddr) ^ READ(b, skc_daddr);

	differ |= READ(a, skc_rcv_saddr) ^ READ(b, skc_rcv_saddr);
	if (READ(a, skc_family) == AF_INET)
		return differ;
	for (int i = 0; i < 4; i++) {
		differ |= READ(a, skc_v6_daddr.in6_u.u6_addr32[i]) ^
			  READ(b, skc_v6_daddr.in6_u.u6_addr32[i]);
		differ |= READ(a, skc_v6_rcv_saddr.in6_u.u6_addr32[i]) ^
			  READ(b, skc_v6_rcv_saddr.in6_u.u6_addr32[i]);
	}
	return differ;
}

/*
 * A timewait socket keeps its socket's cookie, or has none: in another VRF there may be
 * one with all else in common.
 */
__noinline int is_timewait_of(__u64 timewait, __u64 socket, __u16 local_port)
{
	struct sock_common *node = (struct sock_common *)timewait;
	struct sock_common *skc = (struct sock_common *)socket;
	__s64 cookie = READ(node, skc_cookie.counter);
	__u64 differ = addrs_differ(node, skc);

	differ |= READ(node, skc_num) ^ local_port;
	differ |= READ(node, skc_dport) ^ READ(skc, skc_dport);
	differ |= READ(node, skc_family) ^ READ(skc, skc_family);
	differ |= (__u64)READ_POINTER(node, skc_net.net) ^ (__u64)READ_POINTER(skc, skc_net.net);
	return !differ && (!cookie || cookie == READ(skc, skc_cookie.counter));
}

/*
 * A bucket ends in a number that is odd and says which bucket it is: who was led
 * astray, by a node that was moved meanwhile, comes to the end of another one.
 */
static __always_inline __u64 end_of(__u32 slot)
{
	return (__u64)slot << 1 | 1;
}

/*
 * The first timewait socket in the bucket with this hash, which is of all that makes the
 * socket what it is. Global, so that the verifier walks the loop only once; so it takes
 * numbers, not pointers.
 */
__noinline __u64 walk_bucket(__u64 first, __u32 hash, __u32 slot)
{
	struct hlist_nulls_node *at = (struct hlist_nulls_node *)first;

	for (int i = 0; i < NODES_WALKED; i++) {
		struct sock_common *node;

		if (!at || (__u64)at & 1)
			return (__u64)at == end_of(slot) ? NOT_TIMEWAIT : WALK_BOUND;
		node = (void *)at - bpf_core_field_offset(struct sock_common, skc_nulls_node);
		if (READ(node, skc_hash) == hash && READ(node, skc_state) == TCP_TIME_WAIT)
			return (__u64)node;
		at = READ_POINTER(at, next);
	}
	return WALK_BOUND;
}

static __always_inline bool is_timewait(__u64 timewait)
{
	return timewait != NOT_TIMEWAIT && timewait != WALK_BOUND;
}

/* Where another one with the same hash stands before it, it is not known whether there is one. */
static __always_inline __u64 find_timewait(const struct sock *sk, const struct endpoints *ep)
{
	struct inet_hashinfo *info = hashinfo_of(sk);
	__u32 slot = sk->__sk_common.skc_hash & READ(info, ehash_mask);
	struct inet_ehash_bucket *bucket = READ_POINTER(info, ehash) + slot;
	__u64 found = walk_bucket((__u64)READ_POINTER(bucket, chain.first),
				  sk->__sk_common.skc_hash, slot);

	if (is_timewait(found) &&
	    !is_timewait_of(found, address_of(&sk->__sk_common), ep->local_port))
		return WALK_BOUND;
	return found;
}

/* Only these two states can end in a timewait socket. */
static __always_inline bool may_be_timewait(int old_state, int new_state)
{
	return new_state == TCP_CLOSE && (old_state == TCP_FIN_WAIT2 || old_state == TCP_CLOSING);
}

static __always_inline __u64 timewait_of(const struct sock *sk, const struct endpoints *ep,
					 int old_state, int new_state)
{
	if (!may_be_timewait(old_state, new_state))
		return NOT_TIMEWAIT;
	return find_timewait(sk, ep);
}

#endif
