/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The interface to user space: the events in the ring buffers and the counters. Host
 * byte order except where a comment names another. internal/bpfobj holds the Go types
 * that are generated from this file; internal/decode is the only reader of the events.
 */
#ifndef TCPSHIFT_EVENT_H
#define TCPSHIFT_EVENT_H

#include "kernel.h"

#include <stddef.h>

/* What a sample of a ring, or an element of a snapshot, is. */
enum event_kind {
	EVENT_TRANSITION = 1,
	EVENT_END, /* a socket enters CLOSE; with a summary of the connection */
	EVENT_CGROUP,
	EVENT_SOCKET,
	EVENT_RESET, /* this side has sent a reset, after the socket's transition to CLOSE */
	EVENT_UPDATE, /* a connection that lives; see update.h */
};

/* What an event says besides its fields. "to CLOSE" means: only of such a transition. */
enum event_flag {
	EVENT_MAPPED = 1 << 0, /* IPv4 over an IPv6 socket (::ffff:a.b.c.d) */
	EVENT_LOCKED = 1 << 1, /* a task owned the socket's lock */
	EVENT_TIMED = 1 << 2, /* in_state_ns is known */
	EVENT_TIMEWAIT_UNKNOWN = 1 << 3, /* to CLOSE: perhaps a TIME_WAIT */
	EVENT_PEER_FIN = 1 << 4, /* to CLOSE: the peer's FIN has arrived */
	EVENT_NO_LINGER2 = 1 << 5, /* to CLOSE: TCP_LINGER2 < 0, no FIN_WAIT2 for an orphan */
	EVENT_EXPIRED = 1 << 6, /* TIME_WAIT -> CLOSE: its timer expired */
	EVENT_NO_SOCKET = 1 << 7, /* no struct socket: not accepted yet, or closed */
	EVENT_ALL_ACKED = 1 << 8, /* to CLOSE: the peer has acknowledged all, a FIN included */
	EVENT_REPAIR = 1 << 9, /* to CLOSE: TCP_REPAIR is set, so nothing is sent */
	EVENT_NO_PORT = 1 << 10, /* SYN_SENT -> CLOSE: inet_hash_connect() found no port */
	EVENT_PORT_UNKNOWN = 1 << 11, /* SYN_SENT -> CLOSE: perhaps it found none */
	EVENT_LISTEN_FAILED = 1 << 12, /* LISTEN -> CLOSE: it never was listening */
	EVENT_TCP_RESET = 1 << 13, /* to CLOSE: tcp_reset() ran: for a reset, or late data */
	EVENT_RESET_SENT = 1 << 14, /* to CLOSE: this side has sent a reset before */
	EVENT_RESET_AWAITED = 1 << 15, /* to CLOSE: EVENT_RESET follows if this side resets */
	EVENT_TIMEWAIT_TIMESTAMP = 1 << 16, /* to TIME_WAIT: it has a timestamp of the peer */
	EVENT_OWN_PORT_RANGE = 1 << 17, /* a client that has set IP_LOCAL_PORT_RANGE */
};

/* The socket's part in its connection; ROLE_UNKNOWN until a transition shows it. */
enum socket_role {
	ROLE_UNKNOWN = 0,
	ROLE_CLIENT,
	ROLE_SERVER, /* created by a listener, accepted or not */
	ROLE_LISTENER,
};

/* How the owner is known. */
enum pid_source {
	PID_UNKNOWN = 0,
	PID_TASK, /* it owns the socket's lock at this transition */
	PID_STORED, /* it did at an earlier transition, and has the socket open or closed it last */
	PID_ACCEPT, /* it accepted the connection */
	PID_LISTENER, /* it owns the listener; the process that accepts is not known yet */
	PID_SCAN, /* it had the socket open when the tracer started */
	PID_READ, /* it read from the connection */
};

/*
 * The programs that are attached to one tracepoint, in the order in which the kernel
 * calls them. Every program but the first is a backup for all programs before it, see
 * dedup.h. The rank is also the key of the map counters.
 */
