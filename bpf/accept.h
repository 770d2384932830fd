/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The process that accepts a connection. */
#ifndef TCPSHIFT_ACCEPT_H
#define TCPSHIFT_ACCEPT_H

#include "kernel.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include "config.h"
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

/*
 * Stores the current process as the child's initial owner. The child is not attached to its
 * file yet, so the file is not known; but accept() has already reserved its descriptor, the
 * one before next_fd.
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
	fill_process_ref(READ_TYPED(task, group_leader), &ref);
	ref.files = (__u64)BPF_CORE_READ(task, files);
	ref.fd = BPF_CORE_READ(task, files, next_fd) - 1;
	if (exclude_self && is_tracer(ref.pid))
		ref.source_and_flags |= REF_SELF;
	set_initial_owner(s, address_of(child), &ref);
	return 0;
}

#endif
