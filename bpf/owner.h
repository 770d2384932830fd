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
#include "cgroup.h"
#include "config.h"
#include "event.h"
#include "memory.h"

#define FDS_SEARCHED 64

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

/* An MPTCP subflow has no file of its own; the socket that it is a part of has. */
static __always_inline struct file *file_of(const struct sock *sk)
{
	struct tcp_sock *tp = bpf_skc_to_tcp_sock((void *)sk);
	struct mptcp_subflow_context *subflow;

	if (!tp || !bpf_core_field_exists(tp->is_mptcp) || !tp->is_mptcp)
		return BPF_CORE_READ(sk, sk_socket, file);
	subflow = tp->inet_conn.icsk_ulp_data;
	return BPF_CORE_READ(subflow, conn, sk_socket, file);
}

static __always_inline bool has_file_at(struct fdtable *fdt, __u32 fd, __u64 file)
{
	struct file **files;
	__u64 at = 0;

	if (fd >= BPF_CORE_READ(fdt, max_fds))
		return false;
	files = BPF_CORE_READ(fdt, fd);
	bpf_probe_read_kernel(&at, sizeof(at), &files[fd]);
	return at == file;
}

/*
 * Where most processes have most of their sockets; -1: not among those. Global,
 * as all functions with a loop, so that the verifier walks the loop only once.
 */
__noinline int search_fd(__u64 fdt, __u64 file)
{
	for (int fd = 0; fd < FDS_SEARCHED; fd++) {
		if (has_file_at((struct fdtable *)fdt, fd, file))
			return fd;
	}
	return -1;
}

/*
 * The descriptor on which the current system call operates: it is the first
 * argument of every call on a socket. Where it is not, in io_uring for one, the
 * table has something else at that place.
 */
static __always_inline int current_fd(struct fdtable *fdt, __u64 file)
{
	struct pt_regs *regs;
	__u32 fd;

	if (!bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_task_pt_regs))
		return -1;
	regs = (struct pt_regs *)bpf_task_pt_regs(bpf_get_current_task_btf());
	fd = BPF_CORE_READ(regs, first_argument);
	return has_file_at(fdt, fd, file) ? (int)fd : -1;
}

/* What can change in the life of a process. */
static __always_inline void refresh(struct task_struct *leader, struct holder *h)
{
	BPF_CORE_READ_STR_INTO(&h->comm, leader, comm);
	h->cgroup_id = cgroup_id_of_task(leader, h->cgroup_id);
}

static __always_inline void describe_process(struct task_struct *leader, struct holder *h)
{
	h->leader = (__u64)leader;
	h->started_ns = BPF_CORE_READ(leader, start_time);
	h->pid = BPF_CORE_READ(leader, tgid);
	refresh(leader, h);
}

static __always_inline struct sock *sock_behind(__u64 address)
{
	struct file *file = (struct file *)address;
	struct socket *socket = BPF_CORE_READ(file, private_data);

	return BPF_CORE_READ(socket, sk);
}

/* By its cookie a listener is told from another one in its place, of which all else is equal. */
static __always_inline void note_cookie(const struct sock *sk, struct holder *h)
{
	struct sock *behind = sock_behind(h->file);

	if (has_socket_cookie)
		bpf_get_socket_cookie((void *)sk); /* which gives it one */
	h->cookie = BPF_CORE_READ(behind, __sk_common.skc_cookie.counter);
}

/* Whether it is still the same process with the same file, which a closed socket has lost. */
static __always_inline bool is_same(const struct holder *h, struct task_struct *leader, __u64 file)
{
	return h->leader == (__u64)leader && (h->file == file || !file) &&
	       h->pid == bpf_get_current_pid_tgid() >> 32 &&
	       h->started_ns == BPF_CORE_READ(leader, start_time);
}

/* The current process holds this file; the holder must be zeroed. */
static __always_inline void describe_current(struct task_struct *task, const struct sock *sk,
					     const struct socket_memory *m, struct holder *h)
{
	__u64 file = (__u64)file_of(sk);
	struct task_struct *leader = BPF_CORE_READ(task, group_leader);

	if (m && is_same(&m->owner, leader, file)) {
		*h = m->owner;
		refresh(leader, h);
		return;
	}
	describe_process(leader, h);
	h->file = file;
	h->files = (__u64)BPF_CORE_READ(task, files);
	h->fd = current_fd(BPF_CORE_READ(task, files, fdt), file);
	h->self = exclude_self && is_self();
	note_cookie(sk, h);
}

