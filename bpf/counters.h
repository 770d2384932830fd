/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The counters of each program; struct program_counters defines them. */
#ifndef TCPSHIFT_COUNTERS_H
#define TCPSHIFT_COUNTERS_H

#include "kernel.h"

#include <bpf/bpf_helpers.h>
#include "config.h"
#include "event.h"

/*
 * By enum program_rank; user space sets the size to chain_length. An array, so all
 * entries exist from the start and it cannot be full. The programs add, user space reads,
 * nobody deletes.
 */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, PROGRAMS);
	__type(key, __u32);
	__type(value, struct program_counters);
} counters SEC(".maps");

/* This CPU's counters of a program. Never NULL; only the verifier needs the check. */
static __always_inline struct program_counters *counters_of(enum program_rank rank)
{
	__u32 key = rank;

	return bpf_map_lookup_elem(&counters, &key);
}

/* Only one program writes this counter on this CPU, but up to 6.0 it may interrupt itself. */
#define count(counter)                                                                             \
	do {                                                                                       \
		if (may_interrupt_itself)                                                          \
			__sync_fetch_and_add(&(counter), 1);                                       \
		else                                                                               \
			(counter)++;                                                               \
	} while (0)

/* For a counter that programs of several tracepoints write. */
#define count_shared(counter) ((void)__sync_fetch_and_add(&(counter), 1))

#endif
