/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Processes and their descriptor tables: is a process still alive, does it still have a
 * file open. Both are read through addresses that are not counted references, so every
 * answer is checked against something that is not reused.
 */
#ifndef TCPSHIFT_PROCESS_H
#define TCPSHIFT_PROCESS_H

#include "kernel.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include "cgroup.h"
#include "config.h"
#include "process_ref.h"
#include "read.h"
#include "syscall.h"

/* They bound loops, for the verifier. Most processes have most of their sockets below 64. */
#define MAX_FDS_SEARCHED 64
#define MAX_THREADS_SEARCHED 8

/* The task at a stored address, for READ_TYPED. The task may have been freed. */
static __always_inline struct task_struct *task_at(__u64 address)
{
	struct task_struct *task = (struct task_struct *)address;

	return has_rdonly_cast ? typed(task) : task;
}

/* The address of the file at a descriptor; 0: none. */
static __always_inline __u64 file_at(struct fdtable *fdt, __u32 fd)
{
	struct file **files;
	__u64 file = 0;

	if (fd >= READ_AT(fdt, max_fds))
		return 0;
	files = READ_AT(fdt, fd);
	if (has_rdonly_cast)
		return READ_WORD(&files[fd]);
	bpf_probe_read_kernel(&file, sizeof(file), &files[fd]);
	return file;
}

/* Whether the descriptor refers to the file at this address. The address 0 is no file. */
static __always_inline bool fd_refers_to(struct fdtable *fdt, __u32 fd, __u64 file)
{
	return file && file_at(fdt, fd) == file;
}

/*
 * The lowest descriptor of the file among the first MAX_FDS_SEARCHED, or -1. Global, as
 * other functions with a long loop, so that the verifier walks the loop only once.
 */
__noinline int find_low_fd(__u64 fdt, __u64 file)
{
	for (int fd = 0; fd < MAX_FDS_SEARCHED; fd++) {
		if (fd_refers_to((struct fdtable *)fdt, fd, file))
			return fd;
	}
	return -1;
}

/*
 * The descriptor on which the current system call operates, if it refers to the file,
 * else -1. If the first argument is no descriptor, or another one (io_uring_enter() has the
 * ring's), the table has another file there, or none.
 */
static __always_inline int syscall_fd_of(struct fdtable *fdt, __u64 file)
{
	__u32 fd = current_call().first;

	return fd_refers_to(fdt, fd, file) ? (int)fd : -1;
}

/* Whether the file has no references left, neither from descriptors nor from system calls. */
static __always_inline bool is_file_released(__u64 address)
{
	struct file *file = (struct file *)address;
	struct file___before_6_13 *old = (struct file___before_6_13 *)address;

	if (bpf_core_field_exists(file->f_ref))
		return READ_AT(file, f_ref.refcnt.counter) < 0;
	return !BPF_CORE_READ(old, f_count.counter);
}

/*
 * The struct sock behind the file of a socket. The caller knows that the file is a socket's, or
 * checks what it reads.
 */
static __always_inline struct sock *sock_of_file(__u64 address)
{
	struct file *file = (struct file *)address;
	struct socket *socket = READ_AT(file, private_data);

	return READ_POINTER_AT(socket, sk);
}

/*
 * Whether the current call may have begun on the file that it releases: it was given this
 * descriptor, which another thread has closed meanwhile. Another file may have the descriptor
 * by now:
 * - no socket: a call that takes only sockets did not begin on it, so it began on the released
 *   file;
 * - an IP socket: a call that began on an IP socket releases no other file, so it began on the
 *   released file;
 * - a Unix socket: the call may have begun on it, and release a file that a message carries.
 */
static __always_inline bool may_have_begun_on(struct fdtable *fdt, __u32 fd, __u64 released,
					      enum call_class class)
{
	struct file *file = (struct file *)released;
	struct file *now;
	struct sock *sk;
	__u16 family;

	if (fd >= READ_AT(fdt, max_fds))
		return false;
	now = (struct file *)file_at(fdt, fd);
	if (!now)
		return true;
	if (READ_POINTER_AT(now, f_op) != READ_POINTER_AT(file, f_op))
		return class == CALL_ON_SOCKET || class == CALL_LISTEN;
	sk = sock_of_file((__u64)now);
	family = READ_AT(sk, __sk_common.skc_family);
	return family == AF_INET || family == AF_INET6;
}

/*
 * Whether the current task drops the last reference to a socket's file as a task of the
 * process that had the socket open: it closes descriptors (or is in another call that only
 * refers to files of its own process), exits, is an io_uring worker, or is in a call on a
 * descriptor that another thread has closed.
 *
 * The task that drops the last reference may also be an observer: lsof and ss -p take a
 * reference for a moment while they read a link in /proc.
 */
