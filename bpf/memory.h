/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What is remembered of a socket from one of its transitions to the next. */
#ifndef TCPSHIFT_MEMORY_H
#define TCPSHIFT_MEMORY_H

#include <bpf/bpf_helpers.h>
#include "config.h"
#include "event.h"

struct socket_memory {
	__u16 mark; /* twins.h */
	__u8 role; /* enum socket_role */
};

/*
 * The programs insert at a socket's first transition; the kernel frees it with
 * the socket. A child starts with a copy of its listener's, before its first
 * transition is traced. Full (optmem_max, no memory): the event still goes out,
 * with less in it.
 */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_CLONE);
	__type(key, int);
	__type(value, struct socket_memory);
} memory SEC(".maps");

static __always_inline struct socket_memory *memory_of(const struct sock *sk)
{
	if (!has_socket_storage)
		return NULL;
	return bpf_sk_storage_get(&memory, (void *)sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
}

#endif
