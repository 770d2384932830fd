/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Which side reset a connection. sk_err does not show it: tcp_reset() sets the same error
 * for a reset that has arrived and for data that arrives after close() here, or after the
 * peer's FIN, which this side answers with a reset.
 *
 * The kernel has a tracepoint at the start of tcp_reset(), before the transition to CLOSE,
 * and one for each reset that this side sends. Most of those follow the transition to
 * CLOSE: close() with data unread, SO_LINGER 0, data after close() or after the peer's FIN.
 * They are emitted as an EVENT_RESET. Resets of a timer, of ss -K and of MPTCP come before
 * the transition; they are noted, and the transition reports them.
 */
#ifndef TCPSHIFT_RESET_H
#define TCPSHIFT_RESET_H

#include "kernel.h"

#include <bpf/bpf_helpers.h>
#include "config.h"
#include "counters.h"
#include "dedup.h"
#include "endpoints.h"
#include "event.h"
#include "event_ctx.h"
#include "filter.h"
#include "read.h"
#include "ring.h"
#include "sample.h"
#include "sock_state.h"
#include "sock_state_lookup.h"
#include "transition.h"

/*
 * The note of a socket that has no sock_state when the note is made: without socket storage,
 * or the socket is older than the tracer, the scan did not find it, and it has made no
 * transition since.
 */
struct socket_reset_note {
	__u64 sk; /* the socket's address; 0: none */
	struct reset_note note;
};

/*
 * The latest note of this CPU. The key is 1 if a task owns the socket's lock, else 0, so that a
 * softirq does not overwrite the note of the task that it interrupts. The programs of this file
 * insert; the transition to CLOSE, which follows within the same call, reads and deletes, also if a
 * filter drops it. A later note overwrites.
 */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, struct socket_reset_note);
} reset_notes SEC(".maps");

/* Where this CPU keeps the note of a socket; it may have another socket's now. */
static __always_inline struct socket_reset_note *reset_note_slot(const struct sock *sk)
{
	__u32 key = sk->sk_lock.owned != 0;

	return bpf_map_lookup_elem(&reset_notes, &key);
}

/*
 * Keeps the note for the transition to CLOSE that follows: in the socket's sock_state, or on this
 * CPU if the socket has none. It replaces an earlier note.
 */
static __always_inline void note_reset(const struct sock *sk, struct reset_note note)
{
	struct sock_state *s = find_sock_state(sk, sk->__sk_common.skc_state);
	struct socket_reset_note *here;

	if (s) {
		make_state_own(s, address_of(sk));
		s->reset = note;
		return;
	}
	here = reset_note_slot(sk);
	if (!here)
		return;
	here->sk = address_of(sk);
	here->note = note;
}

/*
 * Moves this CPU's note with this key to the reset of the event_ctx in the slot, if it is of the
 * socket with the address sk; otherwise it changes nothing. Returns 0. Global, so that the verifier
 * walks it only once; therefore it takes numbers, not pointers.
 */
__noinline int take_cpu_reset_note(__u32 slot, __u32 key, __u64 sk)
{
	struct socket_reset_note *here = bpf_map_lookup_elem(&reset_notes, &key);
	struct event_ctx *ec = event_ctx_at(slot);

	if (!here || !ec || here->sk != sk)
		return 0;
	ec->reset = here->note;
	here->sk = 0;
	return 0;
}

/*
 * At a transition to CLOSE: copies what was noted of a reset to ec->reset. A sock_state with
 * since_ns was there before this transition, so the note is in it. A sock_state without since_ns
 * may have been created by this transition, after the note was made; then the note is taken from
 * this CPU.
 *
 * Must be called before a filter drops the transition, or the note stays on this CPU. A later
 * socket at the same address would get it.
 */
static __always_inline void take_reset_note(const struct transition *t)
{
	const struct sock_state *s = t->sock_state;

	t->ec->reset = s ? s->reset : (struct reset_note){};
	if ((s && s->since_ns) || (!has_receive_reset && !has_send_reset))
		return;
	take_cpu_reset_note(t->slot, t->sk->sk_lock.owned != 0, address_of(t->sk));
}

/*
 * Whether this side may still send a reset for the connection after this transition to CLOSE, and
 * an EVENT_RESET would report it. Never where the kernel does not show the resets that it sends.
 */
static __always_inline bool may_be_followed_by_reset(const struct event_ctx *ec)
{
	if (!has_send_reset || is_timewait(ec->timewait))
		return false;
	switch (ec->old_state) {
	case TCP_CLOSE:
	case TCP_LISTEN:
	case TCP_SYN_SENT:
		return false;
	}
	return true;
}

