/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The kernel types and fields that the programs use, and no others. CO-RE finds the real
 * offsets by name in the running kernel's BTF, so order and size here have no meaning. A
 * suffix ___name marks a variant of a type that changed between kernels; CO-RE ignores
 * the suffix.
 */
#ifndef TCPSHIFT_KERNEL_H
#define TCPSHIFT_KERNEL_H

#include <linux/bpf.h>
#include <linux/types.h>
#include <stdbool.h>

/* From the kernel's headers; the same on all architectures that are supported. */
#define AF_INET 2
#define AF_INET6 10
#define IPPROTO_TCP 6
#define IPPROTO_MPTCP 262
#define PF_EXITING 0x00000004
#define PF_IO_WORKER 0x00000010
#define PF_KTHREAD 0x00200000 /* include/linux/sched.h */

/* Bit numbers in skc_flags, include/net/sock.h. CO-RE takes them from the running kernel. */
enum sock_flags {
	SOCK_DONE = 1,
	SOCK_RCU_FREE = 25,
};

/* include/linux/sched.h; then error numbers, include/uapi/asm-generic/errno-base.h and errno.h */
#define TASK_COMM_LEN 16
#define EPIPE 32
#define ECONNABORTED 103
#define ECONNRESET 104
#define ETIMEDOUT 110
#define ECONNREFUSED 111
#define MAX_CGROUP_SUBSYS 16 /* CGROUP_SUBSYS_COUNT is at most this on every kernel */

/* include/net/tcp_states.h */
enum tcp_state {
	TCP_ESTABLISHED = 1,
	TCP_SYN_SENT,
	TCP_SYN_RECV,
	TCP_FIN_WAIT1,
	TCP_FIN_WAIT2,
	TCP_TIME_WAIT,
	TCP_CLOSE,
	TCP_CLOSE_WAIT,
	TCP_LAST_ACK,
	TCP_LISTEN,
	TCP_CLOSING,
	TCP_NEW_SYN_RECV,
};

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct in6_addr {
	union {
		__be32 u6_addr32[4];
	} in6_u;
};

struct ns_common {
	unsigned int inum;
};

struct hlist_nulls_node {
	struct hlist_nulls_node *next;
};

struct hlist_nulls_head {
	struct hlist_nulls_node *first;
};

struct inet_ehash_bucket {
	struct hlist_nulls_head chain;
};

struct inet_hashinfo {
	struct inet_ehash_bucket *ehash;
	unsigned int ehash_mask;
};

struct inet_timewait_death_row {
	struct inet_hashinfo *hashinfo;
};

struct netns_ipv4 {
	struct inet_timewait_death_row tcp_death_row; /* a pointer from 5.18 to 6.0 (timewait.h) */
	int sysctl_tcp_keepalive_intvl; /* in jiffies */
};

struct net {
	struct ns_common ns;
	struct netns_ipv4 ipv4;
};

typedef struct {
	struct net *net;
} possible_net_t;

typedef struct {
	__s64 counter;
} atomic64_t;

typedef struct {
	int counter;
} atomic_t;

typedef struct {
	atomic_t refs;
} refcount_t;

struct proto {
	union {
		struct inet_hashinfo *hashinfo;
	} h;
};

struct sock_common {
	__be32 skc_daddr;
	__be32 skc_rcv_saddr;
	unsigned int skc_hash;
	__be16 skc_dport;
	__u16 skc_num;
	unsigned short skc_family;
	volatile unsigned char skc_state;
	struct proto *skc_prot;
	possible_net_t skc_net;
	struct in6_addr skc_v6_daddr;
	struct in6_addr skc_v6_rcv_saddr;
	struct hlist_nulls_node skc_nulls_node;
	unsigned long skc_flags;
	atomic64_t skc_cookie; /* 0 until it is first asked for */
	refcount_t skc_refcnt;
	__u32 skc_tw_snd_nxt; /* only of a timewait socket; in a union */
};

/* From 7.1 on owned is in an anonymous union; CO-RE still finds it by name. */
typedef struct {
	int owned;
} socket_lock_t;

typedef struct {
	__u32 val;
} kuid_t;

struct kernfs_iattrs {
	kuid_t ia_uid;
};

struct kernfs_node {
	__u64 id;
	const char *name;
	struct kernfs_node *__parent;
	struct kernfs_iattrs *iattr; /* NULL: root's, as at first */
	__u16 mode;
};

struct kernfs_node___before_6_15 {
	struct kernfs_node *parent;
};

struct cgroup_subsys_state {
	struct cgroup *cgroup;
	struct cgroup_subsys_state *parent;
};

struct cgroup {
	struct cgroup_subsys_state self;
	struct kernfs_node *kn;
};

