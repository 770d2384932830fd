/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Which process owns this socket.
 *
 * The current task is believed only where it provably operates on the socket.
 * What was learned so is remembered with the socket, and before it is told again
 * it is held against the process's table of files: who has given the socket away
 * is not named any more.
 */
#ifndef TCPSHIFT_OWNER_H
#define TCPSHIFT_OWNER_H

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include "config.h"
#include "event.h"
#include "facts.h"
#include "memory.h"
#include "process.h"
#include "read.h"

/* sock_diag's destroy (ss -K) holds the lock of sockets that are not its own. */
static __always_inline bool is_aborted(struct sock *sk)
{
	return READ(sk, sk_err) == ECONNABORTED;
}

static __always_inline bool is_subflow(struct sock *sk)
{
	struct tcp_sock *tp = (struct tcp_sock *)sk;

	return bpf_core_field_exists(tp->is_mptcp) && READ(tp, is_mptcp);
}

/* An MPTCP subflow has no file of its own; the socket that it is a part of has. */
static __always_inline struct file *file_of(struct sock *sk)
{
	struct tcp_sock *tp = (struct tcp_sock *)sk;
	struct mptcp_subflow_context *subflow;

	if (!is_subflow(sk))
		return READ_POINTER(sk, sk_socket, file);
	subflow = READ(tp, inet_conn.icsk_ulp_data);
	return READ_POINTER(subflow, conn, sk_socket, file);
}

/* By its cookie a listener is told from another one in its place, of which all else is equal. */
static __always_inline void note_cookie(struct holder *h)
{
	struct sock *behind = sock_behind(h->file);

	h->cookie = READ(behind, __sk_common.skc_cookie.counter);
}

/* The current process holds this file, or is closing it. */
static __always_inline void describe_current(struct task_struct *task, __u64 file,
					     struct facts *facts)
{
	struct task_struct *leader = READ_POINTER(task, group_leader);
	struct holder *h = &facts->owner;

	if (is_same(&facts->stored, leader, file)) {
		*h = facts->stored;
		refresh(leader, h);
	} else {
		describe_process(leader, h);
		h->file = file;
		h->files = (__u64)READ_POINTER(task, files);
		h->fd = current_fd(READ_POINTER(task, files, fdt), file);
		h->how = exclude_self && is_self(h->pid) ? HOLDER_SELF : 0;
		note_cookie(h);
	}
	if (file && is_released(file))
		h->how |= HOLDER_CLOSED;
	set_source(h, PID_TASK);
}

/*
 * Whether the current task holds the socket's lock, is no kernel thread, and is
 * not ss -K.
 */
static __always_inline bool current_has_lock(struct sock *sk, struct task_struct *task)
{
	if (!READ(sk, sk_lock.owned) || is_aborted(sk))
		return false;
	return !(READ(task, flags) & PF_KTHREAD);
}

/* What only a system call on the socket does, and no segment. */
static __always_inline bool is_operation(struct sock *sk, int old_state, int new_state)
{
	if (old_state == new_state)
		return true; /* tcp_close_state() sets even the state that there is */
	switch (new_state) {
	case TCP_LISTEN:
	case TCP_SYN_SENT:
	case TCP_FIN_WAIT1:
	case TCP_LAST_ACK:
		return true;
	case TCP_CLOSE:
		return !READ(sk, sk_err) && old_state != TCP_FIN_WAIT2 &&
		       old_state != TCP_CLOSING && old_state != TCP_LAST_ACK;
	}
	return false;
}

static __always_inline bool current_has(const struct facts *facts, struct task_struct *task,
					__u64 file)
{
	struct fdtable *fdt = READ_POINTER(task, files, fdt);

	if (facts->stored.pid && facts->stored.fd >= 0 && has_file_at(fdt, facts->stored.fd, file))
		return true;
	return current_fd(fdt, file) >= 0 || search_fd((__u64)fdt, file) >= 0;
}

/*
 * Whether the current task operates on the socket as one who has it. The lock alone
 * says little: segments that wait for it are handled by whoever gives it back, and that
 * may be ss -i; ss -K, MPTCP's path manager and others end what is not theirs. What
 * segments do within a close comes after the closer's own transition.
 */
static __always_inline bool current_owns(struct sock *sk, const struct facts *facts,
					 struct task_struct *task, __u64 file)
{
	bool operates = is_operation(sk, facts->old_state, facts->new_state);
	bool is_known;

