/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Reads of kernel memory through pointers that may be stale. A wrong address gives
 * zeros, never a fault.
 *
 * There are two ways, and each macro takes the better one that this kernel has:
 *  - since 6.2 (has_rdonly_cast), bpf_rdonly_cast() gives an address a type, and the
 *    program then dereferences it with plain loads, some ten times as fast;
 *  - before, BPF_CORE_READ(), which calls bpf_probe_read_kernel() for each step.
 *
 * Which macro to use depends on what the verifier knows about the pointer:
 *  - typed: the verifier knows its BTF type, from the tracepoint's arguments, from
 *    bpf_get_current_task_btf() or from typed() below. Use READ_TYPED.
 *  - untyped: a number to the verifier, because it comes out of a map, an argument of
 *    a global function, or another untyped read. Use READ_AT or READ_POINTER_AT.
 */
#ifndef TCPSHIFT_READ_H
#define TCPSHIFT_READ_H

#include "kernel.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include "config.h"

/* Since 6.2. */
void *bpf_rdonly_cast(const void *pointer, __u32 type) __ksym __weak;

/* Gives the verifier the C type of an untyped pointer; only with has_rdonly_cast. */
#define typed(pointer)                                                                             \
	((typeof(pointer))bpf_rdonly_cast(pointer, bpf_core_type_id_kernel(typeof(*(pointer)))))

/* deref(p, a, b) is p->a->b; for one to four fields. */
#define deref1(pointer, a) (pointer)->a
#define deref2(pointer, a, b) (pointer)->a->b
#define deref3(pointer, a, b, c) (pointer)->a->b->c
#define deref4(pointer, a, b, c, d) (pointer)->a->b->c->d
#define fifth_argument(a, b, c, d, fifth, ...) fifth
#define deref(pointer, ...)                                                                        \
	fifth_argument(__VA_ARGS__, deref4, deref3, deref2, deref1, )(pointer, __VA_ARGS__)

/*
 * READ_AT(pointer, a, b): pointer->a->b through an untyped pointer, which must be
 * a variable and must not point to a const type. For example, a file's address was
 * stored in a map at an earlier event:
 *
 *	struct file *file = (struct file *)ref->file;
 *	struct socket *socket = READ_AT(file, private_data);
 */
#define READ_AT(pointer, ...)                                                                      \
	(has_rdonly_cast ? deref(typed(pointer), __VA_ARGS__) : BPF_CORE_READ(pointer, __VA_ARGS__))

/*
 * READ_TYPED(pointer, a, b): pointer->a->b through a typed pointer. It saves the call
 * of bpf_rdonly_cast(). For example, of the current task:
 *
 *	struct task_struct *task = current_task();
 *	struct fdtable *fdt = READ_TYPED(task, files, fdt);
 */
#define READ_TYPED(pointer, ...)                                                                   \
	(has_rdonly_cast ? deref(pointer, __VA_ARGS__) : BPF_CORE_READ(pointer, __VA_ARGS__))

/*
 * READ_POINTER_AT(pointer, a, b): like READ_AT, for a field that is a pointer
 * to a struct; the result is untyped. For example, one step of a walk along a list:
 *
 *	struct hlist_nulls_node *node = (struct hlist_nulls_node *)address;
 *	node = READ_POINTER_AT(node, next);
 *
 * With a typed result, the verifier would walk the rest of the program once for each
 * path that leads to the pointer. So the macro subtracts a null pointer: to the verifier
 * the difference of two pointers is a number, and numbers do not multiply the paths.
 *
 * Not for a field that is a pointer to void or to a pointer: the verifier has no
 * struct type for those, so they are numbers already, and 6.12 refuses to subtract a
 * pointer from a number.
 */
#define READ_POINTER_AT(pointer, ...)                                                              \
	((typeof(deref(pointer,                                                                    \
		       __VA_ARGS__)))(has_rdonly_cast                                              \
					      ? (__u64)deref(typed(pointer), __VA_ARGS__) -        \
							null_pointer()                             \
					      : (__u64)BPF_CORE_READ(pointer, __VA_ARGS__)))

/*
 * The 64-bit word at an address, only with has_rdonly_cast. The cast needs a struct
 * type, and struct list_head begins with a pointer, which is a word.
 */
#define READ_WORD(address) ((__u64)typed((struct list_head *)(address))->next)

/* A null pointer that the verifier takes for a typed one, so that it can be subtracted. */
static __always_inline __u64 null_pointer(void)
{
	return (__u64)bpf_rdonly_cast(NULL, bpf_core_type_id_kernel(struct sock));
}

/*
 * A typed pointer as a number. The verifier refuses a typed pointer where a global function takes
 * a number, and most arithmetic on it.
 */
static __always_inline __u64 address_of(const void *pointer)
{
	__u64 address = 0;

	if (has_rdonly_cast)
		return (__u64)pointer - null_pointer();
	bpf_probe_read_kernel(&address, sizeof(address), &pointer);
	return address;
}

#endif
