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

/* An MPTCP subflow has no file of its own; the socket that it is a part of has. */
static __always_inline __u64 file_of_whole(struct tcp_sock *subflow)
{
	struct mptcp_subflow_context *context = READ(subflow, inet_conn.icsk_ulp_data);

	return (__u64)READ_POINTER(context, conn, sk_socket, file);
}

static __always_inline bool is_subflow(struct tcp_sock *tp)
{
	return bpf_core_field_exists(tp->is_mptcp) && READ(tp, is_mptcp);
}

/* What owners are told by; sk is known to the verifier. */
static __always_inline void look_at_socket(const struct sock *sk, struct facts *facts)
{
	struct tcp_sock *tp = (struct tcp_sock *)sk;
	struct socket *socket = sk->sk_socket;

	facts->locked = sk->sk_lock.owned != 0;
	facts->error = sk->sk_err;
	facts->socket = (__u64)socket;
	facts->is_subflow = is_subflow(tp);
	facts->file = facts->is_subflow ? file_of_whole(tp) : (__u64)READ_POINTER(socket, file);
}

/* sock_diag's destroy (ss -K) holds the lock of sockets that are not its own. */
static __always_inline bool is_aborted(const struct facts *facts)
{
	return facts->error == ECONNABORTED;
}

/* By its cookie a listener is told from another one in its place, of which all else is equal. */
static __always_inline void note_cookie(struct holder *h)
{
	struct sock *behind = sock_behind(h->file);

	h->cookie = READ(behind, __sk_common.skc_cookie.counter);
}

/* The current process holds the socket's file, or is closing it. */
static __always_inline void describe_current(struct task_struct *task, struct facts *facts)
{
	struct task_struct *leader = FOLLOW(task, group_leader);
	struct files_struct *files = FOLLOW(task, files);
	struct holder *h = &facts->owner;

	if (is_same(&facts->stored, leader, facts->file)) {
		*h = facts->stored;
		refresh(leader, h);
	} else {
		describe_process(leader, h);
		h->file = facts->file;
		h->files = (__u64)files;
		h->fd = current_fd(FOLLOW(files, fdt), facts->file);
		h->how = exclude_self && is_self(h->pid) ? HOLDER_SELF : 0;
		note_cookie(h);
	}
	if (facts->file && is_released(facts->file))
		h->how |= HOLDER_CLOSED;
	set_source(h, PID_TASK);
}

/*
 * Whether the current task holds the socket's lock, is no kernel thread, and is
 * not ss -K.
 */
static __always_inline bool current_has_lock(const struct facts *facts, struct task_struct *task)
{
	if (!facts->locked || is_aborted(facts))
		return false;
	return !(FOLLOW(task, flags) & PF_KTHREAD);
}

/* What only a system call on the socket does, and no segment. */
static __always_inline bool is_operation(const struct facts *facts)
{
	int old_state = facts->old_state;

	if (old_state == facts->new_state)
		return true; /* tcp_close_state() sets even the state that there is */
	switch (facts->new_state) {
	case TCP_LISTEN:
	case TCP_SYN_SENT:
	case TCP_FIN_WAIT1:
	case TCP_LAST_ACK:
		return true;
	case TCP_CLOSE:
		return !facts->error && old_state != TCP_FIN_WAIT2 && old_state != TCP_CLOSING &&
		       old_state != TCP_LAST_ACK;
	}
	return false;
}

static __always_inline bool current_has(const struct facts *facts, struct task_struct *task)
{
	struct fdtable *fdt = FOLLOW(task, files, fdt);

	if (facts->stored.pid && facts->stored.fd >= 0 &&
	    has_file_at(fdt, facts->stored.fd, facts->file))
		return true;
	return current_fd(fdt, facts->file) >= 0 || search_fd(address_of(fdt), facts->file) >= 0;
}

