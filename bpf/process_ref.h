/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* A reference to a process that has a socket open; owner.h decides when it is valid. */
#ifndef TCPSHIFT_PROCESS_REF_H
#define TCPSHIFT_PROCESS_REF_H

#include "kernel.h"

#include <bpf/bpf_helpers.h>
#include "event.h"

/* The parts of process_ref.source_and_flags. */
#define REF_SOURCE_MASK 0x3f /* enum pid_source */
#define REF_SELF 0x40 /* the process is the tracer */
#define REF_CLOSED 0x80 /* the process was seen closing the socket */

/*
 * The addresses are not counted references: what they point to may have been freed and
 * reused, so each use compares something that is not reused (process.h).
 */
struct process_ref {
	__u64 leader; /* address of the thread group leader's task_struct */
	__u64 files; /* address of its files_struct, for a leader that exits before its threads */
	__u64 started_ns; /* the leader's start time: unlike a pid, (pid, start) is not reused */
	__u64 file; /* address of the struct file of the socket, or of its listener */
	__s64 cookie; /* of the socket behind that file */
	__u8 source_and_flags;
	__s32 fd : 24; /* a descriptor that may refer to the file; -1: not known */
	__u32 pid; /* 0: the reference is empty */
};

/* A process with its name and cgroup, which are still emitted after it has exited. */
struct owner {
	struct process_ref ref;
	__u64 cgroup_id;
	__u8 comm[TASK_COMM_LEN];
};

/* How the process was found: enum pid_source, without the flags. */
static __always_inline __u8 source_of(const struct process_ref *ref)
{
	return ref->source_and_flags & REF_SOURCE_MASK;
}

/* Replaces how the process was found, and keeps the flags. */
static __always_inline void set_source(struct process_ref *ref, enum pid_source source)
{
	ref->source_and_flags = (ref->source_and_flags & ~REF_SOURCE_MASK) | source;
}

#endif