enum program_rank {
	PROGRAM_PRIMARY,
	PROGRAM_BACKUP,
	PROGRAM_SECOND_BACKUP, /* loaded only where programs may be preempted */
	PROGRAMS, /* their number */
};

/* What listen_port returns besides a port. */
enum listen_port_result {
	LISTEN_PORT_PENDING = 1 << 16, /* listen() has not chosen a port yet; no port is so high */
};

/* A transition of a socket, or the end of a TIME_WAIT; EVENT_TRANSITION. */
struct transition_event {
	__u64 timestamp_ns; /* CLOCK_BOOTTIME */
	__u64 cookie; /* 0: not known, see cookie_of() */
	/*
	 * The owner's; at the end of a TIME_WAIT the former owner's; without an owner the socket's;
	 * 0: not known.
	 */
	__u64 cgroup_id;
	__u64 in_state_ns; /* time in old_state; valid with EVENT_TIMED */
	__u8 local_addr[16]; /* network order; IPv4 in the first four bytes */
	__u8 peer_addr[16];
	__u8 comm[TASK_COMM_LEN]; /* of the thread group's leader */
	__u32 netns; /* inode number */
	__u32 uid; /* sk_uid: of the socket, not of pid */
	__u32 pid; /* thread group id in the initial pid namespace */
	__s32 error; /* sk_err, a positive errno; 0: none, or an earlier connection's */
	__u16 local_port; /* host order; 0: none yet */
	__u16 peer_port;
	__u8 kind; /* enum event_kind */
	__u8 family; /* 4 or 6 */
	__u8 old_state; /* enum tcp_state; TIME_WAIT from timewait_end.h, else the tracepoint's */
	__u8 new_state;
	__u8 time_wait_substate; /* enum tcp_state; 0: there is no timewait socket */
	__u8 role; /* enum socket_role */
	__u8 pid_source; /* enum pid_source */
	/*
	 * To TIME_WAIT in the substate FIN_WAIT2: seconds until the timer expires, rounded up, at
	 * most 255; 0: not known. To CLOSE with EVENT_RESET_SENT: as reset_event.reason.
	 */
	__u8 timeout_or_reason;
	__u32 flags; /* enum event_flag */
};

_Static_assert(sizeof(struct transition_event) == 112, "transition_event has a hole or grew");
_Static_assert(offsetof(struct transition_event, kind) == 100, "kind moved");

/* The transition to CLOSE, and what the connection did until then; EVENT_END. */
struct end_event {
	struct transition_event transition;
	__u64 opened_ns; /* CLOCK_BOOTTIME; 0: not known */
	__u64 in_established_ns;
	__u64 sent_bytes; /* without retransmitted bytes */
	__u64 received_bytes;
	__u32 retransmits; /* segments */
	__u32 rtt_us; /* smoothed; 0: never measured */
};

_Static_assert(sizeof(struct end_event) == 152, "end_event has a hole or grew");

/* A connection that lives: its state is new_state, old_state is 0; EVENT_UPDATE. */
struct update_event {
	struct end_event end; /* what it did until now */
	__u32 snd_cwnd; /* congestion window, segments */
	__u32 reserved;
};

_Static_assert(sizeof(struct update_event) == 160, "update_event has a hole or grew");

/*
 * A reset that this side sent; EVENT_RESET. It belongs to the transition to CLOSE with the same
 * cookie. Without a cookie the addresses, the ports and the namespace show which one that is.
 */
struct reset_event {
	__u64 timestamp_ns; /* CLOCK_BOOTTIME */
	__u64 cookie; /* 0: none was created, or this kernel has none in tracing programs */
	__u8 local_addr[16]; /* as in transition_event */
	__u8 peer_addr[16];
	__u32 netns;
	__u16 local_port;
	__u16 peer_port;
	__u8 kind; /* enum event_kind */
	__u8 family; /* 4 or 6 */
	__u8 reason; /* enum sk_rst_reason plus 1; 0: not known */
	__u8 reserved[5];
};

