// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The programs. Each calls one function of a header, which explains it. Where several
 * programs are attached to one tracepoint, see dedup.h.
 */
#include "kernel.h"

#include <bpf/bpf_helpers.h>
#include "accept.h"
#include "bound_ports.h"
#include "count_sockets.h"
#include "dispatch.h"
#include "dump.h"
#include "entry.h"
#include "event.h"
#include "filter.h"
#include "follow.h"
#include "reader.h"
#include "listen_port.h"
#include "reset.h"
#include "scan.h"
#include "timewait_end.h"
#include "update.h"

/*
 * Every transition. The arguments, from include/trace/events/sock.h:
 *	TP_PROTO(const struct sock *sk, const int oldstate, const int newstate)
 */
SEC("tp_btf/inet_sock_set_state") int set_state_primary(const __u64 *ctx)
{
	return on_transition(PROGRAM_PRIMARY, (const struct sock *)ctx[0], (int)ctx[1],
			     (int)ctx[2]);
}

/* The transitions that the primary program has missed. */
SEC("tp_btf/inet_sock_set_state") int set_state_backup(const __u64 *ctx)
{
	return on_transition(PROGRAM_BACKUP, (const struct sock *)ctx[0], (int)ctx[1], (int)ctx[2]);
}

/* This and the other second backups are loaded only where programs may be preempted. */
SEC("tp_btf/inet_sock_set_state") int set_state_second_backup(const __u64 *ctx)
{
	return on_transition(PROGRAM_SECOND_BACKUP, (const struct sock *)ctx[0], (int)ctx[1],
			     (int)ctx[2]);
}

/* These are attached in place of the programs above where a reload may change the filters. */
SEC("tp_btf/inet_sock_set_state") int set_state_entry_primary(const __u64 *ctx)
{
	return enter(set_state_programs, ctx, PROGRAM_PRIMARY);
}

/* As the entry of the primary program. */
SEC("tp_btf/inet_sock_set_state") int set_state_entry_backup(const __u64 *ctx)
{
	return enter(set_state_programs, ctx, PROGRAM_BACKUP);
}

/* As the entry of the primary program. */
SEC("tp_btf/inet_sock_set_state") int set_state_entry_second_backup(const __u64 *ctx)
{
	return enter(set_state_programs, ctx, PROGRAM_SECOND_BACKUP);
}

/* The resets; loaded only where the kernel has the tracepoint (include/trace/events/tcp.h). */
SEC("tp_btf/tcp_receive_reset") int reset_received_primary(const __u64 *ctx)
{
	return on_reset_received((const struct sock *)ctx[0]);
}

/* As the primary program. Each program of the chain makes the same note. */
SEC("tp_btf/tcp_receive_reset") int reset_received_backup(const __u64 *ctx)
{
	return on_reset_received((const struct sock *)ctx[0]);
}

/* As the primary program. */
SEC("tp_btf/tcp_receive_reset") int reset_received_second_backup(const __u64 *ctx)
{
	return on_reset_received((const struct sock *)ctx[0]);
}

/*
 * Each reset that this side sends for a full socket. After the socket's transition to CLOSE one
 * program of the chain emits it as an EVENT_RESET; before the transition each program makes the
 * same note. Up to 6.9 the tracepoint has no reason, and the verifier refuses to read it.
 */
SEC("tp_btf/tcp_send_reset") int reset_sent_primary(const __u64 *ctx)
{
	return on_reset_sent(PROGRAM_PRIMARY, (const struct sock *)ctx[0],
			     send_reset_has_reason ? ctx[2] : 0);
}

/* As the primary program; it emits no reset that the primary program has emitted. */
SEC("tp_btf/tcp_send_reset") int reset_sent_backup(const __u64 *ctx)
{
	return on_reset_sent(PROGRAM_BACKUP, (const struct sock *)ctx[0],
			     send_reset_has_reason ? ctx[2] : 0);
}

/* As the backup program, for what both programs before it have missed. */
SEC("tp_btf/tcp_send_reset") int reset_sent_second_backup(const __u64 *ctx)
{
	return on_reset_sent(PROGRAM_SECOND_BACKUP, (const struct sock *)ctx[0],
			     send_reset_has_reason ? ctx[2] : 0);
}

/* Attached like the entries above: the filters decide whether a reset is emitted. */
SEC("tp_btf/tcp_send_reset") int reset_sent_entry_primary(const __u64 *ctx)
{
	return enter(reset_sent_programs, ctx, PROGRAM_PRIMARY);
}

/* As the entry of the primary program. */
SEC("tp_btf/tcp_send_reset") int reset_sent_entry_backup(const __u64 *ctx)
{
	return enter(reset_sent_programs, ctx, PROGRAM_BACKUP);
}

/* As the entry of the primary program. */
SEC("tp_btf/tcp_send_reset") int reset_sent_entry_second_backup(const __u64 *ctx)
{
	return enter(reset_sent_programs, ctx, PROGRAM_SECOND_BACKUP);
}

/* Notes that the timer of a tracked TIME_WAIT has expired. Loaded only if ends are asked for. */
SEC("tp_btf/timer_expire_entry") int timer_expired_primary(const __u64 *ctx)
{
	return on_timer_expired((const struct timer_list *)ctx[0]);
}

/* As the primary program. Each program of the chain sets the same flag. */
SEC("tp_btf/timer_expire_entry") int timer_expired_backup(const __u64 *ctx)
{
	return on_timer_expired((const struct timer_list *)ctx[0]);
}

