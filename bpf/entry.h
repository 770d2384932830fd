/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Which object's programs handle an event, where a reload may change the filters.
 *
 * Filters are constants, so other filters need another object. It shares with the first one all
 * maps but those of the filters: sock_states, marks, counters and rings go on. Only the entry
 * programs of the first object are attached. Each calls the program of its rank in an array. A
 * reload puts the programs of the new object into the arrays, one after the other. So each program
 * of a chain runs once for an event, whichever object it is from, and the marks of dedup.h hold:
 * one program handles the event, by its own object's filters.
 *
 * recursion_misses are those of the entry programs, which are attached all the time.
 */
#ifndef TCPSHIFT_ENTRY_H
#define TCPSHIFT_ENTRY_H

#include "kernel.h"

#include <bpf/bpf_helpers.h>
#include "event.h"

/*
 * The programs of a chain, by enum program_rank. User space inserts before it attaches the entry
 * programs, and replaces at a reload; the entry programs read. An array for each tracepoint:
 * some kernels refuse programs with other arguments in one (bpf_prog_map_compatible()). An
 * array, so it cannot be full.
 */
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, PROGRAMS);
	__type(key, __u32);
	__type(value, __u32);
} set_state_programs SEC(".maps"), reset_sent_programs SEC(".maps");

/* Continues in the program of this rank; returns 0 if there is none, which user space prevents. */
#define enter(programs, ctx, rank) (bpf_tail_call_static((void *)(ctx), &(programs), rank), 0)

#endif
