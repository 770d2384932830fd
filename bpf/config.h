/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Configuration. User space writes these constants into .rodata before load, so the
 * verifier knows their values and removes the code that they switch off.
 */
#ifndef TCPSHIFT_CONFIG_H
#define TCPSHIFT_CONFIG_H

#include "kernel.h"

/* What this kernel supports; internal/probe detects it. */
const volatile bool has_socket_storage; /* sk_storage in tracing programs; not in 5.10 */
const volatile bool has_socket_cookie; /* bpf_get_socket_cookie() in them; not in 5.10 */
const volatile bool has_task_from_pid; /* the kfunc bpf_task_from_pid(), since 6.2 */
const volatile bool has_client_table; /* for the sock_state of clients; not before 6.2 */
const volatile bool has_rdonly_cast; /* the kfunc bpf_rdonly_cast(), since 6.2 */
const volatile bool has_receive_reset; /* tcp_receive_reset exists, its programs are attached */
const volatile bool has_send_reset; /* tcp_send_reset exists, its programs are attached */
const volatile bool send_reset_has_reason; /* its third argument, since 6.10 */
const volatile bool accept_has_two_args; /* inet_csk_accept(), since 6.10 */

/* A tracing program may interrupt itself on one CPU: up to 6.0. */
const volatile bool may_interrupt_itself;

/*
 * A task may be preempted, and moved to another CPU, between two programs of one
 * tracepoint: since 7.0, which guards tracepoints with SRCU-fast (commit a46023d5616e).
 */
const volatile bool may_be_preempted;

/* How many programs of enum program_rank are loaded for each tracepoint. */
const volatile __u32 chain_length = 2;

/* The length of a jiffy; 0: not known. */
const volatile __u64 jiffy_ns;

/* What user space asks for. */
const volatile bool want_ends; /* EVENT_END when a socket enters CLOSE */
/* in_state_ns of every event: so each transition takes the time, also one that is not emitted */
const volatile bool want_state_times;
const volatile bool want_cgroups; /* cgroup ids, and an EVENT_CGROUP for each new one */
const volatile bool want_timewait_ends; /* an event at the end of each TIME_WAIT */
/* The age from which a connection has updates, see update.h. */
const volatile __u64 update_min_age_ns;
const volatile __u64 sample_n; /* N of a sample of 1/N, see sample.h; 0: none */
const volatile bool follow_children; /* pass only the sockets of the tracer's descendants */

/*
 * The v1 hierarchy that distinguishes containers, a value of enum cgroup_subsys_id;
 * -1: the v2 hierarchy does.
 */
const volatile __s32 cgroup_v1_subsys = -1;

/* Rings divided by CPUs, at most 1: a fixed-point number with 32 fraction bits. */
const volatile __u64 rings_per_cpu_q32;
/* One less than the number of rings, which is a power of two. */
const volatile __u32 ring_mask;

/* Wake the reader early when a ring holds this many unread bytes. */
const volatile __u64 wakeup_bytes = 1 << 20;

/* Which filters are on; zero or false: off. Their values are in the maps of filter.h. */
const volatile __u8 filter_family; /* 4 or 6 */
const volatile __u8 filter_ports; /* a bit for each enum side that has a filter on ports */
const volatile __u8 filter_addrs; /* a bit for each enum side that has a filter on addresses */
const volatile bool filter_states;
const volatile __u32 wanted_states[32]; /* by old state: a bit per emitted new state */
const volatile bool exclude_orphan_fin_wait2; /* drops FIN_WAIT1 -> FIN_WAIT2 of orphans */
const volatile __u8 filter_roles; /* a bit per enum socket_role */
/* Whether filter_members has keys of this kind. */
const volatile bool filter_netns;
const volatile bool filter_pid;
const volatile bool filter_comm;
const volatile bool filter_cgroup;
const volatile bool filter_uid;
const volatile bool exclude_netns;
const volatile bool exclude_pid;
const volatile bool exclude_comm;
const volatile bool exclude_cgroup;
const volatile bool exclude_uid;

/* The tracer's process. self_pid is its number in its own pid namespace. */
const volatile bool exclude_self;
const volatile bool self_in_initial_pidns;
const volatile __u32 self_pid;
const volatile __u64 self_pidns_dev;
const volatile __u64 self_pidns_ino;

#endif
