/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Which process owns this socket, and what the socket is to it. */
#ifndef TCPSHIFT_OWNER_H
#define TCPSHIFT_OWNER_H

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include "config.h"
#include "event.h"
#include "memory.h"

struct owner {
	__u32 pid; /* 0: not known */
	char comm[TASK_COMM_LEN];
	bool self; /* it is the tracer */
};

/*
 * sock_diag's destroy (ss -K) holds the lock of sockets that are not its own:
 * tcp_abort() sets ECONNABORTED first, but for a listener. A listener closed by
 * its owner has both its directions shut down before.
 */
static __always_inline bool may_be_aborted(const struct sock *sk, int old_state)
{
	if (sk->sk_err == ECONNABORTED)
		return true;
	return old_state == TCP_LISTEN && sk->sk_shutdown != SHUTDOWN_MASK;
}

static __always_inline bool is_self(void)
{
	struct bpf_pidns_info ns;

	if (bpf_get_ns_current_pid_tgid(self_pidns_dev, self_pidns_ino, &ns, sizeof(ns)))
		return false;
	return ns.tgid == self_pid;
}

/*
 * The current task is the owner only where it provably operates on the socket:
 * it holds the socket's lock, is no kernel thread, and is not ss -K.
 */
static __always_inline void read_owner(const struct sock *sk, int old_state, struct owner *owner)
{
	struct task_struct *task;

	if (!sk->sk_lock.owned || may_be_aborted(sk, old_state))
		return;
	task = (struct task_struct *)bpf_get_current_task();
	if (BPF_CORE_READ(task, flags) & PF_KTHREAD)
		return;
	owner->pid = bpf_get_current_pid_tgid() >> 32;
	BPF_CORE_READ_STR_INTO(&owner->comm, task, group_leader, comm);
	owner->self = exclude_self && is_self();
}

static __always_inline enum socket_role role_shown_by(int old_state, int new_state)
{
	if (old_state == TCP_LISTEN && new_state == TCP_SYN_RECV)
		return ROLE_SERVER;
	if (old_state == TCP_LISTEN || new_state == TCP_LISTEN)
		return ROLE_LISTENER;
	if (old_state == TCP_SYN_SENT || new_state == TCP_SYN_SENT)
		return ROLE_CLIENT;
	return ROLE_UNKNOWN;
}

/* A role once shown stays until another one is: a socket may be used again. */
static __always_inline enum socket_role read_role(struct socket_memory *m, int old_state,
						  int new_state)
{
	enum socket_role shown = role_shown_by(old_state, new_state);

	if (!m)
		return shown;
	if (shown != ROLE_UNKNOWN)
		m->role = shown;
	return m->role;
}

#endif
