/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The port of a socket that listens without bind(). inet_csk_listen_start() sets LISTEN
 * before it asks for a port, so CLOSE -> LISTEN has none. No hook follows in listen(), so
 * user space asks for the port when it has read that event. It may ask before listen() has
 * the port: then listen_port returns LISTEN_PORT_PENDING.
 */
#ifndef TCPSHIFT_LISTEN_PORT_H
#define TCPSHIFT_LISTEN_PORT_H

#include "kernel.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include "event.h"
#include "transition.h"

/*
 * The address of each such socket by its cookie. The programs of the tracepoint insert, and
 * delete when the listener closes; listen_port reads. Full: the one that was used least
 * recently is deleted, and its event has no port.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, __u64);
	__type(value, __u64);
} unbound_listeners SEC(".maps");

/*
 * If the transition is CLOSE -> LISTEN without a port: keeps the socket's address by its cookie, so
 * that listen_port can find the port.
 */
static __always_inline void add_unbound_listener(const struct transition *t)
{
	const struct event_ctx *ec = t->ec;
	__u64 cookie = ec->cookie, address;

	if (ec->old_state != TCP_CLOSE || ec->new_state != TCP_LISTEN || ec->ep.local_port ||
	    !cookie)
		return;
	address = address_of(t->sk);
	bpf_map_update_elem(&unbound_listeners, &cookie, &address, BPF_ANY);
}

/*
 * If the listener closes, or listen() has failed. Sets ec->cookie, which is the key. Not at a
 * child's first transition: up to 6.12 the child still has its listener's cookie.
 */
static __always_inline void delete_unbound_listener(struct transition *t)
{
	struct event_ctx *ec = t->ec;

	if (ec->old_state != TCP_LISTEN || is_child_creation(t))
		return;
	ec->cookie = cookie_of(t);
	bpf_map_delete_elem(&unbound_listeners, &ec->cookie);
}

/*
 * The port of the socket with this cookie, in host order. LISTEN_PORT_PENDING: listen() has
 * not chosen it yet. 0: not known.
 */
static __always_inline int port_of_listener(__u64 cookie)
{
	__u64 *address = bpf_map_lookup_elem(&unbound_listeners, &cookie);
	struct sock *sk;
	int port;

	if (!address)
		return 0;
	sk = (struct sock *)*address;
	port = BPF_CORE_READ(sk, __sk_common.skc_num);
	if ((__u64)BPF_CORE_READ(sk, __sk_common.skc_cookie.counter) != cookie)
		return 0;
	return port ? port : LISTEN_PORT_PENDING;
}

#endif
