/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Which object's programs handle an event, where a reload may change the filters.
 *
 * Filters are constants, so other filters need another object. It shares all maps of the first
 * object except those of the filters, so sock_states, marks, counters and rings keep their content.
 * Of a chain only the entry programs are attached, those of the first object. Each calls the
 * program of its rank in an array. A reload puts the new programs into the arrays, one by one. So
 * one program of each rank runs for an event, from either object, and the marks of dedup.h are
 * valid: one program handles the event, by the filters of its object.
 *
 * The entry programs stay attached, so they are the programs whose recursion_misses count.
 */
#ifndef TCPSHIFT_ENTRY_H
#define TCPSHIFT_ENTRY_H

#include "kernel.h"

#include <bpf/bpf_helpers.h>
#include "event.h"

/*
 * The programs of a chain, by enum program_rank. User space inserts before it attaches the entry
 * programs, and replaces at a reload; the entry programs read. Each tracepoint has an array,
 * because some kernels refuse programs with different arguments in one array
 * (bpf_prog_map_compatible()). An array cannot be full.
 */
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, PROGRAMS);
	__type(key, __u32);
	__type(value, __u32);
} set_state_programs SEC(".maps"), reset_sent_programs SEC(".maps");

/* Continues in the program of this rank; 0 if there is none, which user space prevents. */
#define enter(programs, ctx, rank) (bpf_tail_call_static((void *)(ctx), &(programs), rank), 0)

#endif