static __always_inline bool is_dropping_own_file(struct task_struct *task, __u64 file)
{
	struct fdtable *fdt;
	struct call call;

	if (READ_TYPED(task, flags) & (PF_EXITING | PF_IO_WORKER))
		return true;
	call = current_call();
	if (call.class == CALL_OTHER || call.class == CALL_OWN_FILES)
		return call.class == CALL_OWN_FILES;
	fdt = READ_TYPED(task, files, fdt);
	return may_have_begun_on(fdt, call.first, file, call.class) ||
	       (call.class == CALL_ON_TWO_FDS &&
		may_have_begun_on(fdt, call.third, file, call.class));
}

/* Whether the current process, whose pid in the initial namespace is given, is the tracer. */
static __always_inline bool current_is_tracer(__u32 pid)
{
	struct bpf_pidns_info ns;

	if (self_in_initial_pidns)
		return pid == self_pid;
	if (bpf_get_ns_current_pid_tgid(self_pidns_dev, self_pidns_ino, &ns, sizeof(ns)))
		return false;
	return ns.tgid == self_pid;
}

/* Fills all bytes of the name, because filters compare all of them; task is a typed pointer. */
static __always_inline void read_comm(struct task_struct *task, struct owner *owner)
{
	if (has_rdonly_cast) {
		/* Since 5.17 the kernel pads a comm with zeros. */
		__builtin_memcpy(owner->comm, task->comm, TASK_COMM_LEN);
		return;
	}
	/* Copies up to the first zero; behind it may be the end of an earlier, longer name. */
	__builtin_memset(owner->comm, 0, TASK_COMM_LEN);
	BPF_CORE_READ_STR_INTO(&owner->comm, task, comm);
}

/* Reads name and cgroup, which may change, and emits a new cgroup's path; leader is typed. */
static __always_inline void refresh_owner(struct task_struct *leader, struct owner *owner)
{
	read_comm(leader, owner);
	owner->cgroup_id = announce_cgroup_of_task(leader);
}

/*
 * Fills leader, started_ns and pid, the fields that identify the process, and no others. leader is
 * a typed pointer.
 */
static __always_inline void fill_process_identity(struct task_struct *leader,
						  struct process_ref *ref)
{
	ref->leader = address_of(leader);
	ref->started_ns = READ_TYPED(leader, start_time);
	ref->pid = READ_TYPED(leader, tgid);
}

/* Whether ref is to this process with this file (0, of a closed socket: any); leader is typed. */
static __always_inline bool is_ref_to(const struct process_ref *ref, struct task_struct *leader,
				      __u64 file)
{
	return ref->leader == (__u64)leader && (ref->file == file || !file) &&
	       ref->pid == (__u32)READ_TYPED(leader, tgid) &&
	       ref->started_ns == READ_TYPED(leader, start_time);
}

/* Whether the process is alive or a zombie: not reaped, its pid not free. */
static __always_inline bool still_has_pid(const struct process_ref *ref)
{
	struct task_struct *leader = task_at(ref->leader);

	return (__u32)READ_TYPED(leader, tgid) == ref->pid &&
	       READ_TYPED(leader, start_time) == ref->started_ns && READ_TYPED(leader, thread_pid);
}

/* Since 6.2. */
struct task_struct *bpf_task_from_pid(__s32 pid) __ksym __weak;
void bpf_task_release(struct task_struct *task) __ksym __weak;

/* Whether a task has this pid now; true where the kernel offers no way to know. */
static __always_inline bool is_pid_in_use(__u32 pid)
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

/*
 * Whether one of the first MAX_THREADS_SEARCHED threads of the process uses this files_struct. If
 * one does, the files_struct has not been freed. address is that of the leader's task_struct.
 * Global because of its loop, see find_low_fd().
 */
__noinline int thread_uses_files(__u64 address, __u64 files)
{
	struct task_struct *leader = (struct task_struct *)address;
	struct signal_struct *signal = READ_POINTER_AT(leader, signal);
	struct list_head *end =
		(void *)signal + bpf_core_field_offset(struct signal_struct, thread_head);
	struct list_head *at = READ_POINTER_AT(end, next);

	for (int i = 0; i < MAX_THREADS_SEARCHED; i++) {
		struct task_struct *task =
			(void *)at - bpf_core_field_offset(struct task_struct, thread_node);

		if (!at || at == end)
			return 0;
		if ((__u64)READ_POINTER_AT(task, files) == files)
			return 1;
		at = READ_POINTER_AT(at, next);
	}
	return 0;
}

/*
 * The process's descriptor table. A leader that has exited before its threads has none
 * any more. Then the remembered files_struct counts, if a thread still uses it.
 */
static __always_inline struct fdtable *fdtable_of(const struct process_ref *ref)
{
	struct task_struct *leader = (struct task_struct *)ref->leader;
	struct files_struct *files = READ_POINTER_AT(leader, files);

	if (!files && READ_AT(leader, signal, live.counter) > 0 &&
	    thread_uses_files(ref->leader, ref->files))
		files = (struct files_struct *)ref->files;
	return files ? READ_POINTER_AT(files, fdt) : NULL;
}

#endif
