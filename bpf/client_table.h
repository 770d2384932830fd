/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A table with the sock_state of client sockets. A client has no children that must
 * inherit its sock_state, so it does not need socket storage, which costs the kernel two
 * allocations for each connection, and their release.
 *
 * Only with has_client_table. User space sets it where bpf_rdonly_cast() exists (6.2). Those
 * kernels also have the atomic exchanges that the table needs (5.12; on arm64 5.18).
 */
#ifndef TCPSHIFT_CLIENT_TABLE_H
#define TCPSHIFT_CLIENT_TABLE_H

#include "kernel.h"

#include <stddef.h>

#include <bpf/bpf_helpers.h>
#include "config.h"
#include "hash.h"
#include "read.h"
#include "sock_state.h"

/* The size of the table: 8192 slots. */
#define CLIENT_TABLE_BITS 13
#define CLIENT_TABLE_SLOTS (1 << CLIENT_TABLE_BITS)
#define SLOT_LOCKED -1 /* in place of a cookie while a program gives the slot to another socket */

/* The sock_state of one client, and whose it is. */
struct client_slot {
	__s64 cookie; /* of the socket that has the slot; 0: free */
	struct sock_state sock_state;
} __attribute__((aligned(64))); /* a cache line */

/*
 * The index is a hash of the socket's address. The programs insert when a client
 * connects, and read. A slot is freed when its client becomes a listener. Otherwise the next
 * socket with that hash takes the slot of a socket that is gone. Full (the slot's socket
 * still exists): the next socket gets socket storage instead.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, CLIENT_TABLE_SLOTS);
	__uint(map_flags, BPF_F_MMAPABLE); /* so that the kernel aligns it to a page */
	__type(key, __u32);
	__type(value, struct client_slot);
} client_table SEC(".maps");

/* The slot of the table for a socket's address. It may be free, or another socket's. */
static __always_inline struct client_slot *client_slot_at(__u64 sk_address)
{
	__u32 index = hash64(sk_address, CLIENT_TABLE_BITS);

	return bpf_map_lookup_elem(&client_table, &index);
}

/* The slot of this socket, or NULL. */
static __always_inline struct client_slot *find_client_slot(const struct sock *sk)
{
	__s64 cookie = sk->__sk_common.skc_cookie.counter;
	struct client_slot *slot;

	if (!has_client_table || !cookie)
		return NULL;
	slot = client_slot_at(address_of(sk));
	return slot && slot->cookie == cookie ? slot : NULL;
}

/* Whether the socket with this cookie was released. Another one may have its memory, sk, by now. */
static __always_inline bool is_socket_gone(struct sock *sk, __s64 cookie)
{
	return READ_AT(sk, __sk_common.skc_cookie.counter) != cookie ||
	       !READ_AT(sk, __sk_common.skc_refcnt.refs.counter);
}

/*
 * Takes the socket's slot, or returns NULL if another socket uses it.
 *
 * The kernel gives each cookie to one socket only, so when several programs find the
 * same cookie in a slot, the compare-and-swap of exactly one of them succeeds. The first
 * check may have read the cookie before another program changed the slot and the address
 * after, so the check is repeated once the slot is locked. initial_owner need not be
 * cleared, because initial_owner_sum = 0 says that there is none.
 */
static __always_inline struct sock_state *claim_client_slot(const struct sock *sk)
{
	__u64 address = address_of(sk);
	struct client_slot *slot;
	__s64 cookie, before;

	if (!has_client_table)
		return NULL;
	cookie = bpf_get_socket_cookie((void *)sk);
	slot = client_slot_at(address);
	if (!slot)
		return NULL;
	before = slot->cookie;
	if (before == SLOT_LOCKED ||
	    (before && !is_socket_gone((struct sock *)slot->sock_state.sk, before)))
		return NULL;
	if (__sync_val_compare_and_swap(&slot->cookie, before, SLOT_LOCKED) != before)
		return NULL;
	if (before && !is_socket_gone((struct sock *)slot->sock_state.sk, before)) {
		__sync_lock_test_and_set(&slot->cookie, before);
		return NULL;
	}
	__builtin_memset(&slot->sock_state, 0, offsetof(struct sock_state, initial_owner));
	slot->sock_state.sk = address;
	__sync_lock_test_and_set(&slot->cookie, cookie);
	return &slot->sock_state;
}

/*
 * Moves a client's sock_state into socket storage and frees the slot: the children of a listener
 * inherit from there. Returns NULL if no storage could be created: the sock_state is lost then.
 */
static __always_inline struct sock_state *move_to_sk_storage(const struct sock *sk,
							     struct client_slot *slot)
{
	struct sock_state *s = sk_storage_of(sk, BPF_SK_STORAGE_GET_F_CREATE);

	if (s)
		*s = slot->sock_state;
	__sync_lock_test_and_set(&slot->cookie, 0);
	return s;
}

#endif