_Static_assert(sizeof(struct reset_event) == 64, "reset_event has a hole or grew");

/* A socket as an iterator finds it; not in a ring but in the iterator's output. */
struct socket_event {
	struct transition_event socket; /* new_state is its state, old_state is 0 */
	__s64 jiffies_left; /* until the timer of a TIME_WAIT expires; negative: overdue */
	/*
	 * net.ipv4.tcp_keepalive_intvl in jiffies. User space knows the value in seconds, so
	 * it can compute the length of a jiffy.
	 */
	__u32 keepalive_intvl_jiffies;
	/* The others are of a full socket. */
	__u32 retransmits; /* segments */
	__u64 sent_bytes; /* as in end_event */
	__u64 received_bytes;
	__u32 rtt_us; /* smoothed; 0: never measured */
	__u32 snd_cwnd; /* congestion window, segments */
	__u32 receive_queue; /* bytes; of a listener, connections that wait for accept() */
	__u32 send_queue; /* bytes; of a listener, the limit of the others */
	__u64 reserved; /* the size distinguishes it from an update_event */
};

_Static_assert(sizeof(struct socket_event) == 168, "socket_event has a hole or grew");

/* Sockets that count together: of one user and one owner, in one state. */
struct socket_group {
	__u64 cgroup_id; /* the owner's, else the socket's; 0: not known */
	__u8 comm[TASK_COMM_LEN]; /* of the owner's main thread; without an owner, zeros */
	__u32 state; /* enum tcp_state */
	__u32 uid; /* sk_uid; of a request its listener's; of a TIME_WAIT 0 */
};
_Static_assert(sizeof(struct socket_group) == 32, "socket_group has a hole or grew");

/* Levels of a path in one event; see truncated. */
#define CGROUP_LEVELS 12
#define CGROUP_NAME_LEN 256 /* NAME_MAX and a NUL, so that every name fits */

/*
 * A cgroup's path. It comes before the first event that has its id, unless the ring was full
 * then, and may come again.
 */
struct cgroup_event {
	__u64 id;
	__u32 levels; /* the number of names; the root has none */
	__u8 truncated; /* the path has more levels */
	__u8 kind; /* enum event_kind */
	__u16 claimed; /* so many of the first names a user other than root may have chosen */
	__u8 names[CGROUP_LEVELS]
		  [CGROUP_NAME_LEN]; /* from the cgroup upwards; each ends in a NUL */
};

_Static_assert(sizeof(struct cgroup_event) == 3088, "cgroup_event has a hole or grew");

/*
 * One per program and CPU; they only grow. Each event that entered is counted once in
 * deduplicated, other_protocol, filtered, unsampled, emitted, ring_full, ring_busy or deferred. A
 * deferred one is counted a second time when it is resumed, so the sum is entered + resumed.
 */
struct program_counters {
	__u64 entered;
	__u64 deduplicated; /* an earlier program of the chain had handled it */
	__u64 other_protocol;
	__u64 filtered;
	__u64 emitted;
	__u64 ring_full;
	__u64 ring_busy; /* the ring's lock could not be taken (since 6.15) */
	__u64 deferred; /* until the socket's next transition */
	__u64 resumed; /* deferred before; now also in another counter of what became of it */
	__u64 timewait_unknown; /* perhaps a TIME_WAIT; also in one of the above */
	__u64 timewait_ends_lost; /* ends of TIME_WAITs, which are in none of the above */
	__u64 lost_resets; /* resets whose event found the ring full or busy */
	__u64 state_unavailable; /* no sock_state could be created; also in one of the above */
	__u64 missed_updates; /* of live connections, for lack of room; in none of the above */
	__u64 unsampled; /* the sample leaves out the socket: see sample.h */
	__u64 unsampled_ends; /* of these, those that end a connection, with want_ends */
};

#endif
