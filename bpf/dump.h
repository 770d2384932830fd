/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The sockets of one network namespace as they are now: full sockets, requests whose
 * handshake is not complete, and TIME_WAITs.
 */
#ifndef TCPSHIFT_DUMP_H
#define TCPSHIFT_DUMP_H

#include "kernel.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include "bytes.h"
#include "cgroup.h"
#include "config.h"
#include "emit.h"
#include "endpoints.h"
#include "event.h"
#include "event_ctx.h"
#include "filter.h"
#include "owner.h"
#include "process_ref.h"
#include "sock_state.h"

/* The slot in event_ctx_scratch; a snapshot has its own maps, and runs one program at a time. */
#define DUMP_SLOT 0

/* What the filters compare besides the endpoints. */
struct dump_match {
	bool role;
	bool uid;
	bool cgroup;
	bool owner;
};

/* What the filters say of a socket whose role, user, cgroup and owner are not known. */
static __always_inline struct dump_match match_unknown(void)
{
	return (struct dump_match){
		.role = role_matches(ROLE_UNKNOWN),
		.uid = !filter_uid,
		.cgroup = !filter_cgroup,
		.owner = !filter_pid && !filter_comm,
	};
}

/* Reads the endpoints of any of the three kinds of socket. The caller has set ep to zero. */
static __always_inline void read_dumped_endpoints(const struct sock_common *skc,
						  struct endpoints *ep)
{
	ep->listens = skc->skc_state == TCP_LISTEN;
	ep->local_addr[0] = skc->skc_rcv_saddr;
	ep->peer_addr[0] = ep->listens ? 0 : skc->skc_daddr;
	ep->family = 4;
	if (skc->skc_family == AF_INET6)
		read_v6_addrs(skc, !ep->listens, ep);
	ep->local_port = skc->skc_num;
	ep->peer_port = bpf_ntohs(skc->skc_dport);
}

/* The fields that all three kinds of socket have. */
static __always_inline void fill_common(const struct sock_common *skc, const struct endpoints *ep,
					struct transition_event *s)
{
	__builtin_memcpy(s->local_addr, ep->local_addr, sizeof(s->local_addr));
	__builtin_memcpy(s->peer_addr, ep->peer_addr, sizeof(s->peer_addr));
	s->local_port = ep->local_port;
	s->peer_port = ep->peer_port;
	s->family = ep->family;
	s->flags = ep->mapped ? EVENT_MAPPED : 0;
	s->netns = skc->skc_net.net->ns.inum;
	s->kind = EVENT_SOCKET;
	s->new_state = skc->skc_state;
	s->timestamp_ns = bpf_ktime_get_boot_ns();
}

/* The owner and its cgroup. Without an owner pid is 0, and the cgroup is the socket's. */
static __always_inline void fill_owner(const struct owner *owner, const struct sock *sk,
				       struct transition_event *e)
{
	e->cgroup_id = owner->ref.pid ? owner->cgroup_id : announce_cgroup_of_socket(sk);
	e->pid = owner->ref.pid;
	e->pid_source = source_of(&owner->ref);
	__builtin_memcpy(e->comm, owner->comm, sizeof(e->comm));
}

/*
 * What a full socket has done so far, and what waits in its queues: as sock_diag counts that
 * (tcp_diag_get_info() of net/ipv4/tcp_diag.c), so that ss shows the same.
 */
static __always_inline void fill_measures(struct tcp_sock *tp, struct event_ctx *ec,
					  struct socket_event *e)
{
	const struct sock *sk = &tp->inet_conn.icsk_inet.sk;

	if (e->socket.new_state == TCP_LISTEN) {
		e->receive_queue = sk->sk_ack_backlog;
		e->send_queue = sk->sk_max_ack_backlog;
		return;
	}
	ec->old_state = ec->new_state = e->socket.new_state;
	ec->role = ROLE_UNKNOWN;
	ec->is_repaired = ec->fin_not_counted = false;
	e->sent_bytes = payload_sent(sk, tp, ec);
	e->received_bytes = payload_received(tp, has_sock_flag(sk, SOCK_DONE), ec);
	e->retransmits = tp->total_retrans;
	e->rtt_us = tp->srtt_us >> 3;
	e->snd_cwnd = tp->snd_cwnd;
	e->receive_queue = tp->rcv_nxt - tp->copied_seq;
	e->send_queue = tp->write_seq - tp->snd_una;
}

