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
	if (bpf_core_field_exists(struct netns_ipv4, tcp_death_row.hashinfo))
		return BPF_CORE_READ(sk, __sk_common.skc_net.net, ipv4.tcp_death_row.hashinfo);
	return BPF_CORE_READ(sk, __sk_common.skc_prot, h.hashinfo);
}

static __always_inline bool same_addrs(const struct sock_common *a, const struct sock_common *b)
{
	struct in6_addr mine, theirs;

	if (BPF_CORE_READ(a, skc_family) == AF_INET)
		return BPF_CORE_READ(a, skc_daddr) == BPF_CORE_READ(b, skc_daddr) &&
		       BPF_CORE_READ(a, skc_rcv_saddr) == BPF_CORE_READ(b, skc_rcv_saddr);
	BPF_CORE_READ_INTO(&mine, a, skc_v6_daddr);
	BPF_CORE_READ_INTO(&theirs, b, skc_v6_daddr);
	if (__builtin_memcmp(&mine, &theirs, sizeof(mine)))
		return false;
	BPF_CORE_READ_INTO(&mine, a, skc_v6_rcv_saddr);
	BPF_CORE_READ_INTO(&theirs, b, skc_v6_rcv_saddr);
	return !__builtin_memcmp(&mine, &theirs, sizeof(mine));
}

static __always_inline bool is_timewait_of(const struct sock_common *node,
					   const struct sock_common *skc, __u16 local_port)
{
	return BPF_CORE_READ(node, skc_hash) == BPF_CORE_READ(skc, skc_hash) &&
	       BPF_CORE_READ(node, skc_state) == TCP_TIME_WAIT &&
	       BPF_CORE_READ(node, skc_num) == local_port &&
	       BPF_CORE_READ(node, skc_dport) == BPF_CORE_READ(skc, skc_dport) &&
	       BPF_CORE_READ(node, skc_family) == BPF_CORE_READ(skc, skc_family) &&
	       BPF_CORE_READ(node, skc_net.net) == BPF_CORE_READ(skc, skc_net.net) &&
	       same_addrs(node, skc);
}

/*
 * A bucket ends in a number that is odd and says which bucket it is: who was led
 * astray, by a node that was moved meanwhile, comes to the end of another one.
 */
static __always_inline __u64 end_of(__u32 slot)
{
	return (__u64)slot << 1 | 1;
}

/* Global, so that the verifier walks the loop only once; so it takes numbers, not pointers. */
__noinline __u64 walk_bucket(__u64 first, __u64 skc, __u16 local_port, __u32 slot)
{
	struct hlist_nulls_node *at = (struct hlist_nulls_node *)first;

	for (int i = 0; i < NODES_WALKED; i++) {
		const struct sock_common *node;

		if (!at || (__u64)at & 1)
			return (__u64)at == end_of(slot) ? NOT_TIMEWAIT : WALK_BOUND;
		node = (void *)at - bpf_core_field_offset(struct sock_common, skc_nulls_node);
		if (is_timewait_of(node, (const struct sock_common *)skc, local_port))
			return (__u64)node;
		at = BPF_CORE_READ(at, next);
	}
	return WALK_BOUND;
}

static __always_inline __u64 find_timewait(const struct sock *sk, const struct endpoints *ep)
{
	struct inet_hashinfo *info = hashinfo_of(sk);
	__u32 slot = sk->__sk_common.skc_hash & BPF_CORE_READ(info, ehash_mask);
	struct inet_ehash_bucket *buckets = BPF_CORE_READ(info, ehash);

	return walk_bucket((__u64)BPF_CORE_READ(&buckets[slot], chain.first),
			   address_of(&sk->__sk_common), ep->local_port, slot);
}

/* Only these two states can end in a timewait socket. */
static __always_inline __u64 timewait_of(const struct sock *sk, const struct endpoints *ep,
					 int old_state, int new_state)
{
	if (new_state != TCP_CLOSE || (old_state != TCP_FIN_WAIT2 && old_state != TCP_CLOSING))
		return NOT_TIMEWAIT;
	return find_timewait(sk, ep);
}

static __always_inline bool is_timewait(__u64 timewait)
{
	return timewait != NOT_TIMEWAIT && timewait != WALK_BOUND;
}

#endif
