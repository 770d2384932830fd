/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Who accepted this connection. */
#ifndef TCPSHIFT_ACCEPT_H
#define TCPSHIFT_ACCEPT_H

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include "clients.h"
#include "memory.h"
#include "owner.h"

/*
 * inet_csk_accept() has two arguments since 6.10 and had four before; what it
 * returns comes after them.
 */
static __always_inline struct sock *accepted_by(const __u64 *ctx)
{
	struct sock *child;

	/* The barriers keep two reads from becoming one at a place to be computed,
	 * which the verifier refuses. */
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
 * The file is not there yet, but do_accept() runs after the descriptor for it has
 * been taken, which is the one before the next.
 */
static __always_inline int on_accept(struct sock *child)
{
	struct task_struct *task = current_task();
	struct holder h = {.how = PID_ACCEPT};
	struct socket_memory *m;

	if (!child || child->sk_protocol != IPPROTO_TCP)
		return 0;
	if (FOLLOW(task, flags) & PF_KTHREAD)
		return 0;
	m = storage_of(child, BPF_SK_STORAGE_GET_F_CREATE);
	if (!m)
		return 0;
	describe_process(FOLLOW(task, group_leader), &h);
	h.files = (__u64)BPF_CORE_READ(task, files);
	h.fd = BPF_CORE_READ(task, files, next_fd) - 1;
	if (exclude_self && is_self(h.pid))
		h.how |= HOLDER_SELF;
	note_found(m, &h);
	return 0;
}

#endif
