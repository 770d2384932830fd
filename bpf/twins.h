/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Two programs, so that no event is missed.
 *
 * A tracing program does not run again on a CPU on which it is running
 * (bpf_prog->active, kernel/trace/bpf_trace.c since 6.1): when a softirq with
 * transitions of its own interrupts it, it misses them. So two equal programs
 * are attached, one after the other. The first leaves a mark at what it has
 * handled, the second leaves alone what it finds marked. Whichever of them is
 * interrupted, the other one is free for what interrupts it.
 */
#ifndef TCPSHIFT_TWINS_H
#define TCPSHIFT_TWINS_H

#include <bpf/bpf_helpers.h>
#include "clients.h"
#include "counters.h"
#include "memory.h"

/* A transition that the first program has handled. */
struct mark {
	__u64 sk; /* its address; 0: none */
	__s64 cookie; /* sockets come and go at the same address */
	__u64 states;
};

#define MARKS 8

/*
 * What the first program has handled on this CPU and the second has not seen yet, apart
 * for tasks, which hold the socket's lock, and for the softirq that may interrupt them. It
 * is one mark; more only where a task preempts another between the two programs
 * (7.1). The programs insert and delete. A mark's place follows from the socket's address, so
 * that one which the second has missed is gone with the socket's next; where two
 * meet in one place, the first one's socket has its mark in its memory, too.
 */
struct marks {
	struct mark at[MARKS];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, struct marks);
} cpu_marks SEC(".maps");

static __always_inline struct mark *mark_at(const struct sock *sk, __u64 address)
{
	__u32 key = sk->sk_lock.owned != 0;
	struct marks *marks = bpf_map_lookup_elem(&cpu_marks, &key);

	return marks ? &marks->at[address / 64 % MARKS] : NULL;
}

/* Without socket cookies one that is given meanwhile must not matter. */
static __always_inline __s64 cookie_now(const struct sock *sk)
{
	return has_socket_cookie ? sk->__sk_common.skc_cookie.counter : 0;
}

/* Never 0, which means: no mark. */
static __always_inline __u16 states_of(int old_state, int new_state)
{
	return 0x8000 | (old_state & 0x7f) << 8 | (new_state & 0xff);
}

/* The first program's last act: by now the socket has its cookie. */
static __always_inline void leave_mark(const struct sock *sk, int old_state, int new_state)
{
	__u64 address = address_of(sk);
	struct mark *mark = mark_at(sk, address);

	if (!mark)
		return;
	mark->sk = address;
	mark->cookie = cookie_now(sk);
	mark->states = states_of(old_state, new_state);
}

static __always_inline bool take_cpu_mark(const struct sock *sk, __u16 states)
{
	__u64 address = address_of(sk);
	struct mark *mark = mark_at(sk, address);

	if (!mark || mark->sk != address)
		return false;
	mark->sk = 0;
	return mark->states == states && mark->cookie == cookie_now(sk);
}

/*
 * Whether the first program has handled the transition. A task that was moved to
 * another CPU between the two programs, or was preempted by too many, finds the mark
 * in the socket's memory. A socket's transitions are serialised by its lock, so that
 * one needs no atomics.
 */
static __always_inline bool take_mark(const struct sock *sk, int old_state, int new_state)
{
	__u16 states = states_of(old_state, new_state);
	struct socket_memory *m;

	if (take_cpu_mark(sk, states))
		return true;
	m = find_memory(sk, old_state);
	if (!m || m->mark != states)
		return false;
	m->mark = 0;
	return true;
}

#endif
