/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The process that accepts a connection. */
#ifndef TCPSHIFT_ACCEPT_H
#define TCPSHIFT_ACCEPT_H

#include "kernel.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include "config.h"
#include "hash.h"
#include "process.h"
#include "process_ref.h"
#include "read.h"
#include "sock_state.h"
#include "syscall.h"

/*
 * The return value of inet_csk_accept(). In the context it follows the arguments: two
 * since 6.10, four before.
 */
static __always_inline struct sock *accepted_socket(const __u64 *ctx)
{
	struct sock *child;

	/*
	 * Without the barriers the compiler merges the two loads into one at a computed
	 * offset, which the verifier refuses.
	 */
	if (accept_has_two_args) {
		child = (struct sock *)ctx[2];
		barrier_var(child);
	} else {
		child = (struct sock *)ctx[4];
		barrier_var(child);
	}
	return child;
}

/* The latest accept() of a task: which descriptor it has reserved for the connection. */
struct accept_call {
	__u64 task; /* the task's address; 0: the slot was never used */
	__s32 fd;
};

/*
 * By a hash of the task's address. The fentry program of inet_csk_accept() writes, the fexit
 * program reads. Two tasks in one slot: the later one has it, and the descriptor of the
 * other is not known. A wrong descriptor names no wrong owner, because owner.h checks what is
 * behind it.
 */
#define ACCEPT_CALL_BITS 10
static struct accept_call accept_calls[1 << ACCEPT_CALL_BITS];

/* The slot that a hash of the task's address selects. It may hold the call of another task. */
static __always_inline struct accept_call *accept_call_slot(__u64 task)
{
	return &accept_calls[hash64(task, ACCEPT_CALL_BITS)];
}

/*
 * Notes the descriptor for the connection. accept() reserves it right before it calls
 * inet_csk_accept(), so here it is next_fd - 1. When inet_csk_accept() returns, next_fd may be
 * another one: other threads open and close files while this one waits for a connection.
 */
static __always_inline int on_accept_entry(void)
{
	struct task_struct *task = current_task();
	__u64 address = bpf_get_current_task();
	struct accept_call *call = accept_call_slot(address);

	if (READ_TYPED(task, flags) & PF_KTHREAD)
		return 0;
	call->task = address;
	call->fd = READ_TYPED(task, files, next_fd) - 1;
	return 0;
}

/* The descriptor that the current task's accept() has reserved, or -1. */
static __always_inline int reserved_fd(void)
{
	__u64 task = bpf_get_current_task();
	const struct accept_call *call = accept_call_slot(task);

	return call->task == task ? call->fd : -1;
}

/*
 * Stores the current process as the child's initial owner. The child is not attached to its
 * file yet, so the file is not known, but its descriptor is.
 */
static __always_inline int on_accept(struct sock *child)
{
	struct task_struct *task = current_task();
	struct process_ref ref = {.source_and_flags = PID_ACCEPT};
	struct sock_state *s;

	if (!child || child->sk_protocol != IPPROTO_TCP)
		return 0;
	if (READ_TYPED(task, flags) & PF_KTHREAD)
		return 0;
	s = sk_storage_of(child, BPF_SK_STORAGE_GET_F_CREATE);
	if (!s)
		return 0;
	fill_process_identity(READ_TYPED(task, group_leader), &ref);
	ref.files = (__u64)BPF_CORE_READ(task, files);
	ref.fd = reserved_fd();
	if (exclude_self && current_is_tracer(ref.pid))
		ref.source_and_flags |= REF_SELF;
	set_initial_owner(s, address_of(child), &ref);
	return 0;
}

#endif
