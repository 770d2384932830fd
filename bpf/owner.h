/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The process that owns a socket.
 *
 * The current task counts as the owner only where it provably operates on the socket. A
 * proven owner is stored in the sock_state. A stored owner is verified against its
 * descriptor table before a later event names it, because the process may have passed
 * the socket on.
 */
#ifndef TCPSHIFT_OWNER_H
#define TCPSHIFT_OWNER_H

#include "kernel.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include "config.h"
#include "event.h"
#include "event_ctx.h"
#include "process.h"
#include "process_ref.h"
#include "read.h"
#include "syscall.h"

/* An MPTCP subflow has no file of its own; the MPTCP socket that it belongs to has. */
static __always_inline __u64 file_of_mptcp_socket(struct tcp_sock *subflow)
{
	struct mptcp_subflow_context *context = READ_AT(subflow, inet_conn.icsk_ulp_data);

	return (__u64)READ_POINTER_AT(context, conn, sk_socket, file);
}

/* Whether the socket is a subflow of MPTCP; never where the kernel lacks MPTCP. */
static __always_inline bool is_subflow(struct tcp_sock *tp)
{
	return bpf_core_field_exists(tp->is_mptcp) && READ_AT(tp, is_mptcp);
}

/* Reads the socket's fields that the owner's proof and the event need; sk is a typed pointer. */
static __always_inline void read_socket_fields(const struct sock *sk, struct event_ctx *ec)
{
	struct tcp_sock *tp = (struct tcp_sock *)sk;
	struct socket *socket = READ_AT(sk, sk_socket);

	ec->locked = sk->sk_lock.owned != 0;
	ec->error = sk->sk_err;
	ec->soft_error = sk->sk_err_soft;
	ec->uid = sk->sk_uid.val;
	ec->socket = (__u64)socket;
	ec->is_subflow = is_subflow(tp);
	ec->file = ec->is_subflow ? file_of_mptcp_socket(tp) : (__u64)READ_POINTER_AT(socket, file);
}

/*
 * Whether the error is that of sock_diag's destroy (ss -K). Its task owns the lock of sockets that
 * are not its own.
 */
static __always_inline bool is_destroyed_by_diag(const struct event_ctx *ec)
{
	return ec->error == ECONNABORTED;
}

/*
 * The cookie distinguishes a listener from a later one that has the same file address
 * and descriptor.
 */
static __always_inline void fill_socket_cookie(struct process_ref *ref)
{
	struct sock *sk = sock_of_file(ref->file);

	ref->cookie = READ_AT(sk, __sk_common.skc_cookie.counter);
}

/*
 * Makes the current process ec->owner. The caller has proven that it is: current_is_owner(). An
 * unwanted transition reads its name and its cgroup only if the process has closed the socket,
 * because later events read them of a process that has it open.
 */
static __always_inline void fill_owner_from_current(struct task_struct *task, struct event_ctx *ec)
{
	struct task_struct *leader = READ_TYPED(task, group_leader);
	struct files_struct *files = READ_TYPED(task, files);
	bool released = ec->file && is_file_released(ec->file);
	struct process_ref *ref = &ec->owner.ref;

	if (is_ref_to(&ec->stored_owner.ref, leader, ec->file)) {
		ec->owner = ec->stored_owner;
	} else {
		__builtin_memset(&ec->owner, 0, sizeof(ec->owner));
		fill_process_identity(leader, ref);
		ref->file = ec->file;
		ref->files = (__u64)files;
		ref->fd = released ? -1 : syscall_fd_of(READ_TYPED(files, fdt), ec->file);
		ref->source_and_flags = exclude_self && current_is_tracer(ref->pid) ? REF_SELF : 0;
		fill_socket_cookie(ref);
	}
	if (!ec->is_unwanted || released || ref->source_and_flags & REF_CLOSED)
		refresh_owner(leader, &ec->owner);
	if (released)
		ref->source_and_flags |= REF_CLOSED;
	set_source(ref, PID_TASK);
}

