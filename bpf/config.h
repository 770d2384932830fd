/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Everything that user space decides before load. Constants in .rodata: the
 * verifier knows their values and removes what they switch off.
 */
#ifndef TCPSHIFT_CONFIG_H
#define TCPSHIFT_CONFIG_H

#include "kernel.h"

/* What this kernel gives (internal/probe finds out). */
const volatile bool has_socket_storage; /* sk_storage in tracing programs; not in 5.10 */
const volatile bool has_socket_cookie; /* bpf_get_socket_cookie there; not in 5.10 */

const volatile bool has_task_from_pid; /* the kfunc bpf_task_from_pid(), since 6.2 */
const volatile bool has_client_table; /* all that clients.h needs; not before 6.2 */
const volatile bool has_plain_reads; /* the kfunc bpf_rdonly_cast(), since 6.2 */
const volatile bool may_interrupt_itself; /* a tracing program; not since 6.1 */
const volatile bool
	may_be_preempted; /* a task between two programs of a tracepoint; since 6.19 or so */
const volatile bool accept_has_two_args; /* inet_csk_accept(), since 6.10 */

/* What is wanted. */
const volatile bool want_ends; /* EVENT_END for a socket's last transition */
const volatile bool want_cgroups;
const volatile bool want_timewait_ends;

/* Of enum cgroup_subsys_id: the v1 hierarchy that tells containers apart; -1: v2 does. */
const volatile __s32 cgroup_v1_subsys = -1;

/* How many rings there are for one CPU, in parts of 2^32, and in all, less one: 2^n - 1. */
const volatile __u64 rings_per_cpu;
const volatile __u32 ring_mask;

/* Wake the reader early when this much is unread in one of them, in bytes. */
const volatile __u64 wake_bytes = 1 << 20;

/* Filters; zero or false: off. See filter.h. */
const volatile __u8 filter_family; /* 4 or 6 */
const volatile __u8 filter_ports; /* a bit per enum side */
const volatile __u8 filter_addrs; /* a bit per enum side */
const volatile bool filter_states;
const volatile __u32 wanted_states[32]; /* by old state: a bit per new state, as shown */
const volatile __u8 filter_roles; /* a bit per enum socket_role */
const volatile bool filter_netns;
const volatile bool filter_pid;
const volatile bool filter_comm;
const volatile bool filter_cgroup;

/* The tracer's own process, named in its own pid namespace, which may be the initial one. */
const volatile bool exclude_self;
const volatile bool self_is_initial;
const volatile __u32 self_pid;
const volatile __u64 self_pidns_dev;
const volatile __u64 self_pidns_ino;

#endif
