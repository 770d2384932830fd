/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What the tracer keeps about a socket from one of its transitions to the next.
 *
 * struct sock_state is the tracer's own per-socket record. It is not the socket's TCP
 * state; that is old_state and new_state everywhere, values of enum tcp_state.
 */
#ifndef TCPSHIFT_SOCK_STATE_H
#define TCPSHIFT_SOCK_STATE_H

#include "kernel.h"

#include <bpf/bpf_helpers.h>
#include "config.h"
#include "event.h"
#include "hash.h"
#include "process_ref.h"

/* What reset.h has noted for the transition to CLOSE that follows. */
struct reset_note {
	bool tcp_reset; /* tcp_reset() has begun */
	bool sent; /* this side has sent a reset */
	__u8 reason; /* reset_event.reason of the reset that was sent */
};

/*
 * What every transition reads comes first. In a struct client_slot all fields up to and
 * including owner are in two cache lines.
 */
struct sock_state {
	__u64 sk; /* the socket's address, or still its listener's: inherited; 0: not stored */
	__u64 since_ns; /* when the socket entered its TCP state; 0: not known */
	__u64 opened_ns; /* when it left CLOSE, or a listener created it; 0: not known */
	__u64 in_established_ns;
	__u64 deferred_ns; /* when the deferred transition happened; 0: there is none */
	__u32 netns; /* inode number; 0: not read yet */
	__u16 handled_states; /* the transition that was handled; 0: no mark */
	__u8 role; /* enum socket_role */
	bool is_repaired : 1; /* TCP_REPAIR made the connection: without a SYN */
	bool fin_not_counted : 1; /* bytes_received does not count the peer's FIN */
	bool reader_searched : 1; /* a search for the reader's descriptor was made */
	bool since_outdated : 1; /* since_ns is that of an earlier TCP state */
	struct owner owner; /* proven at a transition; a child starts with its listener's */
	union {
		__u32 connect_txhash; /* sk_txhash before connect() */
		__u32 deferred_uid; /* sk_uid at the deferred transition of a child */
	};
	__u32 connect_snd_una; /* snd_una before connect() */
	__u32 initial_owner_sum; /* see sum_of(); 0: there is no initial_owner */
	struct reset_note reset;
	/* From accept(), a read or the scan. Others only clear its sum. */
	struct process_ref initial_owner;
};

/* The kernel adds 72 bytes, so that one element exactly fills an object of 256 bytes. */
_Static_assert(sizeof(struct sock_state) <= 184, "sock_state needs twice the memory");

/*
 * The programs insert at a socket's first transition; the scan and the accept hook may
 * insert before. All programs read. The kernel deletes with the socket. With BPF_F_CLONE the
 * kernel copies a listener's sock_state to each child that it creates.
 * Full (optmem_max, or no memory): the event is emitted, with fewer fields known, and counted
 * (state_unavailable).
 */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_CLONE);
	__type(key, int);
	__type(value, struct sock_state);
} sock_states SEC(".maps");

/* The sock_state in the socket's storage, or NULL; flags are those of bpf_sk_storage_get(). */
static __always_inline struct sock_state *sk_storage_of(const struct sock *sk, __u64 flags)
{
	return has_socket_storage ? bpf_sk_storage_get(&sock_states, (void *)sk, NULL, flags)
				  : NULL;
}

/* As sk_storage_of(), without the helper's call for a socket that has no storage at all. */
static __always_inline struct sock_state *find_sk_storage(const struct sock *sk)
{
	return has_socket_storage && sk->sk_bpf_storage ? sk_storage_of(sk, 0) : NULL;
}

/*
 * A checksum over an initial owner and the address of its socket, never 0.
 *
 * One CPU writes an initial owner while others read it, and not all kernels let programs
 * order their stores: barriers come with atomic exchanges, which arm64 lacks before 5.18.
 * So no order counts: a copy is used only if its sum is right. That rejects a copy of two
 * halves, and the owner of a listener in the state that its child has inherited.
 */
static __always_inline __u32 sum_of(const struct process_ref *ref, __u64 sk)
{
	__u64 sum = sk;

	sum = (sum ^ ref->leader) * HASH_PRIME;
	sum = (sum ^ ref->files) * HASH_PRIME;
	sum = (sum ^ ref->started_ns) * HASH_PRIME;
	sum = (sum ^ ref->file) * HASH_PRIME;
	sum = (sum ^ ref->cookie) * HASH_PRIME;
	sum = (sum ^ ref->source_and_flags ^ (__u64)(__u32)ref->fd << 8 ^ (__u64)ref->pid << 32) *
	      HASH_PRIME;
	return sum >> 32 | 1;
}

