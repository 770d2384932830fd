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
	EVENT_END, /* a transition, and what the connection was */
	EVENT_CGROUP,
	EVENT_SOCKET,
};

enum event_flag {
	EVENT_MAPPED = 1 << 0, /* IPv4 over an IPv6 socket (::ffff:a.b.c.d) */
	EVENT_LOCKED = 1 << 1, /* a task held the socket's lock */
	EVENT_TIMED = 1 << 2, /* in_state_ns is known */
	EVENT_WALK_BOUND = 1 << 3, /* whether this is a TIME_WAIT was not found out */
	EVENT_PEER_FIN = 1 << 4, /* to CLOSE: the peer's FIN has come */
	EVENT_NO_LINGER2 =
		1 << 5, /* to CLOSE: TCP_LINGER2 is negative: no FIN_WAIT2 without an owner */
	EVENT_EXPIRED = 1 << 6, /* TIME_WAIT -> CLOSE: by its timer */
	EVENT_ORPHAN = 1 << 7, /* no process has the socket any more, or not yet */
	EVENT_UNSENT = 1 << 8, /* SYN_SENT -> CLOSE: connect() failed before there was a SYN */
	EVENT_ACKED = 1 << 9, /* to CLOSE: all that was sent is acknowledged, the FIN included */
	EVENT_REPAIR = 1 << 10, /* to CLOSE: TCP_REPAIR: nothing is sent */
};

/* Who the socket is in its connection; ROLE_UNKNOWN until it is proven. */
enum socket_role {
	ROLE_UNKNOWN = 0,
	ROLE_CLIENT,
	ROLE_SERVER, /* made by a listener, whether accepted or not */
	ROLE_LISTENER,
};

/* How the owner is known; 0: it is not. */
enum pid_source {
	PID_UNKNOWN = 0,
	PID_TASK, /* it holds the socket's lock, now */
	PID_STORED, /* it did at an earlier transition, and still has the socket */
	PID_ACCEPT, /* it accepted the connection */
	PID_LISTENER, /* it has the listener, who accepts is not known yet */
	PID_SCAN, /* it had the socket open when the tracer started */
};

struct transition_event {
	__u64 timestamp_ns; /* CLOCK_MONOTONIC */
	__u64 cookie; /* 0: this kernel gives none */
	__u64 cgroup_id; /* 0: not known */
	__u64 in_state_ns; /* with EVENT_TIMED */
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
	__u8 new_state; /* the kernel's */
	__u8 time_wait_substate; /* 0: no timewait socket */
	__u8 role; /* enum socket_role */
	__u8 pid_source; /* enum pid_source */
	__u8 reserved;
	__u16 flags; /* enum event_flag */
	__u8 reserved2[2];
};

_Static_assert(sizeof(struct transition_event) == 112, "transition_event has a hole or grew");
_Static_assert(offsetof(struct transition_event, kind) == 100, "kind moved");

struct end_event {
	struct transition_event transition;
	__u64 opened_ns; /* CLOCK_MONOTONIC; 0: before the tracer */
	__u64 established_ns; /* spent in ESTABLISHED */
	__u64 sent_bytes; /* each byte once */
	__u64 received_bytes;
	__u32 retransmits; /* segments */
	__u32 rtt_us; /* smoothed; 0: never measured */
};

_Static_assert(sizeof(struct end_event) == 152, "end_event has a hole or grew");

/* A socket as it is, not in the ring but out of an iterator. */
struct socket_event {
	struct transition_event socket; /* its state is new_state, old_state is 0 */
	__u64 expires_jiffies; /* left to a TIME_WAIT */
	__u32 keepalive_interval; /* net.ipv4.tcp_keepalive_intvl in jiffies: tells their length */
	__u32 reserved;
};

_Static_assert(sizeof(struct socket_event) == 128, "socket_event has a hole or grew");

#define CGROUP_LEVELS 12
#define CGROUP_NAME_LEN 160

/* A cgroup's path, once, before the first event that names its id. */
struct cgroup_event {
	__u64 id;
	__u32 levels; /* from the cgroup up to, but without, the root */
	__u8 truncated; /* there are more levels, or a longer name */
	__u8 kind; /* enum event_kind */
	__u8 reserved[2];
	__u8 names[CGROUP_LEVELS][CGROUP_NAME_LEN]; /* each ends in a NUL */
};

_Static_assert(sizeof(struct cgroup_event) == 1936, "cgroup_event has a hole or grew");

/*
 * One per program and CPU, only ever counting up. Every event that entered ends
 * in exactly one of the others, or was left to the other program (twins.h), or
 * is held until the socket's next one.
 */
struct program_counters {
	__u64 entered;
	__u64 left_to_twin;
	__u64 other_protocol;
	__u64 filtered;
	__u64 emitted;
	__u64 ring_full;
	__u64 ring_busy; /* the ring's lock was not to be had (since 6.18) */
	__u64 held;
	__u64 released; /* held before; now in filtered, emitted, or lost */
	__u64 walk_bound; /* TIME_WAIT or not was not found out; also in one of the above */
	__u64 end_untold; /* ends of TIME_WAITs for which there was no room; in none of the above */
};

#endif
