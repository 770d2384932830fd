/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Whether a process still lives and still has a file. Processes and files are looked
 * at by their addresses and without references, so each answer is checked against
 * something that does not come again.
 */
#ifndef TCPSHIFT_PROCESS_H
#define TCPSHIFT_PROCESS_H

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include "cgroup.h"
#include "config.h"
#include "memory.h"
#include "read.h"

#define FDS_SEARCHED 64
#define THREADS_SEARCHED 8

/* Known to the verifier, where that is of use. */
static __always_inline struct task_struct *current_task(void)
{
	return has_plain_reads ? bpf_get_current_task_btf()
			       : (struct task_struct *)bpf_get_current_task();
}

static __always_inline struct task_struct *task_at(__u64 address)
{
	struct task_struct *task = (struct task_struct *)address;

	return has_plain_reads ? typed(task) : task;
}

static __always_inline bool has_file_at(struct fdtable *fdt, __u32 fd, __u64 file)
{
	struct file **files;
	__u64 at = 0;

	if (fd >= READ(fdt, max_fds))
		return false;
	files = READ(fdt, fd);
	if (has_plain_reads)
		return READ_WORD(&files[fd]) == file;
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
 * What the current task had in its registers when it entered the kernel. Up to 5.14
 * no helper gives them: they are at the end of its stack, which has this size on both
 * architectures, but for arm64 with large pages. What is there else is no number of a
 * closing call, nor of a descriptor of that file.
 */
#define STACK_SIZE 16384

static __always_inline struct pt_regs *current_regs(struct task_struct *task)
{
	if (bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_task_pt_regs))
		return (struct pt_regs *)bpf_task_pt_regs(
			has_plain_reads ? task : bpf_get_current_task_btf());
	return BPF_CORE_READ(task, stack) + STACK_SIZE - bpf_core_type_size(struct pt_regs);
}

/*
 * The descriptor on which the current system call operates: it is the first
 * argument of every call on a socket. Where it is not, in io_uring for one, the
 * table has something else at that place.
 */
static __always_inline int current_fd(struct fdtable *fdt, __u64 file)
{
	struct pt_regs *regs = current_regs(current_task());
	__u32 fd = READ(regs, first_argument);

	return has_file_at(fdt, fd, file) ? (int)fd : -1;
}

/* Its last descriptor is closed, and what else referred to it is done. */
static __always_inline bool is_released(__u64 address)
{
	struct file *file = (struct file *)address;
	struct file___6_12 *old = (struct file___6_12 *)address;

	if (bpf_core_field_exists(file->f_ref))
		return READ(file, f_ref.refcnt.counter) < 0;
	return !BPF_CORE_READ(old, f_count.counter);
}

/*
 * Who gives the last reference to a file back closes it, and that may be somebody who
 * only looked: lsof and ss -p refer to it for a moment to read a link in /proc. So who
 * is not known to have had the socket must be in a call that closes, or at its end.
 */
static __always_inline bool in_closing_call(struct task_struct *task)
{
	struct pt_regs *regs;

	if (FOLLOW(task, flags) & (PF_EXITING | PF_IO_WORKER))
		return true;
	regs = current_regs(task);
	switch ((int)READ(regs, call_number)) {
	case NR_CLOSE:
	case NR_CLOSE_RANGE:
	case NR_DUP2:
	case NR_DUP3:
	case NR_EXECVE:
	case NR_EXECVEAT:
	case NR_IO_URING_ENTER:
		return true;
	}
	return false;
}

static __always_inline struct sock *sock_behind(__u64 address)
{
	struct file *file = (struct file *)address;
	struct socket *socket = READ(file, private_data);

	return READ_POINTER(socket, sk);
}

static __always_inline bool is_self(__u32 pid)
{
	struct bpf_pidns_info ns;

	if (self_is_initial)
		return pid == self_pid;
	if (bpf_get_ns_current_pid_tgid(self_pidns_dev, self_pidns_ino, &ns, sizeof(ns)))
		return false;
	return ns.tgid == self_pid;
}

/* Two words where the kernel fills a name up with zeros, since 5.17. */
static __always_inline void read_comm(struct task_struct *task, struct holder *h)
{
	if (has_plain_reads)
		__builtin_memcpy(h->comm, task->comm, TASK_COMM_LEN);
	else
		BPF_CORE_READ_STR_INTO(&h->comm, task, comm);
}

/* What can change in the life of a process, which the verifier knows to be one. */
static __always_inline void refresh(struct task_struct *leader, struct holder *h)
{
	read_comm(leader, h);
	h->cgroup_id = cgroup_id_of_task(leader, h->cgroup_id);
}

static __always_inline void describe_process(struct task_struct *leader, struct holder *h)
{
	h->leader = (__u64)leader;
	h->started_ns = FOLLOW(leader, start_time);
	h->pid = FOLLOW(leader, tgid);
	refresh(leader, h);
}

/* Whether it is still the same process with the same file, which a closed socket has lost. */
static __always_inline bool is_same(const struct holder *h, struct task_struct *leader, __u64 file)
{
	return h->leader == (__u64)leader && (h->file == file || !file) &&
	       h->pid == (__u32)FOLLOW(leader, tgid) && h->started_ns == FOLLOW(leader, start_time);
}

/* Whether that process still lives, or at least has not been reaped. */
static __always_inline bool is_alive(const struct holder *h)
{
	struct task_struct *leader = task_at(h->leader);

	return (__u32)FOLLOW(leader, tgid) == h->pid &&
	       FOLLOW(leader, start_time) == h->started_ns && FOLLOW(leader, thread_pid);
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

/* Whether one of the process's threads has that table: one that nobody has is freed. */
__noinline int has_table(__u64 address, __u64 files)
{
	struct task_struct *leader = (struct task_struct *)address;
	struct signal_struct *signal = READ_POINTER(leader, signal);
	struct list_head *end =
		(void *)signal + bpf_core_field_offset(struct signal_struct, thread_head);
	struct list_head *at = READ_POINTER(end, next);

	for (int i = 0; i < THREADS_SEARCHED; i++) {
		struct task_struct *task =
			(void *)at - bpf_core_field_offset(struct task_struct, thread_node);

		if (!at || at == end)
			return 0;
		if ((__u64)READ_POINTER(task, files) == files)
			return 1;
		at = READ_POINTER(at, next);
	}
	return 0;
}

/* The leader's table is every thread's; without one, the table that they had. */
static __always_inline struct fdtable *table_of(const struct holder *h)
{
	struct task_struct *leader = (struct task_struct *)h->leader;
	struct files_struct *files = READ_POINTER(leader, files);

	if (!files && READ(leader, signal, live.counter) > 0 && has_table(h->leader, h->files))
		files = (struct files_struct *)h->files;
	return files ? READ_POINTER(files, fdt) : NULL;
}

#endif
