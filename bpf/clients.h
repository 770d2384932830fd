/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Room for the memory of client sockets, which nobody inherits: storage on the socket
 * costs the kernel two allocations for each connection, and their release. Not on
 * kernels whose JIT may lack the exchanges (arm64 before 5.18).
 */
#ifndef TCPSHIFT_CLIENTS_H
#define TCPSHIFT_CLIENTS_H

#include <bpf/bpf_helpers.h>
#include "config.h"
#include "memory.h"
#include "read.h"

#define CLIENT_BITS 13
#define CLIENT_SLOTS (1 << CLIENT_BITS)
#define CLIENT_LOCKED -1 /* a cookie that no socket has: the slot changes hands */

struct client {
	__s64 cookie; /* of the socket that has this slot; 0: nobody has had it yet */
	__u64 sk; /* its address */
	struct socket_memory memory;
} __attribute__((aligned(64))); /* a line of the cache */

/*
 * A socket's slot follows from its address. The programs insert when it connects;
 * nobody deletes: who comes to the slot when its socket is gone takes it over. Where
 * its socket is still there, who comes has storage on the socket instead.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, CLIENT_SLOTS);
	__uint(map_flags, BPF_F_MMAPABLE); /* which lets it begin at a page */
	__type(key, __u32);
	__type(value, struct client);
} clients SEC(".maps");

static __always_inline struct client *client_at(__u64 address)
{
	__u32 slot = address * 0x9e3779b97f4a7c15 >> (64 - CLIENT_BITS); /* Fibonacci hashing */

	return bpf_map_lookup_elem(&clients, &slot);
}

static __always_inline struct client *find_client(const struct sock *sk)
{
	__s64 cookie = sk->__sk_common.skc_cookie.counter;
	struct client *client;

	if (!has_client_table || !cookie)
		return NULL;
	client = client_at(address_of(sk));
	return client && client->cookie == cookie ? client : NULL;
}

/* Another one has its address now, or it has been released. */
static __always_inline bool is_gone(struct sock *sk, __s64 cookie)
{
	return READ(sk, __sk_common.skc_cookie.counter) != cookie ||
	       !READ(sk, __sk_common.skc_refcnt.refs.counter);
}

/*
 * Cookies are given once, so of those who find the same one in a slot only one can
 * replace it. Cookie and address may have been read from before and after somebody else
 * did, so who has it looks again. NULL: the slot is not to be had.
 */
static __always_inline struct socket_memory *claim_client(const struct sock *sk)
{
	__u64 address = address_of(sk);
	struct client *client;
	__s64 cookie, before;

	if (!has_client_table)
		return NULL;
	cookie = bpf_get_socket_cookie((void *)sk);
	client = client_at(address);
	if (!client)
		return NULL;
	before = client->cookie;
	if (before == CLIENT_LOCKED || (before && !is_gone((struct sock *)client->sk, before)))
		return NULL;
	if (__sync_val_compare_and_swap(&client->cookie, before, CLIENT_LOCKED) != before)
		return NULL;
	if (before && !is_gone((struct sock *)client->sk, before)) {
		__sync_lock_test_and_set(&client->cookie, before);
		return NULL;
	}
	client->sk = address;
	__builtin_memset(&client->memory, 0, offsetof(struct socket_memory, found));
	__sync_lock_test_and_set(&client->cookie, cookie);
	return &client->memory;
}

static __always_inline struct socket_memory *storage_of(const struct sock *sk, __u64 flags)
{
	return has_socket_storage ? bpf_sk_storage_get(&memory, (void *)sk, NULL, flags) : NULL;
}

/* A client that listens next has children, who start with a copy of what is stored on it. */
static __always_inline struct socket_memory *move_to_storage(const struct sock *sk,
							     struct client *client)
{
	struct socket_memory *m = storage_of(sk, BPF_SK_STORAGE_GET_F_CREATE);

	if (m)
		*m = client->memory;
	__sync_lock_test_and_set(&client->cookie, 0);
	return m;
}

static __always_inline struct socket_memory *find_stored(const struct sock *sk)
{
	return has_socket_storage && sk->sk_bpf_storage ? storage_of(sk, 0) : NULL;
}

/* The memory that there is. Up to 6.12 a child comes with its listener's cookie. */
static __always_inline struct socket_memory *find_memory(const struct sock *sk, int old_state)
{
	struct socket_memory *m = find_stored(sk);
	struct client *client;

	if (m || old_state == TCP_LISTEN)
		return m;
	client = find_client(sk);
	return client ? &client->memory : NULL;
}

/* The same, or else a new one; NULL where there is none to be had. */
static __always_inline struct socket_memory *memory_of(const struct sock *sk, int old_state,
						       int new_state)
{
	struct socket_memory *m = find_stored(sk);
	struct client *client = NULL;

	if (m)
		return m;
	if (old_state != TCP_LISTEN)
		client = find_client(sk);
	if (client)
		return new_state == TCP_LISTEN ? move_to_storage(sk, client) : &client->memory;
	if (old_state == TCP_CLOSE && new_state == TCP_SYN_SENT)
		m = claim_client(sk);
	return m ? m : storage_of(sk, BPF_SK_STORAGE_GET_F_CREATE);
}

#endif
