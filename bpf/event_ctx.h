/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What a program finds out about the event that it handles. */
#ifndef TCPSHIFT_EVENT_CTX_H
#define TCPSHIFT_EVENT_CTX_H

#include "kernel.h"

#include <bpf/bpf_helpers.h>
#include "endpoints.h"
#include "event.h"
#include "process_ref.h"
#include "sock_state.h"

/* What the steps of a program pass on about one event. */
struct event_ctx {
	__u64 now_ns;
	__u64 in_state_ns; /* 0: not known */
	__u64 opened_ns; /* when it left CLOSE, or a listener created it; 0: not known */
	__u64 in_established_ns;
	__u64 cookie;
	__u64 timewait; /* the timewait socket's address, or a result of timewait.h */
	struct owner owner; /* to be emitted */
	struct owner stored_owner; /* sock_state.owner; not verified */
	struct process_ref initial_owner; /* sock_state.initial_owner; not verified */
	struct endpoints ep;
	__u64 socket; /* address of the struct socket; 0: an orphan, or a child not accepted yet */
	__u64 file; /* address of the socket's struct file; 0: none */
	__s32 error; /* sk_err */
	__s32 soft_error; /* sk_err_soft */
	bool is_unwanted; /* the transition is never emitted */
	bool locked; /* a task owns the socket's lock: sk_lock.owned */
	bool is_subflow; /* of MPTCP */
	bool is_repaired; /* TCP_REPAIR made the connection */
	bool fin_not_counted; /* bytes_received does not count the peer's FIN */
	__u32 netns;
	__u32 uid; /* sk_uid */
	__u8 old_state;
	__u8 new_state;
	__u8 role; /* enum socket_role */
	struct reset_note reset; /* valid at a transition to CLOSE */
};

/*
 * Scratch: a struct event_ctx per program and CPU, too large for the stack. In a map,
 * global functions can reach it by its slot, and the verifier checks a global function
 * once instead of at each call. Tasks and softirqs have separate slots, because up to
 * 6.0 a program in a softirq may interrupt itself in a task.
 *
 * An array, so all entries exist from the start and it cannot be full; user space sets
 * the size for chain_length programs and updates. Only the programs read and write it, nobody
 * deletes.
 */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries,
	       2 * PROGRAMS + 2); /* the last two are for update.h and count_sockets.h */
	__type(key, __u32);
	__type(value, struct event_ctx);
} event_ctx_scratch SEC(".maps");

/* The scratch slot of a program for this socket: the odd one if a task owns the socket's lock. */
static __always_inline __u32 event_ctx_slot(enum program_rank rank, const struct sock *sk)
{
	return 2 * rank + !!sk->sk_lock.owned;
}

/* This CPU's event_ctx in a slot. NULL only if the slot is out of range. */
static __always_inline struct event_ctx *event_ctx_at(__u32 slot)
{
	return bpf_map_lookup_elem(&event_ctx_scratch, &slot);
}

/* Copies the initial owner of the socket with this address to ec; pid 0 if there is none. */
static __always_inline void load_initial_owner(const struct sock_state *s, __u64 sk,
					       struct event_ctx *ec)
{
	if (!copy_initial_owner(s, sk, &ec->initial_owner))
		ec->initial_owner.pid = 0;
}

/*
 * Clears ec->owner, and copies the owners in s, which may be NULL, to ec. owner.h verifies
 * them before use.
 */
static __always_inline void load_stored_owners(const struct sock_state *s, struct event_ctx *ec)
{
	__builtin_memset(&ec->owner, 0, sizeof(ec->owner));
	ec->stored_owner.ref.pid = ec->initial_owner.pid = 0;
	if (!s)
		return;
	if (s->owner.ref.pid)
		ec->stored_owner = s->owner;
	load_initial_owner(s, s->sk, ec);
}

#endif
