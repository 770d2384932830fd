/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* How many sockets of one network namespace are in each state, by their owners, for metrics. */
#ifndef TCPSHIFT_COUNT_SOCKETS_H
#define TCPSHIFT_COUNT_SOCKETS_H

#include "kernel.h"

#include <bpf/bpf_helpers.h>
#include "cgroup.h"
#include "config.h"
#include "dump.h"
#include "endpoints.h"
#include "event.h"
#include "event_ctx.h"
#include "filter.h"
#include "owner.h"
#include "update.h"

/* The slot in event_ctx_scratch, behind that of update.h. One count at a time. */
#define COUNT_SLOT (2 * chain_length + 1)

/*
 * The number of sockets in each group. The program below inserts and counts; user space reads and
 * deletes all after each run, and makes one run at a time. User space sets the size, if there are
 * metrics. Full: the program writes the group of each further socket instead.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, struct socket_group);
	__type(value, __u64);
} socket_groups SEC(".maps");

/*
 * Fills the owner of a socket that is neither a request nor a TIME_WAIT. Returns whether the
 * filters pass the socket; those on states are about transitions.
 */
static __always_inline bool group_full_socket(struct tcp_sock *tp, struct socket_group *group)
{
	const struct sock *sk = &tp->inet_conn.icsk_inet.sk;
	struct event_ctx *ec = event_ctx_at(COUNT_SLOT);
	struct endpoints ep = {};

	if (!ec)
		return false;
	ec->now_ns = 0;
	ec->old_state = ec->new_state = sk->__sk_common.skc_state;
	read_dumped_endpoints(&sk->__sk_common, &ep);
	ec->ep = ep;
	ec->netns = sk->__sk_common.skc_net.net->ns.inum;
	load_live_state(sk, ec);
	if (ec->old_state == TCP_LISTEN)
		ec->role = ROLE_LISTENER;
	read_socket_fields(sk, ec);
	use_stored_owner(COUNT_SLOT);
	if (!live_socket_matches(sk, ec))
		return false;
	group->cgroup_id = ec->owner.ref.pid ? ec->owner.cgroup_id : announce_cgroup_of_socket(sk);
	__builtin_memcpy(group->comm, ec->owner.comm, sizeof(group->comm));
	group->uid = ec->uid;
	return true;
}

/* Returns whether the filters pass a request or a TIME_WAIT, of which no owner is known. */
static __always_inline bool mini_socket_matches(const struct sock_common *skc, __u32 uid)
{
	struct dump_match match = match_unknown();
	struct endpoints ep = {};

	read_dumped_endpoints(skc, &ep);
	if (skc->skc_state == TCP_NEW_SYN_RECV) {
		match.role = role_matches(ROLE_SERVER);
		match.uid = uid_matches(uid);
	}
	return netns_matches(skc->skc_net.net->ns.inum) && endpoints_match(&ep) && match.role &&
	       match.uid && match.cgroup && match.owner;
}

/* For each TCP socket of the namespace: counts it if the filters pass it. */
static __always_inline int on_counted_socket(struct bpf_iter__tcp *ctx)
{
	struct sock_common *skc = ctx->sk_common;
	/* Of a mini socket. Read here: later clang adds to the pointer, which is refused. */
	struct socket_group group = {.uid = ctx->uid};
	__u64 one = 1, *count;
	struct tcp_sock *tp;

	if (!skc)
		return 0;
	tp = bpf_skc_to_tcp_sock(skc);
	if (tp ? !group_full_socket(tp, &group) : !mini_socket_matches(skc, group.uid))
		return 0;
	group.state = skc->skc_state;
	count = bpf_map_lookup_elem(&socket_groups, &group);
	if (count)
		*count += 1;
	else if (bpf_map_update_elem(&socket_groups, &group, &one, BPF_NOEXIST))
		bpf_seq_write(ctx->meta->seq, &group, sizeof(group));
	return 0;
}

#endif
