/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The system call that the current task is in. All of this depends on the architecture. */
#ifndef TCPSHIFT_SYSCALL_H
#define TCPSHIFT_SYSCALL_H

#include "kernel.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include "config.h"
#include "read.h"
#include "syscall_table.h"

/* Marks the numbers of the x32 ABI; arch/x86/include/uapi/asm/unistd.h. */
#define X32_SYSCALL_BIT 0x40000000
#define TS_COMPAT 0x0002 /* arch/x86/include/asm/thread_info.h */
#define PSR_MODE32_BIT 0x00000010 /* arch/arm64/include/uapi/asm/ptrace.h */

/* Subcalls of socketcall(), include/uapi/linux/net.h. */
#define SYS_SOCKET 1
#define SYS_LISTEN 4
#define SYS_SOCKETPAIR 8

/* Bytes of a task's kernel stack; it is larger with KASAN, and on arm64 with pages of 64 KiB. */
#define STACK_SIZE 16384

/* The current task, for READ_TYPED. With has_rdonly_cast the verifier knows its type. */
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

/*
 * The call's class, and the arguments that may be descriptors. For a call without a
 * descriptor at that place the argument is any number.
 */
struct call {
	enum call_class class;
	__u32 first;
	__u32 third;
};

/* The verifier of 6.1 does not see that the comparison bounds the index; the mask does. */
static __always_inline enum call_class class_of(const __u8 *calls, __u32 number)
{
	if (number >= CALL_NUMBERS)
		return CALL_OTHER;
	barrier_var(number);
	return calls[number & (CALL_NUMBERS - 1)];
}

#if defined(__TARGET_ARCH_x86)

/*
 * A call of the i386 ABI. A 64-bit process makes one with int 0x80. The flag stands until
 * the task returns to user mode, so it is still set when the task drops its references on
 * the way out.
 */
static __always_inline bool is_compat_call(void)
{
	struct task_struct *task = current_task();

	return bpf_core_field_exists(task->thread_info.status) &&
	       READ_TYPED(task, thread_info.status) & TS_COMPAT;
}

/* socketcall() takes the number of a socket call, and a pointer to the arguments of that call. */
static __always_inline void read_socketcall(struct pt_regs *regs, struct call *call)
{
	__u32 subcall = call->first;

	call->class = subcall == SYS_SOCKET || subcall == SYS_SOCKETPAIR ? CALL_OTHER
		      : subcall == SYS_LISTEN				 ? CALL_LISTEN
									 : CALL_ON_SOCKET;
	if (bpf_probe_read_user(&call->first, sizeof(call->first),
				(void *)(__u64)(__u32)READ_AT(regs, cx)))
		call->class = CALL_OTHER;
}

/*
 * Fills the class of the call that the task entered with these registers, and its first and third
 * arguments.
 */
static __always_inline void read_call(struct pt_regs *regs, struct call *call)
{
	__u32 number = READ_AT(regs, orig_ax);

	call->third = READ_AT(regs, dx);
	if (is_compat_call()) {
		call->first = READ_AT(regs, bx);
		call->class = class_of(compat_calls, number);
		if (call->class == CALL_SOCKETCALL)
			read_socketcall(regs, call);
		return;
	}
	call->first = READ_AT(regs, di);
	call->class = class_of(native_calls, number & ~X32_SYSCALL_BIT);
}

#elif defined(__TARGET_ARCH_arm64)

/* The numbers of execve() and execveat() in the tables of arm64. */
#define NATIVE_EXECVE 221
#define NATIVE_EXECVEAT 281
#define COMPAT_EXECVE 11
#define COMPAT_EXECVEAT 387

/*
 * The task is in execve() of a program of the other width (32 or 64 bits): start_thread() has
 * set the new mode and cleared the registers, but kept the call's number, which is of the old
 * ABI.
 */
static __always_inline bool is_exec_of_other_abi(bool compat, __u32 number, __u32 first)
{
	if (compat)
		return !first && (number == NATIVE_EXECVE || number == NATIVE_EXECVEAT);
	return !first && (number == COMPAT_EXECVE || number == COMPAT_EXECVEAT);
}

/*
 * Fills the class of the call that the task entered with these registers, and its first and third
 * arguments.
 */
static __always_inline void read_call(struct pt_regs *regs, struct call *call)
{
	bool compat = READ_AT(regs, pstate) & PSR_MODE32_BIT;
	__u32 number = READ_AT(regs, syscallno);

	call->first = READ_AT(regs, orig_x0);
	call->third = READ_AT(regs, regs[2]);
	call->class = is_exec_of_other_abi(compat, number, call->first) ? CALL_OWN_FILES
		      : compat ? class_of(compat_calls, number)
			       : class_of(native_calls, number);
}

#endif

/*
 * The class and the arguments of the system call that the current task is in. If it is in none,
 * they mean nothing.
 */
static __always_inline struct call current_call(void)
{
	struct call call;

	read_call(current_regs(current_task()), &call);
	return call;
}

#endif
