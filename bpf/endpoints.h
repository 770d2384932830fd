/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Between which addresses and ports is this socket. */
#ifndef TCPSHIFT_ENDPOINTS_H
#define TCPSHIFT_ENDPOINTS_H

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include "event.h"

struct endpoints {
	__u32 local_addr[4]; /* network order; IPv4 in the first word */
	__u32 peer_addr[4];
	__u16 local_port; /* host order */
	__u16 peer_port;
	__u8 family; /* 4 or 6 */
	bool mapped;
};

static __always_inline bool is_v4_mapped(const __u32 addr[4])
{
	return addr[0] == 0 && addr[1] == 0 && addr[2] == bpf_htonl(0xffff);
}

static __always_inline void keep_mapped_part(__u32 addr[4])
{
	addr[0] = addr[3];
	addr[1] = addr[2] = addr[3] = 0;
}

static __always_inline void read_v6_addrs(const struct sock_common *skc, struct endpoints *ep)
{
	for (int i = 0; i < 4; i++) {
		ep->local_addr[i] = skc->skc_v6_rcv_saddr.in6_u.u6_addr32[i];
		ep->peer_addr[i] = skc->skc_v6_daddr.in6_u.u6_addr32[i];
	}
	ep->family = 6;
	ep->mapped = is_v4_mapped(ep->local_addr) || is_v4_mapped(ep->peer_addr);
	if (!ep->mapped)
		return;
	ep->family = 4;
	keep_mapped_part(ep->local_addr);
	keep_mapped_part(ep->peer_addr);
}

/*
 * skc_num is the port as bound, and already 0 at a transition to CLOSE;
 * inet_sport is still there then, but lags behind nowhere else either.
 */
static __always_inline __u16 read_local_port(const struct sock *sk)
{
	struct tcp_sock *tp = bpf_skc_to_tcp_sock((void *)sk);

	if (!tp)
		return sk->__sk_common.skc_num;
	return bpf_ntohs(tp->inet_conn.icsk_inet.inet_sport);
}

static __always_inline void read_endpoints(const struct sock *sk, struct endpoints *ep)
{
	const struct sock_common *skc = &sk->__sk_common;

	if (skc->skc_family == AF_INET6) {
		read_v6_addrs(skc, ep);
	} else {
		ep->local_addr[0] = skc->skc_rcv_saddr;
		ep->peer_addr[0] = skc->skc_daddr;
		for (int i = 1; i < 4; i++)
			ep->local_addr[i] = ep->peer_addr[i] = 0;
		ep->family = 4;
		ep->mapped = false;
	}
	ep->local_port = read_local_port(sk);
	ep->peer_port = bpf_ntohs(skc->skc_dport);
}

#endif
