/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The system call that the current task is in. All of this depends on the architecture. */
#ifndef TCPSHIFT_SYSCALL_H
#define TCPSHIFT_SYSCALL_H

#include "kernel.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include "config.h"
#include "read.h"

/* Numbers of arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h. */
#if defined(__TARGET_ARCH_x86)
#define NR_CLOSE 3
#define NR_DUP2 33
#define NR_LISTEN 50
#define NR_EXECVE 59
#define NR_DUP3 292
#define NR_EXECVEAT 322
#elif defined(__TARGET_ARCH_arm64)
#define NR_DUP2 -2 /* arm64 has no dup2() */
#define NR_DUP3 24
#define NR_CLOSE 57
#define NR_LISTEN 201
#define NR_EXECVE 221
#define NR_EXECVEAT 281
#endif
#define NR_IO_URING_ENTER 426
#define NR_CLOSE_RANGE 436

/* Bytes of a task's kernel stack on both architectures, except on arm64 with large pages. */
#define STACK_SIZE 16384

static __always_inline struct task_struct *current_task(void)
{
	return has_rdonly_cast ? bpf_get_current_task_btf()
			       : (struct task_struct *)bpf_get_current_task();
}

/*
 * The registers with which the current task entered the kernel. Up to 5.14 no helper
 * returns them, but they lie at the end of the task's stack. If the stack has another
 * size, this reads other words of it. Those do not pass for the number of a call that
 * closes, nor for a descriptor of the socket's file.
 */
static __always_inline struct pt_regs *current_regs(struct task_struct *task)
{
	if (bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_task_pt_regs))
		return (struct pt_regs *)bpf_task_pt_regs(
			has_rdonly_cast ? task : bpf_get_current_task_btf());
	return BPF_CORE_READ(task, stack) + STACK_SIZE - bpf_core_type_size(struct pt_regs);
}

/* The number of the system call that the current task is in. */
static __always_inline int current_call_number(void)
{
	struct pt_regs *regs = current_regs(current_task());

	return (int)READ_UNTYPED(regs, call_number);
}

/* The first argument of the system call: for each call on a socket, its descriptor. */
static __always_inline __u32 current_first_argument(void)
{
	struct pt_regs *regs = current_regs(current_task());

	return READ_UNTYPED(regs, first_argument);
}

/*
 * Whether the current task is in a call that closes descriptors, or exits.
 *
 * The task that drops the last reference to a file closes it, and that may be an observer:
 * lsof and ss -p take a reference for a moment while they read a link in /proc. So a task
 * that is not known to have had the socket counts as the closer only within such a call.
 */
static __always_inline bool is_closing_descriptors(struct task_struct *task)
{
	struct pt_regs *regs;

	if (READ_TYPED(task, flags) & (PF_EXITING | PF_IO_WORKER))
		return true;
	regs = current_regs(task);
	switch ((int)READ_UNTYPED(regs, call_number)) {
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

#endif
