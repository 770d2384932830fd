/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* How many events took which way. */
#ifndef TCPSHIFT_COUNTERS_H
#define TCPSHIFT_COUNTERS_H

#include <bpf/bpf_helpers.h>
#include "config.h"
#include "event.h"

enum twin {
	TWIN_FIRST,
	TWIN_SECOND,
	TWINS,
};

/* The programs add, user space reads; never full, never deleted. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, TWINS);
	__type(key, __u32);
	__type(value, struct program_counters);
} counters SEC(".maps");

static __always_inline struct program_counters *counters_of(enum twin twin)
{
	__u32 key = twin;

	return bpf_map_lookup_elem(&counters, &key);
}

/* Each program has counters of its own on each CPU; up to 6.0 it can interrupt itself there. */
#define count(counter)                                                                             \
	do {                                                                                       \
		if (may_interrupt_itself)                                                          \
			__sync_fetch_and_add(&(counter), 1);                                       \
		else                                                                               \
			(counter)++;                                                               \
	} while (0)

/* For what other programs count as well. */
#define count_shared(counter) ((void)__sync_fetch_and_add(&(counter), 1))

#endif
