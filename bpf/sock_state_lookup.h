/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Where the sock_state of a socket is: in socket storage, or in the client table. */
#ifndef TCPSHIFT_SOCK_STATE_LOOKUP_H
#define TCPSHIFT_SOCK_STATE_LOOKUP_H

#include "kernel.h"

#include <bpf/bpf_helpers.h>
#include "client_table.h"
#include "sock_state.h"

/*
 * The socket's sock_state if there is one, else NULL. Up to 6.12 a new child still has its
 * listener's cookie, so the client table is not searched for it.
 */
static __always_inline struct sock_state *find_sock_state(const struct sock *sk, int old_state)
{
	struct sock_state *s = find_sk_storage(sk);
	struct client_slot *slot;

	if (s || old_state == TCP_LISTEN)
		return s;
	slot = find_client_slot(sk);
	return slot ? &slot->sock_state : NULL;
}

/* The socket's sock_state, created if there is none; NULL if none can be created. */
static __always_inline struct sock_state *sock_state_of(const struct sock *sk, int old_state,
							int new_state)
{
	struct sock_state *s = find_sk_storage(sk);
	struct client_slot *slot = NULL;

	if (s)
		return s;
	if (old_state != TCP_LISTEN)
		slot = find_client_slot(sk);
	if (slot)
		return new_state == TCP_LISTEN ? move_to_sk_storage(sk, slot) : &slot->sock_state;
	if (old_state == TCP_CLOSE && new_state == TCP_SYN_SENT)
		s = claim_client_slot(sk);
	return s ? s : sk_storage_of(sk, BPF_SK_STORAGE_GET_F_CREATE);
}

#endif