/* TCP sockets only: not a timewait socket or a request, and not NULL, which reads as 0. */
static __always_inline bool is_full_tcp_socket(const struct sock *sk)
{
	switch (sk->__sk_common.skc_state) {
	case 0:
	case TCP_TIME_WAIT:
	case TCP_NEW_SYN_RECV:
		return false;
	}
	return sk->sk_protocol == IPPROTO_TCP;
}

/*
 * States that a socket does not leave when it sends a reset: for a segment with a wrong
 * acknowledgment, which says nothing about the connection. In SYN_RECV also ss -K sends one,
 * before it ends the connection; the error shows that.
 */
static __always_inline bool stays_after_reset(__u8 state)
{
	return state == TCP_LISTEN || state == TCP_SYN_SENT || state == TCP_SYN_RECV;
}

/*
 * Emits the event; reason is that of struct reset_event. User space drops the event if it has not
 * read the transition to CLOSE, so filters on owners and states need no check.
 */
static __always_inline void emit_reset(enum program_rank rank, const struct sock *sk, __u8 reason)
{
	struct program_counters *counters = counters_of(rank);
	struct net *net = READ_AT(sk, __sk_common.skc_net.net);
	struct reset_event *e;
	struct endpoints ep;
	void *ring = this_cpu_ring();
	__u32 netns = READ_AT(net, ns.inum);

	/* The port is in inet_sport, as at the transition to CLOSE. */
	read_endpoints(sk, TCP_ESTABLISHED, TCP_CLOSE, &ep);
	if (!ring || !netns_matches(netns) || !endpoints_match(&ep))
		return;
	/* Only to save room in the ring: user space would drop the event. */
	if (has_socket_cookie && !is_cookie_in_sample(sk->__sk_common.skc_cookie.counter))
		return;
	e = bpf_ringbuf_reserve(ring, sizeof(*e), 0);
	if (!e) {
		if (counters)
			count_shared(counters->lost_resets);
		return;
	}
	e->timestamp_ns = bpf_ktime_get_boot_ns();
	e->cookie = has_socket_cookie ? sk->__sk_common.skc_cookie.counter : 0;
	__builtin_memcpy(e->local_addr, ep.local_addr, sizeof(e->local_addr));
	__builtin_memcpy(e->peer_addr, ep.peer_addr, sizeof(e->peer_addr));
	e->netns = netns;
	e->local_port = ep.local_port;
	e->peer_port = ep.peer_port;
	e->kind = EVENT_RESET;
	e->family = ep.family;
	e->reason = reason;
	__builtin_memset(e->reserved, 0, sizeof(e->reserved));
	bpf_ringbuf_submit(e, wakeup_flags(ring, e->timestamp_ns));
}

/*
 * Emits the event, unless an earlier program of the chain has. The mark has
 * both states 0, which no transition has. It may be lost where a task is moved
 * between two programs; user space ignores the second event of one reset.
 */
static __always_inline void emit_reset_once(enum program_rank rank, const struct sock *sk,
					    __u8 reason)
{
	if (rank != PROGRAM_PRIMARY && take_handled_mark_of_this_cpu(rank, sk, state_pair_of(0, 0)))
		return;
	emit_reset(rank, sk, reason);
	if (has_successor(rank))
		mark_handled(sk, 0, 0);
}

/*
 * tcp_reset() begins: for a reset that has arrived, or for data after close() or after the
 * peer's FIN. Each program of the chain makes the note, and they make the same one.
 */
static __always_inline int on_reset_received(const struct sock *sk)
{
	if (is_full_tcp_socket(sk) && sk->__sk_common.skc_state != TCP_CLOSE)
		note_reset(sk, (struct reset_note){.tcp_reset = true});
	return 0;
}

/*
 * This side sends a reset; reason is a value of enum sk_rst_reason. sk may be NULL, or a
 * timewait socket, where a reset answers a segment.
 */
static __always_inline int on_reset_sent(enum program_rank rank, const struct sock *sk,
					 __u64 reason)
{
	__u8 code = send_reset_has_reason && reason < 255 ? reason + 1 : 0;

	if (!sk || !is_full_tcp_socket(sk))
		return 0;
	if (sk->__sk_common.skc_state == TCP_CLOSE)
		emit_reset_once(rank, sk, code);
	else if (!stays_after_reset(sk->__sk_common.skc_state))
		note_reset(sk, (struct reset_note){.sent = true, .reason = code});
	return 0;
}

#endif