/* Copies the initial owner of the socket with this address; false: there is none. */
static __always_inline bool copy_initial_owner(const struct sock_state *s, __u64 sk,
					       struct process_ref *ref)
{
	__u32 sum = s->initial_owner_sum;

	if (!sum)
		return false;
	*ref = s->initial_owner;
	barrier(); /* the sum is over the copy, not over what is read again */
	return sum_of(ref, sk) == sum;
}

/*
 * Stores the initial owner of the socket with this address. A new sock_state becomes that socket's.
 * Any program may call this. An owner that a transition proves goes to s->owner instead.
 */
static __always_inline void set_initial_owner(struct sock_state *s, __u64 sk,
					      const struct process_ref *ref)
{
	s->initial_owner = *ref;
	s->initial_owner_sum = sum_of(ref, sk);
	if (!s->sk)
		s->sk = sk;
}

/* The role that this transition alone shows; ROLE_UNKNOWN if it shows none. */
static __always_inline enum socket_role role_shown_by(int old_state, int new_state)
{
	if (old_state == TCP_LISTEN && new_state == TCP_SYN_RECV)
		return ROLE_SERVER;
	if (old_state == TCP_LISTEN || new_state == TCP_LISTEN)
		return ROLE_LISTENER;
	if (old_state == TCP_SYN_SENT || new_state == TCP_SYN_SENT)
		return ROLE_CLIENT;
	return ROLE_UNKNOWN;
}

/*
 * The socket's role after this transition; s may be NULL. A role stays until a
 * transition shows another one, because a socket may be used again. A socket that TCP_REPAIR
 * connects has none: the connection was made elsewhere, by either side.
 */
static __always_inline enum socket_role update_role(struct sock_state *s, int old_state,
						    int new_state, bool is_repaired)
{
	enum socket_role shown = role_shown_by(old_state, new_state);

	if (is_repaired)
		shown = ROLE_UNKNOWN;
	if (!s)
		return shown;
	if (shown != ROLE_UNKNOWN || is_repaired)
		s->role = shown;
	return s->role;
}

/*
 * Turns the copy of a listener's sock_state into its child's. The listener's owner stays
 * as a first answer, with the source PID_LISTENER; the listener's times do not. An
 * initial owner stays if it is the child's: a process may have accepted the child before
 * a program sees a transition of it.
 */
static __always_inline void init_child_state(struct sock_state *s, __u64 sk)
{
	struct process_ref *ref = &s->owner.ref;
	struct process_ref initial;

	if (!copy_initial_owner(s, sk, &initial)) {
		if (!ref->pid && copy_initial_owner(s, s->sk, &initial))
			*ref = initial;
		s->initial_owner_sum = 0;
	}
	ref->source_and_flags = PID_LISTENER | (ref->source_and_flags & REF_SELF);
	s->sk = sk;
	s->role = ROLE_SERVER;
	s->since_ns = s->opened_ns = s->in_established_ns = s->deferred_ns = 0;
	s->reset = (struct reset_note){};
	s->fin_not_counted = s->is_repaired = s->reader_searched = s->since_outdated = false;
}

/*
 * Makes s the socket's own. Until a child's first traced transition, s is usually a copy of
 * its listener's.
 */
static __always_inline void make_state_own(struct sock_state *s, __u64 sk)
{
	if (!s->sk)
		s->sk = sk;
	else if (s->sk != sk)
		init_child_state(s, sk);
}

/*
 * Whether opened_ns and in_established_ns begin anew: at each transition from CLOSE, one to LISTEN
 * too, and when a listener creates the socket.
 */
static __always_inline bool restarts_times(int old_state, int new_state)
{
	return old_state == TCP_CLOSE || (old_state == TCP_LISTEN && new_state == TCP_SYN_RECV);
}

/*
 * Returns the time in old_state, 0 if not known. Records when new_state began, when the connection
 * began, and how long it was in ESTABLISHED. now_ns is 0 if no time was taken: see needs_no_time().
 */
static __always_inline __u64 update_times(struct sock_state *s, int old_state, int new_state,
					  __u64 now_ns)
{
	__u64 in_state_ns;

	if (!want_state_times && !now_ns) {
		s->since_outdated = true;
		return 0;
	}
	in_state_ns = s->since_ns && !s->since_outdated ? now_ns - s->since_ns : 0;
	if (restarts_times(old_state, new_state)) {
		s->opened_ns = now_ns;
		s->in_established_ns = 0;
	}
	if (old_state == TCP_ESTABLISHED)
		s->in_established_ns += in_state_ns;
	if (old_state != new_state) {
		s->since_ns = now_ns;
		s->since_outdated = false;
	}
	return in_state_ns;
}

#endif
