/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The owners of sockets older than the tracer: a walk over all open files at the start. */
#ifndef TCPSHIFT_SCAN_H
#define TCPSHIFT_SCAN_H

#include "kernel.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include "client_table.h"
#include "config.h"
#include "owner.h"
#include "process.h"
#include "process_ref.h"
#include "read.h"
#include "sock_state.h"

/*
 * The owners of MPTCP sockets, by file. The subflows make the transitions, but they are
 * in no process's descriptor table; on_subflow() gives each the owner of its MPTCP
 * socket. scan_files inserts, scan_subflows reads, user space empties it before a scan. Full: a
 * subflow of a further MPTCP socket has no owner until its process makes a transition of it.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u64); /* address of the struct file */
	__type(value, struct process_ref);
} mptcp_owners SEC(".maps");

/*
 * The network namespaces with MPTCP sockets, by inode number: user space searches only
 * these for subflows. scan_files inserts, user space reads and empties. Full: as for
 * mptcp_owners.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, __u8);
} mptcp_namespaces SEC(".maps");

/*
 * Stores the owner of an MPTCP socket, unless another process was found first, and the namespace.
 */
static __always_inline void add_mptcp_owner(const struct sock *sk, const struct process_ref *ref)
{
	__u64 file = ref->file;
	__u32 netns = BPF_CORE_READ(sk, __sk_common.skc_net.net, ns.inum);
	__u8 present = 1;

	bpf_map_update_elem(&mptcp_owners, &file, ref, BPF_NOEXIST);
	bpf_map_update_elem(&mptcp_namespaces, &netns, &present, BPF_ANY);
}

/*
 * Stores ref as the socket's initial owner unless it has one. If several processes have
 * the socket open, the first in the iterator's order wins: the order is by pid, so this
 * is the oldest process unless pids have wrapped. Also records a listener's role.
 */
static __always_inline void set_initial_owner_once(struct sock *sk, const struct process_ref *ref)
{
	struct client_slot *slot = find_client_slot(sk);
	__u64 address = address_of(sk);
	struct process_ref present;
	struct sock_state *s =
		slot ? &slot->sock_state : sk_storage_of(sk, BPF_SK_STORAGE_GET_F_CREATE);

	if (!s)
		return;
	if (!s->role && sk->__sk_common.skc_state == TCP_LISTEN)
		s->role = ROLE_LISTENER;
	if (!copy_initial_owner(s, address, &present))
		set_initial_owner(s, address, ref);
}

/* Whether the process is the tracer: its task reads the iterator, so it is the current one. */
static __always_inline bool is_ref_to_tracer(const struct process_ref *ref)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();

	return ref->leader == (__u64)BPF_CORE_READ(task, group_leader);
}

/* For each descriptor of each process: stores the process as the initial owner of its socket. */
static __always_inline int on_task_file(struct task_struct *task, struct file *file, __u32 fd)
{
	struct process_ref ref = {.source_and_flags = PID_SCAN, .fd = fd};
	struct socket *socket;
	struct sock *sk;

	if (!task || !file)
		return 0;
	socket = bpf_sock_from_file(file);
	if (!socket)
		return 0;
	sk = socket->sk;
	if (!sk || (sk->sk_protocol != IPPROTO_TCP && sk->sk_protocol != IPPROTO_MPTCP))
		return 0;
	if (sk->__sk_common.skc_family != AF_INET && sk->__sk_common.skc_family != AF_INET6)
		return 0;
	ref.file = address_of(file);
	fill_process_identity(READ_TYPED(task, group_leader), &ref);
	ref.files = (__u64)BPF_CORE_READ(task, files);
	if (exclude_self && is_ref_to_tracer(&ref))
		ref.source_and_flags |= REF_SELF;
	if (has_socket_cookie)
		bpf_get_socket_cookie(sk); /* gives the socket a cookie if it has none */
	fill_socket_cookie(&ref);
	if (sk->sk_protocol == IPPROTO_MPTCP)
		add_mptcp_owner(sk, &ref);
	else
		set_initial_owner_once(sk, &ref);
	return 0;
}

/* For each TCP socket of a namespace: gives a subflow the owner of its MPTCP socket. */
static __always_inline int on_subflow(struct sock_common *skc)
{
	struct tcp_sock *tp;
	struct process_ref *ref;
	__u64 file;

	if (!skc)
		return 0;
	tp = bpf_skc_to_tcp_sock(skc);
	if (!tp || !bpf_core_field_exists(tp->is_mptcp) || !tp->is_mptcp)
		return 0;
	file = file_of_mptcp_socket(tp);
	ref = bpf_map_lookup_elem(&mptcp_owners, &file);
	if (ref)
		set_initial_owner_once((struct sock *)tp, ref);
	return 0;
}

#endif
