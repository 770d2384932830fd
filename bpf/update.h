/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What a connection has done so far, while it lives (--updates).
 *
 * An iterator walks the connections of one network namespace. Since 5.15 (commit 04c7820b776f) it
 * owns the lock of the socket that it shows, so no transition happens meanwhile: an update has an
 * earlier time than the end of its connection, and the reader of the rings gets it before the end.
 */
#ifndef TCPSHIFT_UPDATE_H
#define TCPSHIFT_UPDATE_H

#include "kernel.h"

#include <bpf/bpf_helpers.h>
#include "bytes.h"
#include "config.h"
#include "counters.h"
#include "dump.h"
#include "emit.h"
#include "event.h"
#include "event_ctx.h"
#include "filter.h"
#include "owner.h"
#include "ring.h"
#include "sock_state.h"
#include "sock_state_lookup.h"

/* The slot in event_ctx_scratch, behind those of programs at tracepoints. One walk at a time. */
#define UPDATE_SLOT (2 * chain_length)

/*
 * After so many sockets the program writes a byte. User space reads one byte at a time, so this
 * ends its read(2), and it pauses to keep its share of CPU time. 1: the ring is crowded; else 0.
 */
#define SOCKETS_IN_READ 64

/* Copies what is stored about the socket to ec. A sock_state may still be the listener's. */
static __always_inline void load_live_state(const struct sock *sk, struct event_ctx *ec)
{
	struct sock_state *s = find_sock_state(sk, ec->old_state);
	__u64 address = address_of(sk);

	ec->role = ROLE_UNKNOWN;
	ec->opened_ns = ec->in_established_ns = 0;
	ec->is_repaired = ec->fin_not_counted = false;
	if (!s || s->sk != address) {
		load_stored_owners(NULL, ec);
		if (s)
			load_initial_owner(s, address, ec);
		return;
	}
	load_stored_owners(s, ec);
	ec->role = s->role;
	ec->opened_ns = s->opened_ns;
	ec->in_established_ns = s->in_established_ns;
	if (ec->old_state == TCP_ESTABLISHED && s->since_ns && !s->since_outdated)
		ec->in_established_ns += ec->now_ns - s->since_ns;
	ec->is_repaired = s->is_repaired;
	ec->fin_not_counted = s->fin_not_counted;
}

/* Whether the connection is open for long enough. If its age is not known, it is old enough. */
static __always_inline bool is_old_enough(const struct event_ctx *ec)
{
	return !ec->opened_ns || ec->now_ns - ec->opened_ns >= update_min_age_ns;
}

/* Whether all filters match; those on states are about transitions. */
static __always_inline bool live_socket_matches(const struct sock *sk, const struct event_ctx *ec)
{
	return netns_matches(ec->netns) && endpoints_match(&ec->ep) && role_matches(ec->role) &&
	       uid_matches(ec->uid) && cgroup_matches(sk) && owner_matches(&ec->owner);
}

/* Fills every field of the event. ec->old_state is the state that the socket has. */
static __always_inline void fill_update(struct tcp_sock *tp, const struct event_ctx *ec,
					struct update_event *e)
{
	const struct sock *sk = &tp->inet_conn.icsk_inet.sk;
	struct transition_event *t = &e->end.transition;

	__builtin_memset(e, 0, sizeof(*e));
	fill_common(&sk->__sk_common, &ec->ep, t);
	t->timestamp_ns = ec->now_ns;
	t->kind = EVENT_UPDATE;
	t->cookie = ec->cookie;
	t->cgroup_id = ec->owner.cgroup_id;
	t->pid = ec->owner.ref.pid;
	t->pid_source = source_of(&ec->owner.ref);
	__builtin_memcpy(t->comm, ec->owner.comm, sizeof(t->comm));
	t->uid = ec->uid;
	t->role = ec->role;
	t->error = ec->old_state == TCP_SYN_SENT ? 0 : ec->error; /* of an earlier connection */
	e->end.opened_ns = ec->opened_ns;
	e->end.in_established_ns = ec->in_established_ns;
	e->end.sent_bytes = payload_sent(sk, tp, ec);
	e->end.received_bytes = payload_received(tp, has_sock_flag(sk, SOCK_DONE), ec);
	e->end.retransmits = tp->total_retrans;
	e->end.rtt_us = tp->srtt_us >> 3;
	e->snd_cwnd = tp->snd_cwnd;
}

/* Whether so much of the ring is unread that what is left of it is for transitions. */
static __always_inline bool is_ring_crowded(void *ring)
{
	return bpf_ringbuf_query(ring, BPF_RB_AVAIL_DATA) >= wakeup_bytes;
}

/* Submits the update. False: there is no room that transitions do not need. */
static __always_inline bool submit_update(struct tcp_sock *tp, const struct event_ctx *ec)
{
	struct update_event *e;
	void *ring = this_cpu_ring();

	if (!ring || is_ring_crowded(ring))
		return false;
	e = bpf_ringbuf_reserve(ring, sizeof(*e), 0);
	if (!e)
		return false;
	fill_update(tp, ec, e);
	bpf_ringbuf_submit(e, WAKE_SLEEPER);
	return true;
}

/* Emits an update of the socket, unless it listens, is too young or does not match the filters. */
static __always_inline void update_socket(struct tcp_sock *tp)
{
	const struct sock *sk = &tp->inet_conn.icsk_inet.sk;
	struct event_ctx *ec = event_ctx_at(UPDATE_SLOT);
	struct program_counters *counters = counters_of(PROGRAM_PRIMARY);
	struct endpoints ep = {};

	if (!ec || !counters)
		return;
	ec->now_ns = bpf_ktime_get_boot_ns();
	ec->old_state = ec->new_state = sk->__sk_common.skc_state;
	if (ec->old_state == TCP_LISTEN || ec->old_state == TCP_CLOSE)
		return;
	read_dumped_endpoints(&sk->__sk_common, &ep);
	ec->ep = ep;
	ec->netns = sk->__sk_common.skc_net.net->ns.inum;
	load_live_state(sk, ec);
	if (!is_old_enough(ec))
		return;
	read_socket_fields(sk, ec);
	use_stored_owner(UPDATE_SLOT);
	if (!live_socket_matches(sk, ec))
		return;
	ec->cookie = bpf_get_socket_cookie(tp);
	if (!ec->owner.ref.pid)
		ec->owner.cgroup_id = announce_cgroup_of_socket(sk);
	if (!submit_update(tp, ec))
		count(counters->missed_updates);
}

/*
 * Called for each TCP socket of the namespace. Requests and TIME_WAITs are no connections that
 * live.
 */
static __always_inline int on_live_socket(struct bpf_iter__tcp *ctx)
{
	struct sock_common *skc = ctx->sk_common;
	struct tcp_sock *tp;
	void *ring;
	__u8 crowded;

	if (!skc)
		return 0;
	tp = bpf_skc_to_tcp_sock(skc);
	if (tp && has_socket_cookie)
		update_socket(tp);
	if (ctx->meta->seq_num % SOCKETS_IN_READ)
		return 0;
	ring = this_cpu_ring();
	crowded = ring && is_ring_crowded(ring);
	bpf_seq_write(ctx->meta->seq, &crowded, sizeof(crowded));
	return 0;
}

#endif
