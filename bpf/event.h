/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What crosses to user space: the events in the ring buffer and the counters.
 * Host byte order except where a comment says otherwise. internal/bpfobj holds
 * the Go types made from this file, internal/decode is their only reader.
 */
#ifndef TCPSHIFT_EVENT_H
#define TCPSHIFT_EVENT_H

#include <stddef.h>
#include "kernel.h"

enum event_kind {
	EVENT_TRANSITION = 1,
};

enum event_flag {
	EVENT_MAPPED = 1 << 0, /* IPv4 over an IPv6 socket (::ffff:a.b.c.d) */
	EVENT_OWNER = 1 << 1, /* pid and comm are known */
};

/* Who the socket is in its connection; ROLE_UNKNOWN until it is proven. */
enum socket_role {
	ROLE_UNKNOWN = 0,
	ROLE_CLIENT,
	ROLE_SERVER, /* made by a listener, whether accepted or not */
	ROLE_LISTENER,
};

struct transition_event {
	__u64 timestamp_ns; /* CLOCK_MONOTONIC */
	__u64 cookie; /* 0: this kernel gives none */
	__u8 local_addr[16]; /* network order; IPv4 in the first four bytes */
	__u8 peer_addr[16];
	__u8 comm[TASK_COMM_LEN]; /* of the thread group's leader */
	__u32 netns; /* inode number */
	__u32 uid;
	__u32 pid; /* thread group id in the initial pid namespace */
	__s32 error; /* sk_err, a positive errno */
	__u16 local_port; /* 0: none yet */
	__u16 peer_port;
	__u8 kind; /* enum event_kind */
	__u8 family; /* 4 or 6 */
	__u8 old_state;
	__u8 new_state;
	__u8 role; /* enum socket_role */
	__u8 flags; /* enum event_flag */
	__u8 reserved[6];
};

_Static_assert(sizeof(struct transition_event) == 96, "transition_event has a hole or grew");
_Static_assert(offsetof(struct transition_event, kind) == 84, "kind moved");

/*
 * One per program and CPU, only ever counting up. Every event that entered ends
 * in exactly one of the others, or was left to the other program (twins.h).
 */
struct program_counters {
	__u64 entered;
	__u64 left_to_twin;
	__u64 other_protocol;
	__u64 filtered;
	__u64 emitted;
	__u64 ring_full;
	__u64 ring_busy; /* the ring's lock was not to be had (since 6.18) */
};

#endif