/*
 * Whether the current task operates on the socket as one who has it. The lock alone
 * says little: segments that wait for it are handled by whoever gives it back, and that
 * may be ss -i; ss -K, MPTCP's path manager and others end what is not theirs. What
 * segments do within a close comes after the closer's own transition.
 */
static __always_inline bool current_owns(const struct facts *facts, struct task_struct *task)
{
	bool operates = is_operation(facts);
	bool is_known;

	if (!current_has_lock(facts, task))
		return false;
	is_known = is_same(&facts->stored, FOLLOW(task, group_leader), facts->file);
	/* A socket of the kernel's own has no file; the task only happens to be there. */
	if (!facts->file)
		return is_known && !operates;
	if (is_released(facts->file))
		return is_known || (operates && in_closing_call(task));
	if ((facts->new_state == TCP_LISTEN || facts->new_state == TCP_SYN_SENT) &&
	    !facts->is_subflow)
		return true;
	return current_has(facts, task);
}

/*
 * Somebody who is no owner has operated on the socket, a kernel thread for one: where
 * its file is gone it has been closed, nobody knows for whom.
 */
static __always_inline bool must_forget(const struct facts *facts)
{
	return facts->locked && is_operation(facts) && !is_aborted(facts) &&
	       (!facts->file || is_released(facts->file));
}

/* What the current task proves. */
enum proof {
	PROVES_NOTHING,
	PROVES_OWNER, /* it is the owner: facts->owner */
	PROVES_OTHER, /* an owner that was not known has operated on the socket */
};

__noinline int prove_owner(__u32 place)
{
	struct task_struct *task = current_task();
	struct facts *facts = facts_at(place);

	if (!facts)
		return PROVES_NOTHING;
	if (current_owns(facts, task)) {
		describe_current(task, facts);
		return PROVES_OWNER;
	}
	return must_forget(facts) ? PROVES_OTHER : PROVES_NOTHING;
}

/* A process may have put another file in the place of a listener's, or shut that down. */
static __always_inline bool still_listens(const struct holder *h)
{
	struct sock *sk = sock_behind(h->file);

	return READ(sk, __sk_common.skc_state) == TCP_LISTEN &&
	       READ(sk, __sk_common.skc_cookie.counter) == h->cookie;
}

static __always_inline bool still_holds(const struct facts *facts, const struct holder *h)
{
	__u64 file = h->file ? h->file : facts->file;
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
static __always_inline bool is_orphan(const struct facts *facts, const struct holder *h)
{
	return h->how & HOLDER_CLOSED && !facts->socket && !facts->is_subflow;
}

static __always_inline bool recall_holder(const struct facts *facts, const struct holder *from,
					  struct holder *to)
{
	if (!from->pid)
		return false;
	if (!is_alive(from)) {
		if (!is_orphan(facts, from) || is_pid_taken(from->pid))
			return false;
		*to = *from;
		return true;
	}
	if (!is_orphan(facts, from) && !still_holds(facts, from))
		return false;
	*to = *from;
	refresh(task_at(from->leader), to);
	return true;
}

/* Who came closest to the socket comes first. */
__noinline int recall_owner(__u32 place)
{
	struct facts *facts = facts_at(place);
	bool inherited;

	if (!facts)
		return 0;
	inherited = source_of(&facts->stored) == PID_LISTENER;
	if (!inherited && recall_holder(facts, &facts->stored, &facts->owner)) {
		set_source(&facts->owner, PID_STORED);
		return 0;
	}
	if (recall_holder(facts, &facts->found, &facts->owner))
		return 0;
	if (inherited)
		recall_holder(facts, &facts->stored, &facts->owner);
	return 0;
}

/* The owner at a child's first transition: nobody had accepted it yet. */
__noinline int recall_listener(__u32 place)
{
	struct facts *facts = facts_at(place);

	if (facts && source_of(&facts->stored) == PID_LISTENER)
		recall_holder(facts, &facts->stored, &facts->owner);
	return 0;
}

#endif
