/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What is found out about one transition. */
#ifndef TCPSHIFT_FACTS_H
#define TCPSHIFT_FACTS_H

#include <bpf/bpf_helpers.h>
#include "counters.h"
#include "endpoints.h"
#include "memory.h"

struct facts {
	__u64 now_ns;
	__u64 in_state_ns; /* 0: not known */
	__u64 opened_ns; /* when it left CLOSE; 0: not known */
	__u64 established_ns; /* spent in ESTABLISHED */
	__u64 cookie;
	__u64 timewait; /* the timewait socket's address, NOT_TIMEWAIT or WALK_BOUND */
	struct holder owner; /* to be told */
	struct holder stored; /* the socket memory's owner */
	struct holder found; /* likewise */
	struct endpoints ep;
	__u64 socket; /* the struct socket, which an orphan has none of */
	__u64 file; /* the struct file of the socket; 0: it has none */
	__s32 error; /* sk_err */
	bool locked; /* by a task: sk_lock.owned */
	bool is_subflow; /* of MPTCP */
	__u32 netns;
	__u8 old_state;
	__u8 new_state;
	__u8 role; /* enum socket_role */
};

/*
 * Room for the transition that each program is at work on: in a map, where
 * functions find it that the verifier walks once and for all. A task's, and that of
 * a softirq which interrupts it, are apart, for programs that interrupt themselves.
 */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2 * TWINS);
	__type(key, __u32);
	__type(value, struct facts);
} room SEC(".maps");

static __always_inline __u32 place_for(enum twin twin, const struct sock *sk)
{
	return 2 * twin + !!sk->sk_lock.owned;
}

static __always_inline struct facts *facts_at(__u32 place)
{
	return bpf_map_lookup_elem(&room, &place);
}

/* What the socket's memory says of its owner, which is nobody's word yet. */
static __always_inline void recall_holders(const struct socket_memory *m, struct facts *facts)
{
	__builtin_memset(&facts->owner, 0, sizeof(facts->owner));
	facts->stored.pid = facts->found.pid = 0;
	if (!m)
		return;
	if (m->owner.pid)
		facts->stored = m->owner;
	if (m->is_found)
		facts->found = m->found;
}

#endif
