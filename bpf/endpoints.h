/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The addresses and ports of a socket. */
#ifndef TCPSHIFT_ENDPOINTS_H
#define TCPSHIFT_ENDPOINTS_H

#include "kernel.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include "connect.h"

/* The addresses and ports of a socket at one event. */
struct endpoints {
	__u32 local_addr[4]; /* network order; IPv4 in the first word */
	__u32 peer_addr[4];
	__u16 local_port; /* host order */
	__u16 peer_port;
	__u8 family; /* 4 or 6 */
	bool mapped; /* IPv4 over an IPv6 socket */
	bool listens; /* an unspecified local address then is every address, else none yet */
};

/* Whether the IPv6 address is ::ffff:a.b.c.d. */
static __always_inline bool is_v4_mapped(const __u32 addr[4])
{
	return addr[0] == 0 && addr[1] == 0 && addr[2] == bpf_htonl(0xffff);
}

/* Moves the IPv4 part of a mapped address to the first word, and clears the others. */
static __always_inline void mapped_to_v4(__u32 addr[4])
{
	addr[0] = addr[3];
	addr[1] = addr[2] = addr[3] = 0;
}

/*
 * Whether the socket is a listener before or after the transition. A child that a listener creates
 * is none. A listener's peer address, if it has one, is left from an earlier connection.
 */
static __always_inline bool is_listener(int old_state, int new_state)
{
	return new_state == TCP_LISTEN || (old_state == TCP_LISTEN && new_state != TCP_SYN_RECV);
}

/*
 * Reads the addresses of an IPv6 socket, and sets family and mapped. If an address is a mapped one,
 * both become IPv4. Without a peer, its address is zero.
 */
static __always_inline void read_v6_addrs(const struct sock_common *skc, bool has_peer,
					  struct endpoints *ep)
{
	for (int i = 0; i < 4; i++) {
		ep->local_addr[i] = skc->skc_v6_rcv_saddr.in6_u.u6_addr32[i];
		ep->peer_addr[i] = has_peer ? skc->skc_v6_daddr.in6_u.u6_addr32[i] : 0;
	}
	ep->family = 6;
	ep->mapped = is_v4_mapped(ep->local_addr) || is_v4_mapped(ep->peer_addr);
	if (!ep->mapped)
		return;
	ep->family = 4;
	mapped_to_v4(ep->local_addr);
	mapped_to_v4(ep->peer_addr);
}

/*
 * The local port; 0: none yet. skc_num is the bound port. At a transition to CLOSE it is already 0
 * unless bind() chose it, but inet_sport still has the port. inet_sport also still has the old
 * port when the socket is used again, until connect() has found a new one.
 */
static __always_inline __u16 read_local_port(const struct sock *sk, int old_state, int new_state)
{
	struct tcp_sock *tp = tcp_sock_of(sk);

	if (!tp || old_state == TCP_CLOSE ||
	    (is_connect_end(old_state, new_state) && port_search_of(sk) != PORT_FOUND))
		return sk->__sk_common.skc_num;
	return bpf_ntohs(tp->inet_conn.icsk_inet.inet_sport);
}

/* Fills all fields of ep. A listener has no peer address. */
static __always_inline void read_endpoints(const struct sock *sk, int old_state, int new_state,
					   struct endpoints *ep)
{
	const struct sock_common *skc = &sk->__sk_common;
	bool has_peer = !is_listener(old_state, new_state);

	if (skc->skc_family == AF_INET6) {
		read_v6_addrs(skc, has_peer, ep);
	} else {
		ep->local_addr[0] = skc->skc_rcv_saddr;
		ep->peer_addr[0] = has_peer ? skc->skc_daddr : 0;
		for (int i = 1; i < 4; i++)
			ep->local_addr[i] = ep->peer_addr[i] = 0;
		ep->family = 4;
		ep->mapped = false;
	}
	ep->listens = !has_peer;
	ep->local_port = read_local_port(sk, old_state, new_state);
	ep->peer_port = bpf_ntohs(skc->skc_dport);
}

#endif