struct sock_cgroup_data {
	struct cgroup *cgroup; /* since 5.15; before, a pointer inside val */
};

struct sock_cgroup_data___before_5_15 {
	__u64 val;
};

typedef struct {
	atomic64_t refcnt; /* negative: the file is released */
} file_ref_t;

struct file_operations;

struct file {
	struct file_operations *f_op;
	void *private_data;
	file_ref_t f_ref; /* since 6.13 */
};

struct file___before_6_13 {
	atomic64_t f_count;
};

struct fdtable {
	unsigned int max_fds;
	struct file **fd;
};

struct files_struct {
	unsigned int next_fd;
	struct fdtable *fdt;
};

struct socket {
	struct file *file;
	struct sock *sk;
};

struct sock {
	struct sock_common __sk_common;
	socket_lock_t sk_lock;
	kuid_t sk_uid;
	__u16 sk_protocol;
	int sk_err;
	int sk_err_soft;
	__u32 sk_txhash;
	__u32 sk_ack_backlog; /* of a listener: connections that wait for accept() */
	__u32 sk_max_ack_backlog; /* and their limit, less one */
	struct socket *sk_socket;
	struct sock_cgroup_data sk_cgrp_data;
	struct bpf_local_storage *sk_bpf_storage; /* of any BPF program; NULL: none */
};

struct inet_sock {
	struct sock sk;
	__be16 inet_sport;
	__u32 local_port_range; /* since 6.8; 0: the namespace's */
};

struct inet_sock___before_6_8 {
	struct {
		__u16 lo;
		__u16 hi;
	} local_port_range; /* since 6.3 */
};

struct inet_bind_bucket {
	signed char fastreuse; /* both are negative in a bucket that connect() has made */
	signed char fastreuseport;
};

struct inet_connection_sock {
	struct inet_sock icsk_inet;
	struct inet_bind_bucket *icsk_bind_hash;
	void *icsk_ulp_data;
};

struct tcp_sock {
	struct inet_connection_sock inet_conn;
	__u64 bytes_received;
	__u64 bytes_acked;
	__u64 bytes_sent;
	__u64 bytes_retrans;
	__u32 total_retrans;
	__u32 snd_una;
	__u32 snd_nxt;
	__u32 write_seq;
	__u32 rcv_nxt;
	__u32 copied_seq;
	__u32 srtt_us; /* eight times the smoothed round-trip time */
	__u32 snd_cwnd; /* congestion window, segments */
	int linger2;
	bool is_mptcp;
	__u8 repair : 1;
};

struct mptcp_subflow_context {
	struct sock *conn;
};

struct timer_list {
	unsigned long expires; /* in jiffies */
};

struct inet_timewait_sock {
	volatile unsigned char tw_substate;
	struct timer_list tw_timer;
	struct inet_bind_bucket *tw_tb;
};

struct tcp_timewait_sock {
	struct inet_timewait_sock tw_sk;
	int tw_ts_recent_stamp; /* when a timestamp of the peer came last; 0: never */
};

#if defined(__TARGET_ARCH_x86)

struct thread_info {
	__u32 status;
};

struct pt_regs {
	unsigned long bx;
	unsigned long cx;
	unsigned long dx;
	unsigned long di;
	unsigned long orig_ax; /* the number of the system call */
};

#elif defined(__TARGET_ARCH_arm64)

struct pt_regs {
	__u64 regs[31];
	__u64 pstate;
	__u64 orig_x0; /* the first argument */
	__s32 syscallno;
};

#endif

struct css_set {
	struct cgroup_subsys_state *subsys[MAX_CGROUP_SUBSYS];
	struct cgroup *dfl_cgrp;
};

struct list_head {
	struct list_head *next;
};

struct signal_struct {
	atomic_t live; /* threads that have not exited */
	struct list_head thread_head;
};

struct task_struct {
#if defined(__TARGET_ARCH_x86)
	struct thread_info thread_info;
#endif
	void *stack;
	struct list_head thread_node;
	unsigned int flags;
	int tgid;
	struct task_struct *group_leader;
	__u64 start_time;
	struct pid *thread_pid; /* NULL once it is reaped */
	char comm[TASK_COMM_LEN];
	struct files_struct *files;
	struct signal_struct *signal;
	struct css_set *cgroups;
};

struct bpf_iter_meta {
	struct seq_file *seq;
	__u64 seq_num; /* counts the objects */
};

struct bpf_iter__tcp {
	struct bpf_iter_meta *meta;
	struct sock_common *sk_common;
	__u32 uid;
};

struct bpf_iter__task_file {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
	__u32 fd;
	struct file *file;
};

#pragma clang attribute pop

#endif
