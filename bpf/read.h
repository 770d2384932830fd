/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * How to look into kernel memory that may be gone by now. A wrong address gives
 * zeros, in both ways: by a helper, or, some ten times as fast, by plain loads of a
 * pointer that has been declared to be of a type.
 */
#ifndef TCPSHIFT_READ_H
#define TCPSHIFT_READ_H

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include "config.h"

/* Since 6.2. */
void *bpf_rdonly_cast(const void *pointer, __u32 type) __ksym __weak;

#define typed(pointer)                                                                             \
	((typeof(pointer))bpf_rdonly_cast(pointer, bpf_core_type_id_kernel(typeof(*(pointer)))))

#define follow1(pointer, a) (pointer)->a
#define follow2(pointer, a, b) (pointer)->a->b
#define follow3(pointer, a, b, c) (pointer)->a->b->c
#define follow4(pointer, a, b, c, d) (pointer)->a->b->c->d
#define follow(pointer, ...) ___apply(follow, ___narg(__VA_ARGS__))(pointer, __VA_ARGS__)

/* pointer->a->b->c; the pointer is a variable, and not to a const type. */
#define READ(pointer, ...)                                                                         \
	(has_plain_reads ? follow(typed(pointer), __VA_ARGS__)                                     \
			 : BPF_CORE_READ(pointer, __VA_ARGS__))

/* The same of a pointer whose type the verifier knows already: cheaper. */
#define FOLLOW(pointer, ...)                                                                       \
	(has_plain_reads ? follow(pointer, __VA_ARGS__) : BPF_CORE_READ(pointer, __VA_ARGS__))

/*
 * The same where that is a pointer to a struct. The verifier takes the difference of two
 * pointers, one of them null, for a number, and so does not follow what is done
 * with it for each way in which it came to be. Not for a pointer to void or to a
 * pointer: that is a number to it already, from which on 6.12 it lets no pointer be
 * subtracted.
 */
#define READ_POINTER(pointer, ...)                                                                 \
	((typeof(follow(pointer,                                                                   \
			__VA_ARGS__)))(has_plain_reads                                             \
					       ? (__u64)follow(typed(pointer), __VA_ARGS__) -      \
							 null_pointer()                            \
					       : (__u64)BPF_CORE_READ(pointer, __VA_ARGS__)))

/* A word anywhere, with has_plain_reads: whatever begins with a pointer serves as its type. */
#define READ_WORD(address) ((__u64)typed((struct list_head *)(address))->next)

static __always_inline __u64 null_pointer(void)
{
	return (__u64)bpf_rdonly_cast(NULL, bpf_core_type_id_kernel(struct sock));
}

/* A pointer as a mere number, which the verifier lets pass into a global function. */
static __always_inline __u64 address_of(const void *pointer)
{
	__u64 address = 0;

	if (has_plain_reads)
		return (__u64)pointer - null_pointer();
	bpf_probe_read_kernel(&address, sizeof(address), &pointer);
	return address;
}

#endif
