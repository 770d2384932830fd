/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What is remembered of a socket from one of its transitions to the next. */
#ifndef TCPSHIFT_MEMORY_H
#define TCPSHIFT_MEMORY_H

#include <bpf/bpf_helpers.h>
#include "config.h"
#include "event.h"

#define HOLDER_SOURCE 0x3f /* enum pid_source */
#define HOLDER_SELF 0x40 /* it is the tracer */
#define HOLDER_CLOSED 0x80 /* it was seen to close the socket */

/* A process, and by what it holds the socket; owner.h says when to believe it. */
struct holder {
	__u64 leader; /* its task_struct: an address to look at, no reference */
	__u64 files; /* its files_struct, likewise, for when the leader has exited alone */
	__u64 started_ns; /* of the leader: a pid can come back, this pair cannot */
	__u64 file; /* the struct file of the socket, or of its listener */
	__s64 cookie; /* of the socket behind that file */
	__u64 cgroup_id;
	__u8 comm[TASK_COMM_LEN];
	__u8 how; /* enum pid_source, and the bits below */
	__s32 fd : 24; /* where file may be in its table; -1: not known */
	__u32 pid; /* 0: nobody */
};

/* What every transition looks at comes first, in two lines of the cache. */
struct socket_memory {
	__u64 since_ns; /* when it entered its state; 0: not known */
	__u64 opened_ns; /* when it left CLOSE; 0: not known */
	__u64 established_ns; /* spent in ESTABLISHED */
	__u64 held_ns; /* when the transition that is held back happened; 0: none */
	__u32 netns; /* 0: not looked up yet */
	__u16 mark; /* twins.h */
	__u8 role; /* enum socket_role */
	bool is_found; /* there is: */
	struct holder owner; /* written at transitions only */
	struct holder found; /* written by everything else */
};

/* With the kernel's 72 bytes before it, it has one object of 256 bytes to itself. */
_Static_assert(sizeof(struct socket_memory) <= 184, "socket_memory needs twice the memory");

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

static __always_inline __u8 source_of(const struct holder *h)
{
	return h->how & HOLDER_SOURCE;
}

static __always_inline void set_source(struct holder *h, enum pid_source source)
{
	h->how = (h->how & ~HOLDER_SOURCE) | source;
}

/*
 * Transitions come in all the while, on other CPUs too, and what they learn is
 * better; so this writes where they do not, and what makes it valid last.
 */
static __always_inline void note_found(struct socket_memory *m, const struct holder *h)
{
	m->is_found = false;
	barrier();
	m->found = *h;
	barrier();
	m->is_found = true;
}

static __always_inline enum socket_role role_shown_by(int old_state, int new_state)
{
	if (old_state == TCP_LISTEN && new_state == TCP_SYN_RECV)
		return ROLE_SERVER;
	if (old_state == TCP_LISTEN || new_state == TCP_LISTEN)
		return ROLE_LISTENER;
	if (old_state == TCP_SYN_SENT || new_state == TCP_SYN_SENT)
		return ROLE_CLIENT;
	return ROLE_UNKNOWN;
}

/* A role once shown stays until another one is: a socket may be used again. */
static __always_inline enum socket_role recall_role(struct socket_memory *m, int old_state,
						    int new_state)
{
	enum socket_role shown = role_shown_by(old_state, new_state);

	if (!m)
		return shown;
	if (shown != ROLE_UNKNOWN)
		m->role = shown;
	return m->role;
}

/*
 * A child begins with its listener's memory: the owner stays as a first answer,
 * named as such; the times are not the child's.
 */
static __always_inline void begin_child(struct socket_memory *m)
{
	if (!m->owner.pid && m->is_found)
		m->owner = m->found;
	m->owner.how = PID_LISTENER | (m->owner.how & HOLDER_SELF);
	m->is_found = false;
	m->since_ns = 0;
}

/* How long the socket was in the state that it leaves now; 0: not known. */
static __always_inline __u64 recall_times(struct socket_memory *m, int old_state, int new_state,
					  __u64 now_ns)
{
	__u64 in_state_ns = m->since_ns ? now_ns - m->since_ns : 0;

	if (old_state == TCP_CLOSE || (old_state == TCP_LISTEN && new_state == TCP_SYN_RECV)) {
		m->opened_ns = now_ns;
		m->established_ns = 0;
	}
	if (old_state == TCP_ESTABLISHED)
		m->established_ns += in_state_ns;
	if (old_state != new_state)
		m->since_ns = now_ns;
	return in_state_ns;
}

#endif