/* As the primary program. */
SEC("tp_btf/timer_expire_entry") int timer_expired_second_backup(const __u64 *ctx)
{
	return on_timer_expired((const struct timer_list *)ctx[0]);
}

/* Each object that is freed: the end of a TIME_WAIT if it is a tracked timewait socket. */
SEC("tp_btf/kmem_cache_free") int object_freed_primary(const __u64 *ctx)
{
	return on_object_freed(freed_object(ctx), PROGRAM_PRIMARY);
}

/*
 * As the primary program. Only the program that deletes the TIME_WAIT from the map emits its end.
 */
SEC("tp_btf/kmem_cache_free") int object_freed_backup(const __u64 *ctx)
{
	return on_object_freed(freed_object(ctx), PROGRAM_BACKUP);
}

/* As the backup program. */
SEC("tp_btf/kmem_cache_free") int object_freed_second_backup(const __u64 *ctx)
{
	return on_object_freed(freed_object(ctx), PROGRAM_SECOND_BACKUP);
}

/* Notes which descriptor accept() has reserved. Loaded only where fentry and fexit attach. */
SEC("fentry/inet_csk_accept") int accept_entered(const __u64 *ctx __attribute__((unused)))
{
	return on_accept_entry();
}

/*
 * The current process is the initial owner of the child that the call returns, if it returns one.
 */
SEC("fexit/inet_csk_accept") int accepted(const __u64 *ctx)
{
	return on_accept(accepted_socket(ctx));
}

/*
 * The process that reads from a connection; loaded only where the programs above are not.
 * The argument, from include/trace/events/tcp.h:
 *	TP_PROTO(struct sock *sk)
 */
SEC("tp_btf/tcp_rcv_space_adjust") int read_by(const __u64 *ctx)
{
	return on_read((struct sock *)ctx[0]);
}

/*
 * The command that the tracer runs, and its children; loaded only if there is one. The
 * arguments, from include/trace/events/sched.h:
 *	TP_PROTO(struct task_struct *parent, struct task_struct *child)
 *	TP_PROTO(struct task_struct *p)
 */
SEC("tp_btf/sched_process_fork") int process_forked(const __u64 *ctx)
{
	return on_fork((struct task_struct *)ctx[0], (struct task_struct *)ctx[1]);
}

/* Moves a process that exits from followed to followed_before. Emits nothing. */
SEC("tp_btf/sched_process_exit") int process_exited(const __u64 *ctx)
{
	return on_exit((struct task_struct *)ctx[0]);
}

/* The owners of open sockets. internal/probe runs it once at the start, by reading it. */
SEC("iter/task_file") int scan_files(struct bpf_iter__task_file *ctx)
{
	return on_task_file(ctx->task, ctx->file, ctx->fd);
}

/* The owners of MPTCP subflows; run after scan_files, if that has found MPTCP sockets. */
SEC("iter/tcp") int scan_subflows(struct bpf_iter__tcp *ctx)
{
	return on_subflow(ctx->sk_common);
}

/*
 * internal/probe runs it with the cookie of a socket in unbound_listeners. Returns the socket's
 * port in host order, LISTEN_PORT_PENDING if listen() has not chosen it yet, or 0 if it is not
 * known.
 */
SEC("raw_tp") int listen_port(const __u64 *ctx)
{
	return port_of_listener(ctx[0]);
}

/*
 * A snapshot of one network namespace, that of the thread which opens the iterator: writes a
 * socket_event for each full socket, request and TIME_WAIT that matches the filters.
 */
SEC("iter/tcp") int dump_sockets(struct bpf_iter__tcp *ctx)
{
	return on_socket(ctx);
}

/*
 * The ports that connect() does not choose, in the namespace of the thread that opens the
 * iterator; internal/probe runs it for alerts.
 */
SEC("iter/tcp") int dump_bound_ports(struct bpf_iter__tcp *ctx)
{
	return on_bound_socket(ctx);
}

/*
 * The connections of one network namespace that live, that of the thread which opens the iterator:
 * emits an EVENT_UPDATE for each that matches the filters. Loaded only if asked for.
 */
SEC("iter/tcp") int update_sockets(struct bpf_iter__tcp *ctx)
{
	return on_live_socket(ctx);
}

/*
 * Counts the sockets of the namespace of the thread that opens the iterator, in socket_groups;
 * internal/probe runs it for metrics. Writes the group of each socket that has no room there.
 */
SEC("iter/tcp") int count_sockets(struct bpf_iter__tcp *ctx)
{
	return on_counted_socket(ctx);
}

/* bpf2go finds a type only if the object refers to it. */
#define EXPORT_TYPE(tag, name) const tag name *export_##name __attribute__((unused))

EXPORT_TYPE(struct, transition_event);
EXPORT_TYPE(struct, end_event);
EXPORT_TYPE(struct, cgroup_event);
EXPORT_TYPE(struct, socket_event);
EXPORT_TYPE(struct, reset_event);
EXPORT_TYPE(struct, update_event);
EXPORT_TYPE(enum, event_kind);
EXPORT_TYPE(enum, event_flag);
EXPORT_TYPE(enum, socket_role);
EXPORT_TYPE(enum, pid_source);
EXPORT_TYPE(enum, side);
EXPORT_TYPE(enum, member_kind);
EXPORT_TYPE(enum, program_rank);
EXPORT_TYPE(enum, listen_port_result);

/* Some helpers are only for GPL-compatible programs; a dual licence is compatible. */
char LICENSE[] SEC("license") = "Dual BSD/GPL";