/*
 * Fills what a socket has that is neither a request nor a TIME_WAIT: cookie, user, error and owner,
 * and what the filters say of them. Its role is known only in LISTEN.
 */
static __always_inline void fill_full_socket(struct tcp_sock *tp, struct socket_event *e,
					     struct dump_match *match)
{
	const struct sock *sk = &tp->inet_conn.icsk_inet.sk;
	struct sock_state *s = NULL;
	struct event_ctx *ec = event_ctx_at(DUMP_SLOT);

	if (!ec)
		return;
	if (has_socket_storage)
		s = bpf_sk_storage_get(&sock_states, tp, NULL, 0);
	if (has_socket_cookie)
		e->socket.cookie = bpf_get_socket_cookie(tp);
	load_stored_owners(NULL, ec); /* a snapshot sees no transitions */
	if (s) /* it may be a copy of the listener's */
		load_initial_owner(s, address_of(sk), ec);
	read_socket_fields(sk, ec);
	if (s)
		use_stored_owner(DUMP_SLOT);
	fill_owner(&ec->owner, sk, &e->socket);
	fill_measures(tp, ec, e);
	/* Not the iterator's uid: up to 6.16 that is 0 for a socket without a struct socket. */
	e->socket.uid = ec->uid;
	e->socket.error = sk->sk_err;
	if (e->socket.new_state == TCP_LISTEN)
		e->socket.role = ROLE_LISTENER;
	match->role = role_matches(e->socket.role);
	match->uid = uid_matches(ec->uid);
	match->cgroup = cgroup_matches(sk);
	match->owner = owner_matches(&ec->owner);
}

/* Fills what only a TIME_WAIT has: its substate, and the jiffies until its timer expires. */
static __always_inline void fill_timewait(struct tcp_timewait_sock *tw, struct socket_event *e)
{
	e->socket.time_wait_substate = tw->tw_sk.tw_substate;
	e->jiffies_left = tw->tw_sk.tw_timer.expires - bpf_jiffies64();
}

/* A request becomes a server's socket. The kernel passes the user of its listener. */
static __always_inline void fill_request(const struct bpf_iter__tcp *ctx, struct socket_event *e,
					 struct dump_match *match)
{
	e->socket.role = ROLE_SERVER;
	e->socket.uid = ctx->uid;
	match->role = role_matches(ROLE_SERVER);
	match->uid = uid_matches(ctx->uid);
}

/*
 * For each TCP socket of the namespace: writes a socket_event if the filters pass it. The socket
 * makes no transition: for the filter on states it goes from state 0 to its state.
 */
static __always_inline int on_socket(struct bpf_iter__tcp *ctx)
{
	struct sock_common *skc = ctx->sk_common;
	struct dump_match match = match_unknown();
	struct socket_event e = {};
	struct endpoints ep = {};
	struct tcp_timewait_sock *tw;
	struct tcp_sock *tp;

	if (!skc || !states_match(0, skc->skc_state))
		return 0;
	read_dumped_endpoints(skc, &ep);
	if (!endpoints_match(&ep))
		return 0;
	fill_common(skc, &ep, &e.socket);
	e.keepalive_intvl_jiffies = skc->skc_net.net->ipv4.sysctl_tcp_keepalive_intvl;
	tp = bpf_skc_to_tcp_sock(skc);
	if (tp) {
		fill_full_socket(tp, &e, &match);
	} else {
		tw = bpf_skc_to_tcp_timewait_sock(skc);
		if (tw)
			fill_timewait(tw, &e);
		else
			fill_request(ctx, &e, &match);
	}
	if (match.role && match.uid && match.cgroup && match.owner)
		bpf_seq_write(ctx->meta->seq, &e, sizeof(e));
	return 0;
}

#endif
