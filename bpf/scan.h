/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Who has which socket open: a walk over all processes' files, once at the start. */
#ifndef TCPSHIFT_SCAN_H
#define TCPSHIFT_SCAN_H

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include "clients.h"
#include "memory.h"
#include "owner.h"

/*
 * Who holds MPTCP sockets, by their files. The subflows, which are what makes
 * transitions, are in no process's table; adopt_subflow() finds them another way.
 * The scan inserts; full: those subflows' owners are known later.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u64); /* struct file */
	__type(value, struct holder);
} mptcp_holders SEC(".maps");

/*
 * The namespaces they are in, by their inode numbers: only there are subflows looked
 * for. The scan inserts, the tracer reads; full: those owners are known later, too.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, __u8);
} mptcp_namespaces SEC(".maps");

static __always_inline void note_mptcp(const struct sock *sk, const struct holder *h)
{
	__u64 file = h->file;
	__u32 netns = BPF_CORE_READ(sk, __sk_common.skc_net.net, ns.inum);
	__u8 there = 1;

	bpf_map_update_elem(&mptcp_holders, &file, h, BPF_NOEXIST);
	bpf_map_update_elem(&mptcp_namespaces, &netns, &there, BPF_ANY);
}

/* Of several processes that have it the first, which is the oldest, counts. */
static __always_inline void note_first(struct sock *sk, const struct holder *h)
{
	struct client *client = find_client(sk);
	struct socket_memory *m =
		client ? &client->memory : storage_of(sk, BPF_SK_STORAGE_GET_F_CREATE);

	if (!m)
		return;
	if (!m->role && sk->__sk_common.skc_state == TCP_LISTEN)
		m->role = ROLE_LISTENER;
	if (!m->is_found)
		note_found(m, h);
}

static __always_inline bool is_current(const struct holder *h)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();

	return h->leader == (__u64)BPF_CORE_READ(task, group_leader);
}

static __always_inline int on_task_file(struct task_struct *task, struct file *file, __u32 fd)
{
	struct holder h = {.how = PID_SCAN, .file = (__u64)file, .fd = fd};
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
	describe_process(FOLLOW(task, group_leader), &h);
	h.files = (__u64)BPF_CORE_READ(task, files);
	if (exclude_self && is_current(&h))
		h.how |= HOLDER_SELF; /* the tracer is who reads the iterator */
	if (has_socket_cookie)
		bpf_get_socket_cookie(sk); /* which gives it one */
	note_cookie(&h);
	if (sk->sk_protocol == IPPROTO_MPTCP)
		note_mptcp(sk, &h);
	else
		note_first(sk, &h);
	return 0;
}

/* A subflow belongs to whoever has the file of the socket that it is a part of. */
static __always_inline int on_subflow(struct sock_common *skc)
{
	struct tcp_sock *tp;
	struct holder *h;
	__u64 file;

	if (!skc)
		return 0;
	tp = bpf_skc_to_tcp_sock(skc);
	if (!tp || !bpf_core_field_exists(tp->is_mptcp) || !tp->is_mptcp)
		return 0;
	file = file_of_whole(tp);
	h = bpf_map_lookup_elem(&mptcp_holders, &file);
	if (h)
		note_first((struct sock *)tp, h);
	return 0;
}

#endif