/* Whether the current task owns the socket's lock, is no kernel thread, and is not ss -K. */
static __always_inline bool user_task_has_lock(const struct event_ctx *ec, struct task_struct *task)
{
	if (!ec->locked || is_destroyed_by_diag(ec))
		return false;
	return !(READ_TYPED(task, flags) & PF_KTHREAD);
}

/*
 * Whether sk_err is what a reset, a timer or ss -K leaves when it ends a connection in this
 * state: see tcp_reset(), tcp_write_err() and tcp_abort(). Any other error was there before:
 * IP_RECVERR keeps the errors of ICMP messages on the socket, and they end nothing. An ICMP
 * error ends only a handshake (SYN_SENT, and SYN_RECV after a fast open or crossed SYNs), and
 * never while a task owns the socket's lock.
 */
static __always_inline bool is_error_of_end(const struct event_ctx *ec)
{
	switch (ec->error) {
	case 0:
		return false;
	case ECONNREFUSED:
		return ec->old_state == TCP_SYN_SENT || ec->error == ec->soft_error;
	case ECONNRESET:
	case EPIPE:
	case ETIMEDOUT:
	case ECONNABORTED:
		return true;
	}
	return ec->error == ec->soft_error;
}

/*
 * Whether only a system call on the socket makes this transition, and never a segment. One
 * exception: a shutdown() in SYN_RECV defers the FIN (fast open and crossed SYNs), and then
 * the segment that ends the handshake makes ESTABLISHED -> FIN_WAIT1. That names no wrong
 * owner while the file is open.
 */
static __always_inline bool is_made_by_syscall(const struct event_ctx *ec)
{
	int old_state = ec->old_state;

	if (old_state == ec->new_state)
		return true; /* tcp_close_state() also sets the state that the socket has */
	switch (ec->new_state) {
	case TCP_LISTEN:
	case TCP_SYN_SENT:
	case TCP_FIN_WAIT1:
	case TCP_LAST_ACK:
		return true;
	case TCP_CLOSE:
		return !is_error_of_end(ec) && old_state != TCP_FIN_WAIT2 &&
		       old_state != TCP_CLOSING && old_state != TCP_LAST_ACK;
	}
	return false;
}

/*
 * Whether the process was seen closing the last descriptor of the socket. Then no process
 * has the socket open, and this one stays its owner until the socket ends. A socket that
 * was never accepted has no such process. An MPTCP subflow does not count, because the MPTCP
 * socket may drop a subflow in any process's context, without a transition.
 */
static __always_inline bool is_orphaned_by(const struct event_ctx *ec,
					   const struct process_ref *ref)
{
	return ref->source_and_flags & REF_CLOSED && !ec->socket && !ec->is_subflow;
}

/*
 * Whether the current process has the socket's file open: at the owner's stored descriptor, at the
 * one that the current call was given, or at one of the first MAX_FDS_SEARCHED.
 */
static __always_inline bool current_has_file(const struct event_ctx *ec, struct task_struct *task)
{
	struct fdtable *fdt = READ_TYPED(task, files, fdt);

	if (ec->stored_owner.ref.pid && ec->stored_owner.ref.fd >= 0 &&
	    fd_refers_to(fdt, ec->stored_owner.ref.fd, ec->file))
		return true;
	return syscall_fd_of(fdt, ec->file) >= 0 || find_low_fd(address_of(fdt), ec->file) >= 0;
}

/*
 * Whether the current task, which drops the last reference to the socket's file, may be named for
 * that. It may never have had the socket open: a file that was in a message to it is released in
 * its context when it closes the Unix socket or exits, and nothing shows that. So users could have
 * their connections named after a process of another user. It is named if the socket is its
 * user's or root's, or if it is known to have accepted the connection or read from it.
 */
