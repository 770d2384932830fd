/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Whether a socket that reaches CLOSE has left a TIME_WAIT. Before tcp_time_wait()
 * closes the socket, it links a small timewait socket into the socket's bucket of the
 * established-hash table (net/ipv4/tcp_minisocks.c), so the bucket is searched for it.
 */
#ifndef TCPSHIFT_TIMEWAIT_H
#define TCPSHIFT_TIMEWAIT_H

#include "kernel.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include "endpoints.h"
#include "read.h"

/*
 * Bounds the walk along a bucket, which nearly always has at most one node. The kernel inserts a
 * timewait socket at the head of its bucket, or, since commit b8ec80b13021 (6.19 and some stable
 * releases), in the place of its socket.
 */
#define MAX_BUCKET_NODES 64

/* The results of a search, besides a timewait socket's address, which is even and not 0. */
#define NOT_TIMEWAIT 0 /* there is none */
#define TIMEWAIT_UNKNOWN 1 /* the search was not conclusive */

/*
 * The established-hash table: one for all network namespaces, but since 6.1 a namespace may
 * have its own.
 */
static __always_inline struct inet_hashinfo *hashinfo_of(const struct sock *sk)
{
	struct net *net = READ_AT(sk, __sk_common.skc_net.net);

	if (bpf_core_field_exists(struct netns_ipv4, tcp_death_row.hashinfo))
		return READ_POINTER_AT(net, ipv4.tcp_death_row.hashinfo);
	return BPF_CORE_READ(sk, __sk_common.skc_prot, h.hashinfo);
}

/* 0 if the two have equal addresses. A number and not a bool, to be combined without branches. */
static __always_inline __u64 addr_difference(struct sock_common *a, struct sock_common *b)
{
	__u64 difference = READ_AT(a, skc_daddr) ^ READ_AT(b, skc_daddr);

	difference |= READ_AT(a, skc_rcv_saddr) ^ READ_AT(b, skc_rcv_saddr);
	if (READ_AT(a, skc_family) == AF_INET)
		return difference;
	for (int i = 0; i < 4; i++) {
		difference |= READ_AT(a, skc_v6_daddr.in6_u.u6_addr32[i]) ^
			      READ_AT(b, skc_v6_daddr.in6_u.u6_addr32[i]);
		difference |= READ_AT(a, skc_v6_rcv_saddr.in6_u.u6_addr32[i]) ^
			      READ_AT(b, skc_v6_rcv_saddr.in6_u.u6_addr32[i]);
	}
	return difference;
}

/*
 * Whether this is the socket's timewait socket: same addresses, ports, family and
 * namespace. In another VRF there may be one that has all of these in common, so the
 * cookie is compared too; a timewait socket has its socket's cookie, or none.
 */
__noinline int is_timewait_of(__u64 timewait, __u64 socket, __u16 local_port)
{
	struct sock_common *node = (struct sock_common *)timewait;
	struct sock_common *skc = (struct sock_common *)socket;
	__s64 cookie = READ_AT(node, skc_cookie.counter);
	__u64 difference = addr_difference(node, skc);

	difference |= READ_AT(node, skc_num) ^ local_port;
	difference |= READ_AT(node, skc_dport) ^ READ_AT(skc, skc_dport);
	difference |= READ_AT(node, skc_family) ^ READ_AT(skc, skc_family);
	difference |= (__u64)READ_POINTER_AT(node, skc_net.net) ^
		      (__u64)READ_POINTER_AT(skc, skc_net.net);
	return !difference && (!cookie || cookie == READ_AT(skc, skc_cookie.counter));
}

/* The odd number that ends a bucket's list; NULLS_MARKER() of include/linux/list_nulls.h. */
static __always_inline __u64 nulls_marker(__u32 bucket)
{
	return (__u64)bucket << 1 | 1;
}

/*
 * The first timewait socket with this hash in the bucket, NOT_TIMEWAIT, or TIMEWAIT_UNKNOWN after
 * MAX_BUCKET_NODES nodes. If a node moves to another bucket meanwhile, the walk ends at that
 * bucket's marker and is not conclusive.
 *
 * Global, so that the verifier walks the loop only once; therefore it takes numbers, not
 * pointers.
 */
__noinline __u64 walk_bucket(__u64 first, __u32 hash, __u32 bucket)
{
	struct hlist_nulls_node *at = (struct hlist_nulls_node *)first;

	for (int i = 0; i < MAX_BUCKET_NODES; i++) {
		struct sock_common *node;

		if (!at || (__u64)at & 1)
			return (__u64)at == nulls_marker(bucket) ? NOT_TIMEWAIT : TIMEWAIT_UNKNOWN;
		node = (void *)at - bpf_core_field_offset(struct sock_common, skc_nulls_node);
		if (READ_AT(node, skc_hash) == hash && READ_AT(node, skc_state) == TCP_TIME_WAIT)
			return (__u64)node;
		at = READ_POINTER_AT(at, next);
	}
	return TIMEWAIT_UNKNOWN;
}

/* Whether a search has found a timewait socket. */
static __always_inline bool is_timewait(__u64 timewait)
{
	return timewait != NOT_TIMEWAIT && timewait != TIMEWAIT_UNKNOWN;
}

/*
 * Searches for the socket's timewait socket. walk_bucket() stops at the first one with the hash. If
 * that belongs to another socket, the socket's own may be behind it: TIMEWAIT_UNKNOWN.
 */
static __always_inline __u64 find_timewait(const struct sock *sk, const struct endpoints *ep)
{
	struct inet_hashinfo *info = hashinfo_of(sk);
	__u32 index = sk->__sk_common.skc_hash & READ_AT(info, ehash_mask);
	struct inet_ehash_bucket *bucket = READ_POINTER_AT(info, ehash) + index;
	__u64 found = walk_bucket((__u64)READ_POINTER_AT(bucket, chain.first),
				  sk->__sk_common.skc_hash, index);

	if (is_timewait(found) &&
	    !is_timewait_of(found, address_of(&sk->__sk_common), ep->local_port))
		return TIMEWAIT_UNKNOWN;
	return found;
}

/*
 * Whether the transition is one from FIN_WAIT2 or CLOSING to CLOSE: the callers of tcp_time_wait()
 * close sockets in these two states only.
 */
static __always_inline bool may_leave_timewait(int old_state, int new_state)
{
	return new_state == TCP_CLOSE && (old_state == TCP_FIN_WAIT2 || old_state == TCP_CLOSING);
}

/* The timewait socket that this transition left, NOT_TIMEWAIT or TIMEWAIT_UNKNOWN. */
static __always_inline __u64 timewait_of(const struct sock *sk, const struct endpoints *ep,
					 int old_state, int new_state)
{
	if (!may_leave_timewait(old_state, new_state))
		return NOT_TIMEWAIT;
	return find_timewait(sk, ep);
}

#endif
