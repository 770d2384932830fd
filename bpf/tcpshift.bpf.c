// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The hooks. One tracepoint, sock:inet_sock_set_state, handled by two equal
 * programs (twins.h says why); the order in which they are attached matters.
 */
#include "kernel.h"

#include <bpf/bpf_helpers.h>
#include "config.h"
#include "counters.h"
#include "endpoints.h"
#include "event.h"
#include "filter.h"
#include "memory.h"
#include "owner.h"
#include "ring.h"
#include "twins.h"

/* Everything that is known about one transition, on its way to the ring. */
struct transition {
	const struct sock *sk;
	int old_state;
	int new_state;
	struct socket_memory *memory; /* may be NULL */
	struct endpoints ep;
	struct owner owner;
	enum socket_role role;
};

static __always_inline bool wanted(const struct transition *t)
{
	if (!states_wanted(t->old_state, t->new_state))
		return false;
	if (filter_roles && !has_bit(filter_roles, t->role))
		return false;
	return socket_wanted(t->sk, &t->ep) && owner_wanted(&t->owner);
}

static __always_inline void describe(const struct transition *t, struct transition_event *e)
{
	e->cookie = has_socket_cookie ? bpf_get_socket_cookie((void *)t->sk) : 0;
	__builtin_memcpy(e->local_addr, t->ep.local_addr, sizeof(e->local_addr));
	__builtin_memcpy(e->peer_addr, t->ep.peer_addr, sizeof(e->peer_addr));
	__builtin_memcpy(e->comm, t->owner.comm, sizeof(e->comm));
	e->netns = t->sk->__sk_common.skc_net.net->ns.inum;
	e->uid = t->sk->sk_uid.val;
	e->pid = t->owner.pid;
	e->error = t->sk->sk_err;
	e->local_port = t->ep.local_port;
	e->peer_port = t->ep.peer_port;
	e->kind = EVENT_TRANSITION;
	e->family = t->ep.family;
	e->old_state = t->old_state;
	e->new_state = t->new_state;
	e->role = t->role;
	e->flags = (t->ep.mapped ? EVENT_MAPPED : 0) | (t->owner.pid ? EVENT_OWNER : 0);
	__builtin_memset(e->reserved, 0, sizeof(e->reserved));
}

static __always_inline void emit(const struct transition *t, struct program_counters *counters)
{
	struct transition_event *e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);

	if (!e) {
		count_lost(counters);
		return;
	}
	/* Reserving orders the events of all CPUs; a time taken before it would not agree. */
	e->timestamp_ns = bpf_ktime_get_ns();
	describe(t, e);
	bpf_ringbuf_submit(e, wake_flags(e->timestamp_ns));
	count(counters->emitted);
}

static __always_inline void handle(struct transition *t, struct program_counters *counters)
{
	if (t->sk->sk_protocol != IPPROTO_TCP) {
		count(counters->other_protocol);
		return;
	}
	t->role = read_role(t->memory, t->old_state, t->new_state);
	read_endpoints(t->sk, &t->ep);
	read_owner(t->sk, t->old_state, &t->owner);
	if (!wanted(t)) {
		count(counters->filtered);
		return;
	}
	emit(t, counters);
}

static __always_inline int on_transition(enum twin twin, const struct sock *sk, int old_state,
					 int new_state)
{
	struct transition t = {.sk = sk, .old_state = old_state, .new_state = new_state};
	struct program_counters *counters = counters_of(twin);

	if (!counters)
		return 0;
	count(counters->entered);
	t.memory = memory_of(sk);
	if (!claim(twin, sk, t.memory, old_state, new_state))
		count(counters->left_to_twin);
	else
		handle(&t, counters);
	return 0;
}

/* TP_PROTO(const struct sock *sk, const int oldstate, const int newstate),
 * include/trace/events/sock.h */
SEC("tp_btf/inet_sock_set_state") int set_state_first(const __u64 *ctx)
{
	return on_transition(TWIN_FIRST, (const struct sock *)ctx[0], (int)ctx[1], (int)ctx[2]);
}

SEC("tp_btf/inet_sock_set_state") int set_state_second(const __u64 *ctx)
{
	return on_transition(TWIN_SECOND, (const struct sock *)ctx[0], (int)ctx[1], (int)ctx[2]);
}

/* A type reaches the Go side only if something here refers to it. */
#define EXPORT_TYPE(tag, name) const tag name *export_##name __attribute__((unused))

EXPORT_TYPE(struct, transition_event);
EXPORT_TYPE(enum, event_kind);
EXPORT_TYPE(enum, event_flag);
EXPORT_TYPE(enum, socket_role);
EXPORT_TYPE(enum, side);
EXPORT_TYPE(enum, member_kind);
EXPORT_TYPE(enum, twin);

/* Some of the helpers are only for GPL-compatible programs; the licence is dual. */
char LICENSE[] SEC("license") = "Dual BSD/GPL";
