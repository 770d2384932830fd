// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The hooks: each a call of what the header of that name explains. The order in
 * which the two programs of the tracepoint are attached matters, see twins.h.
 */
#include "kernel.h"

#include <bpf/bpf_helpers.h>
#include "accept.h"
#include "afterlife.h"
#include "dump.h"
#include "scan.h"
#include "transition.h"

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

/* The ends of TIME_WAITs, only when asked for; twice, for what interrupts the first. */
SEC("tp_btf/timer_expire_entry") int timer_expired_first(const __u64 *ctx)
{
	return on_timer_expired((const struct timer_list *)ctx[0]);
}

SEC("tp_btf/timer_expire_entry") int timer_expired_second(const __u64 *ctx)
{
	return on_timer_expired((const struct timer_list *)ctx[0]);
}

SEC("tp_btf/kmem_cache_free") int object_freed_first(const __u64 *ctx)
{
	return on_object_freed(freed_object(ctx), TWIN_FIRST);
}

SEC("tp_btf/kmem_cache_free") int object_freed_second(const __u64 *ctx)
{
	return on_object_freed(freed_object(ctx), TWIN_SECOND);
}

/* Loaded only where the kernel lets trampolines be attached. */
SEC("fexit/inet_csk_accept") int accepted(const __u64 *ctx)
{
	return on_accept(accepted_by(ctx));
}

/* Loaded only where it can work; internal/probe reads it to its end, which runs it. */
SEC("iter/task_file") int scan_files(struct bpf_iter__task_file *ctx)
{
	return on_task_file(ctx->task, ctx->file, ctx->fd);
}

/* After scan_files, where that has met MPTCP. */
SEC("iter/tcp") int adopt_subflows(struct bpf_iter__tcp *ctx)
{
	return on_subflow(ctx->sk_common);
}

/* For a snapshot; like all of this kind it sees the namespace of whoever opens the iterator. */
SEC("iter/tcp") int dump_sockets(struct bpf_iter__tcp *ctx)
{
	return on_socket(ctx);
}

/* A type reaches the Go side only if something here refers to it. */
#define EXPORT_TYPE(tag, name) const tag name *export_##name __attribute__((unused))

EXPORT_TYPE(struct, transition_event);
EXPORT_TYPE(struct, end_event);
EXPORT_TYPE(struct, cgroup_event);
EXPORT_TYPE(struct, socket_event);
EXPORT_TYPE(enum, event_kind);
EXPORT_TYPE(enum, event_flag);
EXPORT_TYPE(enum, socket_role);
EXPORT_TYPE(enum, pid_source);
EXPORT_TYPE(enum, side);
EXPORT_TYPE(enum, member_kind);
EXPORT_TYPE(enum, twin);

/* Some of the helpers are only for GPL-compatible programs; the licence is dual. */
char LICENSE[] SEC("license") = "Dual BSD/GPL";
