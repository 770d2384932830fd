/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Which processes descend from the tracer: the command that it runs, and the children of that.
 * Loaded only if asked for (follow_children). The programs emit nothing.
 */
#ifndef TCPSHIFT_FOLLOW_H
#define TCPSHIFT_FOLLOW_H

#include "kernel.h"

#include <bpf/bpf_helpers.h>
#include "config.h"
#include "process.h"
#include "process_ref.h"
#include "read.h"

/* A process. Unlike a pid it is not reused. */
struct process_key {
	__u64 started_ns;
	__u64 pid; /* thread group id in the initial namespace */
};

/*
 * The processes that live. process_forked inserts, process_exited deletes, the filter reads.
 * User space sizes it before load. A process for which it has no room is not followed, and
 * counts in `unfollowed`.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, struct process_key);
	__type(value, __u8);
} followed SEC(".maps");

/*
 * Those that have exited: the kernel closes their sockets after that, and orphans live on.
 * process_exited inserts, the filter reads. If it is full, the kernel evicts the least
 * recently used ones; the later transitions of their orphans are filtered.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1);
	__type(key, struct process_key);
	__type(value, __u8);
} followed_before SEC(".maps");

/* Processes not followed for lack of room. process_forked counts, user space reads. Never full. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} unfollowed SEC(".maps");

/* The key of the task's process, which all its threads share. */
static __always_inline struct process_key process_key_of(struct task_struct *task)
{
	return (struct process_key){
		.started_ns = READ_TYPED(task, group_leader, start_time),
		.pid = (__u32)READ_TYPED(task, tgid),
	};
}

/* Whether the process is, or was, one that is followed. */
static __always_inline bool is_followed(const struct process_ref *ref)
{
	struct process_key key = {.started_ns = ref->started_ns, .pid = ref->pid};

	return bpf_map_lookup_elem(&followed, &key) || bpf_map_lookup_elem(&followed_before, &key);
}

/* Follows the child of the tracer or of a followed process. It does not run yet: kernel_clone(). */
static __always_inline int on_fork(struct task_struct *parent, struct task_struct *child)
{
	struct process_key key = process_key_of(parent);
	const __u8 one = 1;
	const __u32 zero = 0;
	__u64 *count;

	if ((__u32)READ_TYPED(child, tgid) == (__u32)key.pid)
		return 0; /* a thread */
	if (!current_is_tracer(key.pid) && !bpf_map_lookup_elem(&followed, &key))
		return 0;
	key = process_key_of(child);
	if (!bpf_map_update_elem(&followed, &key, &one, BPF_ANY))
		return 0;
	count = bpf_map_lookup_elem(&unfollowed, &zero);
	if (count)
		__sync_fetch_and_add(count, 1);
	return 0;
}

/* A followed process whose last thread exits moves to followed_before. Its files close later. */
static __always_inline int on_exit(struct task_struct *task)
{
	struct process_key key;
	const __u8 one = 1;

	if (READ_TYPED(task, signal, live.counter))
		return 0;
	key = process_key_of(task);
	if (!bpf_map_lookup_elem(&followed, &key))
		return 0;
	/* In this order: the process is always in one of them. */
	bpf_map_update_elem(&followed_before, &key, &one, BPF_ANY);
	bpf_map_delete_elem(&followed, &key);
	return 0;
}

#endif