/*
 * Whether the current task holds the socket's lock, is no kernel thread, and is
 * not ss -K.
 */
static __always_inline bool current_has_lock(const struct sock *sk, int old_state,
					     struct task_struct *task)
{
	if (!sk->sk_lock.owned || may_be_aborted(sk, old_state))
		return false;
	return !(BPF_CORE_READ(task, flags) & PF_KTHREAD);
}

/* What only a system call on the socket does, and no segment. */
static __always_inline bool is_operation(const struct sock *sk, int old_state, int new_state)
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
		return !sk->sk_err && old_state != TCP_FIN_WAIT2 && old_state != TCP_CLOSING &&
		       old_state != TCP_LAST_ACK;
	}
	return false;
}

/* Its last descriptor is closed, and what else referred to it is done. */
static __always_inline bool is_released(__u64 address)
{
	struct file *file = (struct file *)address;

	if (bpf_core_field_exists(file->f_ref))
		return BPF_CORE_READ(file, f_ref.refcnt.counter) < 0;
	return !BPF_CORE_READ((struct file___6_12 *)address, f_count.counter);
}

/*
 * Whether close() is at work, which has the lock from beginning to end, but for
 * SO_LINGER's wait: then it can also be the last owner who goes on after it.
 */
static __always_inline bool is_closing(const struct sock *sk, const struct socket_memory *m,
				       struct task_struct *task, __u64 file)
{
	if (sk->sk_shutdown != SHUTDOWN_MASK || !is_released(file))
		return false;
	return !(sk->__sk_common.skc_flags >> SOCK_LINGER & 1) ||
	       (m && is_same(&m->owner, BPF_CORE_READ(task, group_leader), file));
}

/*
 * Whether the current task operates on the socket. Segments that wait for the lock
 * are handled by whoever gives it back, and that may be ss -i, which looks at
 * sockets of others: for what segments do it must also have the socket.
 */
static __always_inline bool current_owns(const struct sock *sk, const struct socket_memory *m,
					 int old_state, int new_state, struct task_struct *task)
{
	struct fdtable *fdt;
	__u64 file;

	if (!current_has_lock(sk, old_state, task))
		return false;
	file = (__u64)file_of(sk);
	/* A socket of the kernel's own has no file; the task only happens to be there. */
	if (is_operation(sk, old_state, new_state))
		return file != 0;
	if (!file)
		return m && is_same(&m->owner, BPF_CORE_READ(task, group_leader), file);
	if (is_closing(sk, m, task, file))
		return true;
	fdt = BPF_CORE_READ(task, files, fdt);
	if (m && m->owner.fd >= 0 && has_file_at(fdt, m->owner.fd, file))
		return true;
	return current_fd(fdt, file) >= 0 || search_fd((__u64)fdt, file) >= 0;
}

/* Whether that process still lives, or at least has not been reaped. */
static __always_inline bool is_alive(const struct holder *h)
{
	struct task_struct *leader = (struct task_struct *)h->leader;

	return (__u32)BPF_CORE_READ(leader, tgid) == h->pid &&
	       BPF_CORE_READ(leader, start_time) == h->started_ns &&
	       BPF_CORE_READ(leader, thread_pid);
}

#define THREADS_SEARCHED 8

/* Whether one of the process's threads has that table: one that nobody has is freed. */
__noinline int has_table(__u64 leader, __u64 files)
{
	struct signal_struct *signal = BPF_CORE_READ((struct task_struct *)leader, signal);
	struct list_head *at = BPF_CORE_READ(signal, thread_head.next);

	for (int i = 0; i < THREADS_SEARCHED; i++) {
		struct task_struct *task =
			(void *)at - bpf_core_field_offset(struct task_struct, thread_node);

		if (!at ||
		    at == (void *)signal + bpf_core_field_offset(struct signal_struct, thread_head))
			return 0;
		if ((__u64)BPF_CORE_READ(task, files) == files)
			return 1;
		at = BPF_CORE_READ(at, next);
	}
	return 0;
}

