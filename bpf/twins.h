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
	const struct sock *sk; /* NULL: none */
	__s64 cookie; /* sockets come and go at the same address */
	__u64 states;
};

#define MARKS 4

/*
 * What the first program has handled on this CPU and the second has not seen yet. In
 * one place for tasks, which hold the socket's lock, and one for the softirq that may
 * interrupt them, it is one mark; more than one only where a task preempts another
 * between the two programs (7.1), or where the second missed it. The programs insert
 * and delete; full: the oldest marks' sockets have theirs in their memory, too.
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

static __always_inline struct marks *marks_for(const struct sock *sk)
{
	__u32 key = sk->sk_lock.owned != 0;

	return bpf_map_lookup_elem(&cpu_marks, &key);
}

/* Never 0, which means: no mark. */
static __always_inline __u16 states_of(int old_state, int new_state)
{
	return 0x8000 | (old_state & 0x7f) << 8 | (new_state & 0xff);
}

/* The first program's last act: by now the socket has its cookie. */
static __always_inline void leave_mark(const struct sock *sk, int old_state, int new_state)
{
	struct marks *marks = marks_for(sk);
	struct mark *mark;

	if (!marks)
		return;
	mark = &marks->at[0];
	for (int i = 1; mark->sk && i < MARKS; i++)
		mark = &marks->at[i];
	if (mark->sk)
		mark = &marks->at[0];
	mark->sk = sk;
	mark->cookie = sk->__sk_common.skc_cookie.counter;
	mark->states = states_of(old_state, new_state);
}

static __always_inline bool take_cpu_mark(const struct sock *sk, __u16 states)
{
	struct marks *marks = marks_for(sk);

	if (!marks)
		return false;
	for (int i = 0; i < MARKS; i++) {
		struct mark *mark = &marks->at[i];

		if (mark->sk == sk && mark->states == states &&
		    mark->cookie == sk->__sk_common.skc_cookie.counter) {
			mark->sk = NULL;
			return true;
		}
	}
	return false;
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
