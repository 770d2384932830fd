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
#include "counters.h"
#include "memory.h"

/*
 * Where no socket storage is to be had: the socket and transition last handled
 * on this CPU, one slot for tasks (which hold the socket's lock) and one for the
 * softirq that may interrupt them. The programs write; never full, never deleted.
 */
struct cpu_mark {
	const struct sock *sk;
	__u64 mark;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, struct cpu_mark);
} cpu_marks SEC(".maps");

/* Never 0, which means: no mark. */
static __always_inline __u16 mark_for(int old_state, int new_state)
{
	return 0x8000 | (old_state & 0x7f) << 8 | (new_state & 0xff);
}

static __always_inline struct cpu_mark *cpu_mark_for(const struct sock *sk)
{
	__u32 key = sk->sk_lock.owned != 0;

	return bpf_map_lookup_elem(&cpu_marks, &key);
}

static __always_inline void leave_mark(const struct sock *sk, struct socket_memory *m, __u16 mark)
{
	struct cpu_mark *last;

	if (m) {
		m->mark = mark;
		return;
	}
	last = cpu_mark_for(sk);
	if (!last)
		return;
	last->sk = sk;
	last->mark = mark;
}

/* Also looks where a first program without memory to spare would have left it. */
static __always_inline bool take_mark(const struct sock *sk, struct socket_memory *m, __u16 mark)
{
	struct cpu_mark *last;

	if (m && m->mark == mark) {
		m->mark = 0;
		return true;
	}
	last = cpu_mark_for(sk);
	if (!last || last->sk != sk || last->mark != mark)
		return false;
	last->sk = NULL;
	return true;
}

/*
 * Whether this program is the one to handle the transition. A socket's
 * transitions are serialised by its lock, so its mark needs no atomics.
 */
static __always_inline bool claim(enum twin twin, const struct sock *sk, struct socket_memory *m,
				  int old_state, int new_state)
{
	__u16 mark = mark_for(old_state, new_state);

	if (twin == TWIN_FIRST) {
		leave_mark(sk, m, mark);
		return true;
	}
	if (take_mark(sk, m, mark))
		return false;
	if (m)
		m->mark = 0; /* of an earlier one that this program missed */
	return true;
}

#endif