static __always_inline bool may_be_blamed_for_release(const struct event_ctx *ec,
						      struct task_struct *task)
{
	const struct process_ref *initial = &ec->initial_owner;

	if (!ec->uid || ec->uid == (__u32)bpf_get_current_uid_gid())
		return true;
	return initial->pid && is_ref_to(initial, READ_TYPED(task, group_leader), initial->file);
}

/*
 * Whether the current task operates on the socket as its owner. The lock alone proves
 * little. Segments that arrive while a task owns the lock are processed by that task
 * when it releases the lock, and the task may be ss -i. ss -K, MPTCP's path manager and
 * others end sockets that are not theirs. Segments may make transitions within a close()
 * too, but only after the transition of the close() itself.
 */
static __always_inline bool current_is_owner(const struct event_ctx *ec, struct task_struct *task)
{
	bool made_by_syscall = is_made_by_syscall(ec);
	bool is_stored_owner;

	if (!user_task_has_lock(ec, task))
		return false;
	is_stored_owner =
		is_ref_to(&ec->stored_owner.ref, READ_TYPED(task, group_leader), ec->file);
	/*
	 * A kernel socket, which belongs to no task, or an orphan. A task that owns the lock of
	 * an orphan is in the close() of the owner, where tcp_check_oom() ends the orphan.
	 */
	if (!ec->file)
		return is_stored_owner &&
		       (!made_by_syscall || is_orphaned_by(ec, &ec->stored_owner.ref));
	if (is_file_released(ec->file))
		return is_stored_owner ||
		       (made_by_syscall && is_dropping_own_file(task, ec->file) &&
			may_be_blamed_for_release(ec, task));
	if ((ec->new_state == TCP_LISTEN || ec->new_state == TCP_SYN_SENT) && !ec->is_subflow)
		return true;
	return current_has_file(ec, task);
}

/*
 * Whether a process that is not known has closed the socket: the socket's file is gone, and a
 * system call makes this transition. The caller has checked that the current task is not the owner;
 * it may be a kernel thread. Then no event may name the stored owner. False if the stored owner was
 * seen closing the last descriptor, because it stays the owner.
 */
static __always_inline bool is_closed_by_unknown(const struct event_ctx *ec)
{
	const struct process_ref *stored = &ec->stored_owner.ref;

	return ec->locked && is_made_by_syscall(ec) && !is_destroyed_by_diag(ec) &&
	       (!ec->file || is_file_released(ec->file)) &&
	       !(stored->pid && is_orphaned_by(ec, stored));
}

/*
 * For an unwanted transition of a socket whose lock a task owns: whether the current task belongs
 * to the stored owner, and has the socket open at the stored descriptor or closes it now. Then
 * prove_owner() would prove the same owner again. At a close this reads the name and the cgroup,
 * and sets REF_CLOSED in the stored owner.
 */
static __always_inline bool confirm_stored_owner(const struct sock *sk, struct owner *stored)
{
	struct task_struct *task = current_task();
	struct task_struct *leader = READ_TYPED(task, group_leader);
	struct process_ref *ref = &stored->ref;
	struct socket *socket = sk->sk_socket;
	__u64 file = ref->file;

	if (source_of(ref) != PID_TASK || !file || !is_ref_to(ref, leader, file))
		return false;
	if ((__u64)READ_POINTER_AT(socket, file) != file || sk->sk_err == ECONNABORTED)
		return false;
	if (!is_file_released(file))
		return ref->fd >= 0 && fd_refers_to(READ_TYPED(task, files, fdt), ref->fd, file);
	refresh_owner(leader, stored);
	ref->source_and_flags |= REF_CLOSED;
	return true;
}

/* What a transition shows about the socket's owner. */
enum owner_proof {
	OWNER_UNPROVEN,
	OWNER_PROVEN, /* the current process is the owner: ec->owner */
	OWNER_DISPROVEN, /* the stored owner has lost the socket, and the new one is not known */
};

