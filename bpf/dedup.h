/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A chain of equal programs on one tracepoint, so that no event is missed.
 *
 * The kernel does not run a tracing program on a CPU on which that program is already
 * running (bpf_prog->active, kernel/trace/bpf_trace.c since 6.1). When a softirq
 * interrupts the program, the program misses the softirq's transitions; the kernel
 * counts them in recursion_misses. So chain_length equal programs are attached, in the
 * order of enum program_rank. When one program is interrupted, the next one in the chain
 * is free for the events of the softirq.
 *
 * Two programs are enough where only a softirq interrupts a program. Since 7.0 another
 * task may preempt a program as well, and a softirq may interrupt that task's program: an
 * event may find two programs at work, so there are three.
 *
 * Each program that has a successor marks the events that it has handled itself. A backup
 * skips the events that are marked, and handles the others. A backup that has a successor
 * leaves the mark for it; the last program of the chain removes the mark.
 */
#ifndef TCPSHIFT_DEDUP_H
#define TCPSHIFT_DEDUP_H

#include "kernel.h"

#include <bpf/bpf_helpers.h>
#include "config.h"
#include "event.h"
#include "read.h"
#include "sock_state.h"
#include "sock_state_lookup.h"

/* A transition, or a reset (state pair of 0, 0), that an earlier program has handled. */
struct handled_event {
	__u64 sk; /* the socket's address; 0: the slot is free */
	__s64 cookie; /* the socket's, because another socket may get its address */
	__u64 state_pair;
};

/* How many marks a set has room for. */
#define HANDLED_EVENT_SLOTS 8

/* The marks of one CPU for one of the two keys. */
struct handled_event_set {
	struct handled_event slots[HANDLED_EVENT_SLOTS];
};

/*
 * The events that this CPU is about to show to the backups. The key is 1 if a task owns the
 * socket's lock, else 0: a softirq, which may interrupt a task that owns a lock, never handles a
 * transition of a socket whose lock is owned. So a set has one event at a time, unless a task
 * preempts another task between two programs (7.0 and later).
 *
 * The programs insert; each backup reads; the last program of the chain deletes. The slot is a
 * hash of the socket's address, so a mark that the last program missed is overwritten
 * at the socket's next transition. Full (two sockets in one slot): overwritten; the mark
 * of the first socket is in its sock_state as well.
 */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, struct handled_event_set);
} handled_events SEC(".maps");

/* Whether a backup follows this program, so that handled events must be marked. */
static __always_inline bool has_successor(enum program_rank rank)
{
	return rank + 1 < chain_length;
}

/* Where this CPU keeps the mark of a socket. It may hold another socket's mark. */
static __always_inline struct handled_event *handled_event_slot(const struct sock *sk,
								__u64 address)
{
	__u32 key = sk->sk_lock.owned != 0;
	struct handled_event_set *set = bpf_map_lookup_elem(&handled_events, &key);

	return set ? &set->slots[address / 64 % HANDLED_EVENT_SLOTS] : NULL;
}

/*
 * The cookie, if it cannot change between two programs of the chain, else 0. Where the
 * programs cannot create the cookie, another part of the kernel may create it between
 * them, and then the cookies that the two programs read would differ.
 */
static __always_inline __s64 stable_cookie(const struct sock *sk)
{
	return has_socket_cookie ? sk->__sk_common.skc_cookie.counter : 0;
}

/* Both states in one number, which is never 0, because 0 means: nothing is marked. */
static __always_inline __u16 state_pair_of(int old_state, int new_state)
{
	return 0x8000 | (old_state & 0x7f) << 8 | (new_state & 0xff);
}

/* Leaves the mark on this CPU. Called last: the socket may get its cookie while it is handled. */
static __always_inline void mark_handled(const struct sock *sk, int old_state, int new_state)
{
	__u64 address = address_of(sk);
	struct handled_event *event = handled_event_slot(sk, address);

	if (!event)
		return;
	event->sk = address;
	event->cookie = stable_cookie(sk);
	event->state_pair = state_pair_of(old_state, new_state);
}

/* As take_handled_mark(), with the mark of this CPU only. */
static __always_inline bool take_handled_mark_of_this_cpu(enum program_rank rank,
							  const struct sock *sk, __u16 state_pair)
{
	__u64 address = address_of(sk);
	struct handled_event *event = handled_event_slot(sk, address);

	if (!event || event->sk != address)
		return false;
	if (!has_successor(rank))
		event->sk = 0;
	if (event->state_pair != state_pair)
		return false;
	/*
	 * A mark has no cookie where the programs cannot create one, and where a filter dropped
	 * the event before they did. Another tracer may have created it since.
	 */
	return !event->cookie || event->cookie == stable_cookie(sk);
}

/*
 * Whether an earlier program of the chain has handled this transition. The last program of the
 * chain also removes the mark that shows it. If the task was moved to another CPU between the
 * programs, or its mark was overwritten, the mark in the socket's sock_state decides. The
 * socket's lock serialises its transitions, so that mark needs no atomics. A mark that is left
 * in the sock_state is overwritten at the next transition.
 */
static __always_inline bool take_handled_mark(enum program_rank rank, const struct sock *sk,
					      int old_state, int new_state)
{
	__u16 state_pair = state_pair_of(old_state, new_state);
	struct sock_state *s;

	if (take_handled_mark_of_this_cpu(rank, sk, state_pair))
		return true;
	s = find_sock_state(sk, old_state);
	if (!s || s->handled_states != state_pair)
		return false;
	if (!has_successor(rank))
		s->handled_states = 0;
	return true;
}

#endif
