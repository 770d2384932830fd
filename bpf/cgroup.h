/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The cgroup of a process or a socket: its id, and its path for user space. */
#ifndef TCPSHIFT_CGROUP_H
#define TCPSHIFT_CGROUP_H

#include "kernel.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include "config.h"
#include "event.h"
#include "hash.h"
#include "read.h"
#include "ring.h"

/*
 * The ids of cgroups whose path has been emitted. The programs look up and insert. Full:
 * the least recently used id is evicted. If it is not in the cache below either, its path is
 * emitted again when needed.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, __u64); /* id */
	__type(value, __u8);
} emitted_cgroups SEC(".maps");

/* The task's cgroup in the hierarchy that distinguishes containers: a v1 hierarchy, or v2. */
static __always_inline struct cgroup *cgroup_of_task(struct task_struct *task)
{
	if (cgroup_v1_subsys >= 0 && cgroup_v1_subsys < MAX_CGROUP_SUBSYS)
		return READ_TYPED(task, cgroups, subsys[cgroup_v1_subsys], cgroup);
	return READ_TYPED(task, cgroups, dfl_cgrp);
}

/* The cgroup in which the socket was created; a child has its listener's. Always of v2. */
static __always_inline struct cgroup *cgroup_of_socket(const struct sock *sk)
{
	const struct sock_cgroup_data___before_5_15 *data = (const void *)&sk->sk_cgrp_data;

	if (bpf_core_field_exists(sk->sk_cgrp_data.cgroup))
		return BPF_CORE_READ(sk, sk_cgrp_data.cgroup);
	return (struct cgroup *)BPF_CORE_READ(data, val);
}

/*
 * Not inlined, because the compiler would hoist the field accesses out of the caller's
 * loop and in front of the check. The verifier refuses an access to a field that this
 * kernel does not have.
 */
static __noinline struct kernfs_node *parent_of(struct kernfs_node *node)
{
	struct kernfs_node___before_6_15 *old = (void *)node;

	if (bpf_core_field_exists(node->__parent))
		return BPF_CORE_READ(node, __parent);
	return BPF_CORE_READ(old, parent);
}

/* Whether a user other than root may create, and so name, a cgroup in this directory. */
static __always_inline bool others_may_write(struct kernfs_node *dir)
{
	struct kernfs_iattrs *attrs = BPF_CORE_READ(dir, iattr);

	return (attrs && BPF_CORE_READ(attrs, ia_uid.val)) || BPF_CORE_READ(dir, mode) & 022;
}

/* Fills in the names from the cgroup up to the root. */
static __always_inline void fill_cgroup_event(struct kernfs_node *node, struct cgroup_event *e)
{
	struct kernfs_node *parent;

	e->id = BPF_CORE_READ(node, id);
	e->kind = EVENT_CGROUP;
	e->levels = 0;
	e->truncated = 0;
	e->claimed = 0;
	for (int i = 0; i < CGROUP_LEVELS; i++) {
		parent = parent_of(node);
		e->names[i][0] = 0;
		if (!parent)
			continue;
		bpf_probe_read_kernel_str(e->names[i], CGROUP_NAME_LEN, BPF_CORE_READ(node, name));
		e->levels = i + 1;
		if (others_may_write(node))
			e->claimed = i;
		node = parent;
	}
	if (parent_of(node))
		e->truncated = 1;
}

/*
 * Emits a cgroup's path. If the ring is full, the next event with this id tries again.
 * Global, so that the verifier checks it once and not at each call.
 */
__noinline int emit_cgroup_path(__u64 node, __u64 id)
{
	__u8 emitted = 1;
	struct cgroup_event *e;

	e = bpf_ringbuf_reserve(&cgroup_paths, sizeof(*e), 0);
	if (!e)
		return 0;
	fill_cgroup_event((struct kernfs_node *)node, e);
	bpf_ringbuf_submit(e, BPF_RB_NO_WAKEUP);
	bpf_map_update_elem(&emitted_cgroups, &id, &emitted, BPF_ANY);
	return 0;
}

/*
 * A cache in front of emitted_cgroups, by a hash of the id. Not by its low bits: kernfs numbers
 * a cgroup's directory and its control files one after the other, so the ids of cgroups that are
 * created one after the other differ by a fixed step. With a step of 64 all shared one entry.
 */
#define RECENT_CGROUP_BITS 6
static __u64 recently_emitted_cgroups[1 << RECENT_CGROUP_BITS];

/* The cache's entry for the id. It may hold another id. */
static __always_inline __u64 *recent_cgroup_at(__u64 id)
{
	return &recently_emitted_cgroups[hash64(id, RECENT_CGROUP_BITS)];
}

/* Emits the cgroup's path if that has not been done yet. Returns the cgroup's id. */
static __always_inline __u64 announce_cgroup(struct cgroup *cgroup)
{
	struct kernfs_node *node = READ_POINTER_AT(cgroup, kn);
	__u64 id = READ_AT(node, id);
	__u64 *recent = recent_cgroup_at(id);

	if (!id || id == *recent)
		return id;
	if (bpf_map_lookup_elem(&emitted_cgroups, &id))
		*recent = id;
	else
		emit_cgroup_path((__u64)node, id);
	return id;
}

/* As announce_cgroup() for the task's cgroup. 0 if user space wants no cgroups. */
static __always_inline __u64 announce_cgroup_of_task(struct task_struct *task)
{
	return want_cgroups ? announce_cgroup(cgroup_of_task(task)) : 0;
}

/*
 * Emits the path of the cgroup in which the socket was created if that has not been done yet, and
 * returns the cgroup's id. 0 if user space wants no cgroups, or if a v1 hierarchy distinguishes
 * containers: a socket only has a cgroup of v2.
 */
static __always_inline __u64 announce_cgroup_of_socket(const struct sock *sk)
{
	if (!want_cgroups || cgroup_v1_subsys >= 0)
		return 0;
	return announce_cgroup(cgroup_of_socket(sk));
}

#endif