/* The leader's table is every thread's; without one, the table that they had. */
static __always_inline struct fdtable *table_of(const struct holder *h)
{
	struct task_struct *leader = (struct task_struct *)h->leader;
	struct files_struct *files = BPF_CORE_READ(leader, files);

	if (!files && BPF_CORE_READ(leader, signal, live.counter) > 0 &&
	    has_table(h->leader, h->files))
		files = (struct files_struct *)h->files;
	return files ? BPF_CORE_READ(files, fdt) : NULL;
}

/* A process may have put another file in the place of a listener's, or shut that down. */
static __always_inline bool still_listens(const struct holder *h)
{
	struct sock *sk = sock_behind(h->file);

	return BPF_CORE_READ(sk, __sk_common.skc_state) == TCP_LISTEN &&
	       BPF_CORE_READ(sk, __sk_common.skc_cookie.counter) == h->cookie;
}

static __always_inline bool still_holds(const struct sock *sk, const struct holder *h)
{
	__u64 file = h->file ? h->file : (__u64)file_of(sk);
	struct fdtable *fdt = table_of(h);

	if (!fdt || !file)
		return false;
	if (h->source == PID_LISTENER && !still_listens(h))
		return false;
	return (h->fd >= 0 && has_file_at(fdt, h->fd, file)) || search_fd((__u64)fdt, file) >= 0;
}

/* Since 6.2. */
struct task_struct *bpf_task_from_pid(__s32 pid) __ksym __weak;
void bpf_task_release(struct task_struct *task) __ksym __weak;

/* Whether another process goes by that number now; yes, where there is no way to know. */
static __always_inline bool is_pid_taken(__u32 pid)
{
	struct task_struct *task;

	if (!has_task_from_pid)
		return true;
	task = bpf_task_from_pid(pid);
	if (!task)
		return false;
	bpf_task_release(task);
	return true;
}

static __always_inline bool is_subflow(const struct sock *sk)
{
	struct tcp_sock *tp = bpf_skc_to_tcp_sock((void *)sk);

	return tp && bpf_core_field_exists(tp->is_mptcp) && tp->is_mptcp;
}

/*
 * Nobody has a socket that its last holder has closed: it stays that holder's
 * until its end, who was seen to close it. An unaccepted one has not had any, and
 * a subflow of MPTCP is cut off without a transition, by whomever.
 */
static __always_inline bool is_orphan(const struct sock *sk, const struct holder *h)
{
	return !BPF_CORE_READ(sk, sk_socket) && h->source != PID_LISTENER && !is_subflow(sk);
}

/*
 * Somebody who is no owner has operated on the socket, a kernel thread for one: it
 * may have been closed.
 */
static __always_inline bool must_forget(const struct sock *sk, int old_state, int new_state)
{
	return sk->sk_lock.owned && is_operation(sk, old_state, new_state) &&
	       !may_be_aborted(sk, old_state);
}

static __always_inline bool recall_holder(const struct sock *sk, const struct holder *from,
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
static __always_inline void recall_owner(const struct sock *sk, const struct socket_memory *m,
					 struct holder *to)
{
	bool inherited = m->owner.source == PID_LISTENER;

	if (!inherited && recall_holder(sk, &m->owner, to)) {
		to->source = PID_STORED;
		return;
	}
	if (recall_holder(sk, &m->found, to))
		return;
	if (inherited)
		recall_holder(sk, &m->owner, to);
}

/* The owner at a child's first transition: nobody had accepted it yet. */
static __always_inline void recall_listener(const struct sock *sk, const struct socket_memory *m,
					    struct holder *to)
{
	if (m->owner.source == PID_LISTENER)
		recall_holder(sk, &m->owner, to);
}

/* The socket's owner at this moment; to must be zeroed and stays so if nobody is known. */
static __always_inline void find_owner(const struct sock *sk, struct socket_memory *m,
				       int old_state, int new_state, struct holder *to)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();

	if (current_owns(sk, m, old_state, new_state, task)) {
		describe_current(task, sk, m, to);
		to->source = PID_TASK;
		if (m)
			m->owner = *to;
		return;
	}
	if (!m)
		return;
	if (must_forget(sk, old_state, new_state))
		m->owner.pid = m->found.pid = 0;
	recall_owner(sk, m, to);
}

#endif
