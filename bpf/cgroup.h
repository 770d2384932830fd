/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* In which cgroup is a process or a socket, and what is that cgroup's path. */
#ifndef TCPSHIFT_CGROUP_H
#define TCPSHIFT_CGROUP_H

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include "config.h"
#include "event.h"
#include "read.h"
#include "ring.h"

#define CGROUP_DEPTH 32

/*
 * Cgroups whose path has gone out. The programs insert; what has not been seen
 * for long falls out and is told again.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, __u64); /* id */
	__type(value, __u8);
} told_cgroups SEC(".maps");

/*
 * Where containers are told apart by a v1 hierarchy, the socket's own cgroup,
 * which is always of v2, says nothing.
 */
static __always_inline struct cgroup *cgroup_of_task(struct task_struct *task)
{
	if (cgroup_v1_subsys >= 0 && cgroup_v1_subsys < 16)
		return FOLLOW(task, cgroups, subsys[cgroup_v1_subsys], cgroup);
	return FOLLOW(task, cgroups, dfl_cgrp);
}

/* The cgroup in which the socket was made; a child has its listener's. */
static __always_inline struct cgroup *cgroup_of_socket(const struct sock *sk)
{
	const struct sock_cgroup_data___before_5_15 *data = (const void *)&sk->sk_cgrp_data;

	if (bpf_core_field_exists(sk->sk_cgrp_data.cgroup))
		return BPF_CORE_READ(sk, sk_cgrp_data.cgroup);
	return (struct cgroup *)BPF_CORE_READ(data, val);
}

/* A function of its own: hoisted out of a loop, the access that this kernel lacks would be met. */
static __noinline struct kernfs_node *parent_of(struct kernfs_node *node)
{
	struct kernfs_node___before_6_15 *old = (void *)node;

	if (bpf_core_field_exists(node->__parent))
		return BPF_CORE_READ(node, __parent);
	return BPF_CORE_READ(old, parent);
}

static __always_inline void describe_path(struct kernfs_node *node, struct cgroup_event *e)
{
	struct kernfs_node *parent;

	e->id = BPF_CORE_READ(node, id);
	e->kind = EVENT_CGROUP;
	e->levels = 0;
	e->truncated = 0;
	__builtin_memset(e->reserved, 0, sizeof(e->reserved));
	for (int i = 0; i < CGROUP_LEVELS; i++) {
		parent = parent_of(node);
		e->names[i][0] = 0;
		if (!parent)
			continue;
		if (bpf_probe_read_kernel_str(e->names[i], CGROUP_NAME_LEN,
					      BPF_CORE_READ(node, name)) >= CGROUP_NAME_LEN)
			e->truncated = 1;
		e->levels = i + 1;
		node = parent;
	}
	if (parent_of(node))
		e->truncated = 1;
}

/* Best effort, and a function of its own for the verifier's sake: without room the next event with
 * this id tries again. */
__noinline int tell_path(__u64 node, __u64 id)
{
	__u8 told = 1;
	struct cgroup_event *e;

	e = bpf_ringbuf_reserve(&paths, sizeof(*e), 0);
	if (!e)
		return 0;
	describe_path((struct kernfs_node *)node, e);
	bpf_ringbuf_submit(e, BPF_RB_NO_WAKEUP);
	bpf_map_update_elem(&told_cgroups, &id, &told, BPF_ANY);
	return 0;
}

static __u64 last_told; /* an id whose path has gone out */

/* known is another one, or 0. */
static __always_inline __u64 tell_cgroup(struct cgroup *cgroup, __u64 known)
{
	struct kernfs_node *node = READ_POINTER(cgroup, kn);
	__u64 id = READ(node, id);

	if (!id || id == known || id == last_told)
		return id;
	if (bpf_map_lookup_elem(&told_cgroups, &id))
		last_told = id;
	else
		tell_path((__u64)node, id);
	return id;
}

static __always_inline __u64 cgroup_id_of_task(struct task_struct *task, __u64 known)
{
	return want_cgroups ? tell_cgroup(cgroup_of_task(task), known) : 0;
}

/* 0 where v2 does not tell containers apart. */
static __always_inline __u64 cgroup_id_of_socket(const struct sock *sk)
{
	if (!want_cgroups || cgroup_v1_subsys >= 0)
		return 0;
	return tell_cgroup(cgroup_of_socket(sk), 0);
}

#endif