	if (!current_has_lock(sk, task))
		return false;
	is_known = is_same(&facts->stored, READ_POINTER(task, group_leader), file);
	/* A socket of the kernel's own has no file; the task only happens to be there. */
	if (!file)
		return is_known && !operates;
	if (is_released(file))
		return is_known || (operates && in_closing_call(task));
	if ((facts->new_state == TCP_LISTEN || facts->new_state == TCP_SYN_SENT) && !is_subflow(sk))
		return true;
	return current_has(facts, task, file);
}

/*
 * Somebody who is no owner has operated on the socket, a kernel thread for one: where
 * its file is gone it has been closed, nobody knows for whom.
 */
static __always_inline bool must_forget(struct sock *sk, const struct facts *facts, __u64 file)
{
	return READ(sk, sk_lock.owned) && is_operation(sk, facts->old_state, facts->new_state) &&
	       !is_aborted(sk) && (!file || is_released(file));
}

/* What the current task proves. */
enum proof {
	PROVES_NOTHING,
	PROVES_OWNER, /* it is the owner: facts->owner */
	PROVES_OTHER, /* an owner that was not known has operated on the socket */
};

__noinline int prove_owner(__u64 address, __u32 place)
{
	struct sock *sk = (struct sock *)address;
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	struct facts *facts = facts_at(place);
	__u64 file;

	if (!facts)
		return PROVES_NOTHING;
	file = (__u64)file_of(sk);
	if (current_owns(sk, facts, task, file)) {
		describe_current(task, file, facts);
		return PROVES_OWNER;
	}
	return must_forget(sk, facts, file) ? PROVES_OTHER : PROVES_NOTHING;
}

/* A process may have put another file in the place of a listener's, or shut that down. */
static __always_inline bool still_listens(const struct holder *h)
{
	struct sock *sk = sock_behind(h->file);

	return READ(sk, __sk_common.skc_state) == TCP_LISTEN &&
	       READ(sk, __sk_common.skc_cookie.counter) == h->cookie;
}

static __always_inline bool still_holds(struct sock *sk, const struct holder *h)
{
	__u64 file = h->file ? h->file : (__u64)file_of(sk);
	struct fdtable *fdt = table_of(h);

	if (!fdt || !file)
		return false;
	if (source_of(h) == PID_LISTENER && !still_listens(h))
		return false;
	return (h->fd >= 0 && has_file_at(fdt, h->fd, file)) || search_fd((__u64)fdt, file) >= 0;
}

/*
 * Nobody has a socket that its last holder has closed: it stays that holder's
 * until its end, who was seen to close it. An unaccepted one has not had any, and
 * a subflow of MPTCP is cut off without a transition, by whomever.
 */
static __always_inline bool is_orphan(struct sock *sk, const struct holder *h)
{
	return h->how & HOLDER_CLOSED && !READ_POINTER(sk, sk_socket) && !is_subflow(sk);
}

static __always_inline bool recall_holder(struct sock *sk, const struct holder *from,
					  struct holder *to)
{
	if (!from->pid)
		return false;
	if (!is_alive(from)) {
		if (!is_orphan(sk, from) || is_pid_taken(from->pid))
			return false;
		*to = *from;
		return true;
	}
	if (!is_orphan(sk, from) && !still_holds(sk, from))
		return false;
	*to = *from;
	refresh((struct task_struct *)from->leader, to);
	return true;
}

/* Who came closest to the socket comes first. */
__noinline int recall_owner(__u64 address, __u32 place)
{
	struct sock *sk = (struct sock *)address;
	struct facts *facts = facts_at(place);
	bool inherited;

	if (!facts)
		return 0;
	inherited = source_of(&facts->stored) == PID_LISTENER;
	if (!inherited && recall_holder(sk, &facts->stored, &facts->owner)) {
		set_source(&facts->owner, PID_STORED);
		return 0;
	}
	if (recall_holder(sk, &facts->found, &facts->owner))
		return 0;
	if (inherited)
		recall_holder(sk, &facts->stored, &facts->owner);
	return 0;
}

/* The owner at a child's first transition: nobody had accepted it yet. */
__noinline int recall_listener(__u64 address, __u32 place)
{
	struct facts *facts = facts_at(place);

	if (facts && source_of(&facts->stored) == PID_LISTENER)
		recall_holder((struct sock *)address, &facts->stored, &facts->owner);
	return 0;
}

#endif