/* What the current task proves about the owner. Returns enum owner_proof. */
__noinline int prove_owner(__u32 slot)
{
	struct task_struct *task = current_task();
	struct event_ctx *ec = event_ctx_at(slot);

	if (!ec)
		return OWNER_UNPROVEN;
	if (current_is_owner(ec, task)) {
		fill_owner_from_current(task, ec);
		return OWNER_PROVEN;
	}
	return is_closed_by_unknown(ec) ? OWNER_DISPROVEN : OWNER_UNPROVEN;
}

/*
 * The process may have put another file at the listener's descriptor, or have shut the
 * listener down.
 */
static __always_inline bool is_still_listening(const struct process_ref *ref)
{
	struct sock *sk = sock_of_file(ref->file);

	return READ_AT(sk, __sk_common.skc_state) == TCP_LISTEN &&
	       READ_AT(sk, __sk_common.skc_cookie.counter) == ref->cookie;
}

/* Whether the live process still has the socket, or the socket's listener, open. */
static __always_inline bool still_has_file(const struct event_ctx *ec,
					   const struct process_ref *ref)
{
	bool is_listeners = source_of(ref) == PID_LISTENER;
	__u64 file = is_listeners ? ref->file : ec->file;
	struct fdtable *fdt = fdtable_of(ref);

	if (!fdt || !file)
		return false;
	if (is_listeners ? !is_still_listening(ref) : ref->file && ref->file != file)
		return false;
	return (ref->fd >= 0 && fd_refers_to(fdt, ref->fd, file)) ||
	       find_low_fd((__u64)fdt, file) >= 0;
}

/* Makes a live process the owner to be emitted if the reference is still true. */
static __always_inline bool use_ref_if_valid(struct event_ctx *ec, const struct process_ref *ref)
{
	if (!ref->pid || !still_has_pid(ref))
		return false;
	if (!is_orphaned_by(ec, ref) && !still_has_file(ec, ref))
		return false;
	ec->owner.ref = *ref;
	refresh_owner(task_at(ref->leader), &ec->owner);
	return true;
}

/*
 * As use_ref_if_valid(), for the stored owner, which may have exited. Then its name and cgroup
 * are the stored ones.
 */
static __always_inline bool use_stored_if_valid(struct event_ctx *ec)
{
	const struct process_ref *ref = &ec->stored_owner.ref;

	if (!ref->pid)
		return false;
	if (still_has_pid(ref))
		return use_ref_if_valid(ec, ref);
	if (!is_orphaned_by(ec, ref) || is_pid_in_use(ref->pid))
		return false;
	ec->owner = ec->stored_owner;
	return true;
}

/*
 * Fills ec->owner with what is stored, if it is still true: first the owner that a
 * transition of this socket proved, then the process that accept(), a read or the scan found,
 * last the listener's owner. Returns 0.
 */
__noinline int use_stored_owner(__u32 slot)
{
	struct event_ctx *ec = event_ctx_at(slot);
	bool is_from_listener;

	if (!ec)
		return 0;
	is_from_listener = source_of(&ec->stored_owner.ref) == PID_LISTENER;
	if (!is_from_listener && use_stored_if_valid(ec)) {
		set_source(&ec->owner.ref, PID_STORED);
		return 0;
	}
	if (use_ref_if_valid(ec, &ec->initial_owner))
		return 0;
	if (is_from_listener)
		use_stored_if_valid(ec);
	return 0;
}

/*
 * Fills ec->owner for a child's first transition, when no process had accepted the child
 * yet: with the listener's owner. Returns 0.
 */
__noinline int use_listener_owner(__u32 slot)
{
	struct event_ctx *ec = event_ctx_at(slot);

	if (ec && source_of(&ec->stored_owner.ref) == PID_LISTENER)
		use_stored_if_valid(ec);
	return 0;
}

#endif
