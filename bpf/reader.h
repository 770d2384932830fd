/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The process that reads from a connection. Where no program can be attached to accept(),
 * this is the first sign of the process that has accepted it.
 *
 * tcp_rcv_space_adjust() runs in each call that has read data, in its task, with the
 * socket's lock owned by the task, except in tcp_read_sock(), which may run in a softirq.
 */
#ifndef TCPSHIFT_READER_H
#define TCPSHIFT_READER_H

#include "kernel.h"

#include <bpf/bpf_helpers.h>
#include "config.h"
#include "event.h"
#include "owner.h"
#include "process.h"
#include "process_ref.h"
#include "read.h"
#include "sock_state.h"
#include "syscall.h"

/*
 * Whether the sock_state has an owner of this socket, other than its listener's. It may be
 * outdated: it is verified only for an event.
 */
static __always_inline bool is_owner_known(const struct sock_state *s, __u64 sk)
{
	if (s->sk != sk)
		return false;
	return s->initial_owner_sum ||
	       (s->owner.ref.pid && source_of(&s->owner.ref) != PID_LISTENER);
}

/*
 * The descriptor of the file in the current process, or -1. Most tasks read by a call whose
 * first argument is the descriptor. If it is not, and may_search is set, find_low_fd() searches
 * the first descriptors, which takes long. Global, because in a global function the addresses that
 * it reads are numbers to the verifier.
 */
__noinline int find_current_fd(__u64 file, bool may_search)
{
	struct fdtable *fdt = READ_TYPED(current_task(), files, fdt);
	int fd = syscall_fd_of(fdt, file);

	return fd < 0 && may_search ? find_low_fd(address_of(fdt), file) : fd;
}

/* For each read of data: stores the reader as the initial owner, if no owner is known yet. */
static __always_inline int on_read(struct sock *sk)
{
	struct process_ref ref = {.source_and_flags = PID_READ};
	struct sock_state *s = find_sk_storage(sk);
	__u64 address = address_of(sk);
	struct task_struct *task;
	struct socket *socket;
	int fd;

	if (!s || is_owner_known(s, address) || !sk->sk_lock.owned)
		return 0;
	task = current_task();
	socket = sk->sk_socket;
	ref.file = (__u64)READ_POINTER_AT(socket, file);
	if (!ref.file || READ_TYPED(task, flags) & PF_KTHREAD)
		return 0;
	make_state_own(s, address);
	fd = find_current_fd(ref.file, !s->reader_searched);
	s->reader_searched = true;
	if (fd < 0)
		return 0;
	ref.fd = fd;
	fill_process_identity(READ_TYPED(task, group_leader), &ref);
	ref.files = address_of(READ_TYPED(task, files));
	fill_socket_cookie(&ref);
	if (exclude_self && current_is_tracer(ref.pid))
		ref.source_and_flags |= REF_SELF;
	set_initial_owner(s, address, &ref);
	return 0;
}

#endif
