/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The filters that user space asks for: does a transition match them. A filter names what it
 * passes, or what it excludes. What is not known passes every exclusion and no other filter.
 */
#ifndef TCPSHIFT_FILTER_H
#define TCPSHIFT_FILTER_H

#include "kernel.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include "cgroup.h"
#include "config.h"
#include "endpoints.h"
#include "follow.h"
#include "process_ref.h"
#include "timewait.h"

/* The end of a connection that a port or address filter is about. */
enum side {
	SIDE_EITHER,
	SIDE_LOCAL,
	SIDE_PEER,
	EXCLUDED_EITHER, /* what must not be at this end */
	EXCLUDED_LOCAL,
	EXCLUDED_PEER,
	SIDES,
};

/* The bits of filter_ports and filter_addrs for the sides that exclude. */
#define EXCLUDED_SIDES (1 << EXCLUDED_EITHER | 1 << EXCLUDED_LOCAL | 1 << EXCLUDED_PEER)

#define MAX_CGROUP_DEPTH 32 /* bounds a loop, for the verifier */
#define PORT_WORDS (65536 / 64)

/* A bit for each port; that of port 0 is never used. */
struct port_set {
	__u64 bits[PORT_WORDS];
};

/*
 * The ports of the filters, by side. User space fills it before it attaches the
 * programs; they only read. An array, so it cannot be full.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SIDES);
	__type(key, __u32); /* enum side */
	__type(value, struct port_set);
} filter_port_sets SEC(".maps");

/* The key of filter_prefixes. */
struct prefix_key {
	__u32 prefixlen; /* PREFIX_KIND_BITS and the bits of the address */
	__u8 side; /* enum side */
	__u8 family; /* 4 or 6 */
	__u16 zero;
	__u32 addr[4]; /* network order; IPv4 in the first word */
};

#define PREFIX_KIND_BITS 32 /* the bits of side, family and zero */

/*
 * The address prefixes of the filters. User space sizes it for them before load and
 * fills it before it attaches the programs; they only read. It cannot be full.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1);
	__type(key, struct prefix_key);
	__type(value, __u8);
} filter_prefixes SEC(".maps");

/* What a key of filter_members is, and whether the filter passes or excludes it. */
enum member_kind {
	MEMBER_NETNS,
	MEMBER_PID,
	MEMBER_COMM,
	MEMBER_CGROUP,
	MEMBER_UID,
	EXCLUDED_NETNS,
	EXCLUDED_PID,
	EXCLUDED_COMM,
	EXCLUDED_CGROUP,
	EXCLUDED_UID,
};

/* The key of filter_members. */
struct member_key {
	__u32 kind; /* enum member_kind */
	__u8 value[16]; /* an id in the first eight bytes, or a comm; then zeros */
};

/*
 * The namespaces, pids, comms, cgroups and uids of the filters. User space sizes it for them
 * before load and fills it before it attaches the programs; they only read. It cannot
 * be full.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, struct member_key);
	__type(value, __u8);
} filter_members SEC(".maps");

/* Whether the filters of this kind name the id: of a namespace, process, cgroup or user. */
static __always_inline bool is_member(enum member_kind kind, __u64 id)
{
	struct member_key key = {.kind = kind};

	__builtin_memcpy(key.value, &id, sizeof(id));
	return bpf_map_lookup_elem(&filter_members, &key) != NULL;
}

/* As is_member(), for the name of a process. All 16 bytes count. */
static __always_inline bool is_member_comm(enum member_kind kind, const __u8 comm[TASK_COMM_LEN])
{
	struct member_key key = {.kind = kind};

	__builtin_memcpy(key.value, comm, TASK_COMM_LEN);
	return bpf_map_lookup_elem(&filter_members, &key) != NULL;
}

/* Whether the set of a side has the port, in host order. No set has port 0. */
static __always_inline bool port_set_has(enum side side, __u16 port)
{
	__u32 key = side, word = port / 64;
	struct port_set *set = bpf_map_lookup_elem(&filter_port_sets, &key);

	barrier_var(word); /* the compiler knows its bounds, the verifier does not always */
	return set && port && word < PORT_WORDS && set->bits[word] >> (port % 64) & 1;
}

/* Whether the ports match the filters that name what to pass; ports_excluded() has the others. */
static __always_inline bool ports_match(const struct endpoints *ep)
{
	if (filter_ports & 1 << SIDE_EITHER && !port_set_has(SIDE_EITHER, ep->local_port) &&
	    !port_set_has(SIDE_EITHER, ep->peer_port))
		return false;
	if (filter_ports & 1 << SIDE_LOCAL && !port_set_has(SIDE_LOCAL, ep->local_port))
		return false;
	return !(filter_ports & 1 << SIDE_PEER) || port_set_has(SIDE_PEER, ep->peer_port);
}

/* Whether the filters exclude one of the ports. A port that is not known, 0, is in no set. */
static __always_inline bool ports_excluded(const struct endpoints *ep)
{
	if (filter_ports & 1 << EXCLUDED_EITHER && (port_set_has(EXCLUDED_EITHER, ep->local_port) ||
						    port_set_has(EXCLUDED_EITHER, ep->peer_port)))
		return true;
	if (filter_ports & 1 << EXCLUDED_LOCAL && port_set_has(EXCLUDED_LOCAL, ep->local_port))
		return true;
	return filter_ports & 1 << EXCLUDED_PEER && port_set_has(EXCLUDED_PEER, ep->peer_port);
}

/* Whether a prefix of the side's filters covers the address. */
static __always_inline bool prefixes_have(enum side side, __u8 family, const __u32 addr[4])
{
	struct prefix_key key = {
		.prefixlen = PREFIX_KIND_BITS + (family == 4 ? 32 : 128),
		.side = side,
		.family = family,
	};

	__builtin_memcpy(key.addr, addr, sizeof(key.addr));
	return bpf_map_lookup_elem(&filter_prefixes, &key) != NULL;
}

/* Whether the address is 0.0.0.0 or ::. */
static __always_inline bool is_unspecified(const __u32 addr[4])
{
	return !(addr[0] | addr[1] | addr[2] | addr[3]);
}

/* Whether a prefix has the local address. One that is not chosen yet is in no prefix. */
static __always_inline bool prefixes_have_local(enum side side, const struct endpoints *ep)
{
	return (ep->listens || !is_unspecified(ep->local_addr)) &&
	       prefixes_have(side, ep->family, ep->local_addr);
}

/* Whether a prefix has the peer's address. A listener has no peer, which is in no prefix. */
static __always_inline bool prefixes_have_peer(enum side side, const struct endpoints *ep)
{
	return !is_unspecified(ep->peer_addr) && prefixes_have(side, ep->family, ep->peer_addr);
}

/*
 * Whether the addresses match the filters that name what to pass; addrs_excluded() has the others.
 */
static __always_inline bool addrs_match(const struct endpoints *ep)
{
	if (filter_addrs & 1 << SIDE_EITHER && !prefixes_have_local(SIDE_EITHER, ep) &&
	    !prefixes_have_peer(SIDE_EITHER, ep))
		return false;
	if (filter_addrs & 1 << SIDE_LOCAL && !prefixes_have_local(SIDE_LOCAL, ep))
		return false;
	return !(filter_addrs & 1 << SIDE_PEER) || prefixes_have_peer(SIDE_PEER, ep);
}

/* Whether the filters exclude one of the addresses. */
static __always_inline bool addrs_excluded(const struct endpoints *ep)
{
	if (filter_addrs & 1 << EXCLUDED_EITHER &&
	    (prefixes_have_local(EXCLUDED_EITHER, ep) || prefixes_have_peer(EXCLUDED_EITHER, ep)))
		return true;
	if (filter_addrs & 1 << EXCLUDED_LOCAL && prefixes_have_local(EXCLUDED_LOCAL, ep))
		return true;
	return filter_addrs & 1 << EXCLUDED_PEER && prefixes_have_peer(EXCLUDED_PEER, ep);
}

/*
 * Whether the cgroup or one of its ancestors is in filter_members. Global, so that the
 * verifier walks the loop only once.
 */
__noinline int is_in_member_cgroup(__u64 address, __u32 kind)
{
	struct cgroup *cgroup = (struct cgroup *)address;

	for (int i = 0; i < MAX_CGROUP_DEPTH && cgroup; i++) {
		if (is_member(kind, BPF_CORE_READ(cgroup, kn, id)))
			return 1;
		cgroup = BPF_CORE_READ(cgroup, self.parent, cgroup);
	}
	return 0;
}

/*
 * Whether the filters pass the cgroup in which the socket was created. A filter on a cgroup is also
 * on the cgroups below it, and an exclusion too.
 */
static __always_inline bool cgroup_matches(const struct sock *sk)
{
	__u64 cgroup;

	if (!filter_cgroup && !exclude_cgroup)
		return true;
	cgroup = (__u64)cgroup_of_socket(sk);
	if (exclude_cgroup && is_in_member_cgroup(cgroup, EXCLUDED_CGROUP))
		return false;
	return !filter_cgroup || is_in_member_cgroup(cgroup, MEMBER_CGROUP);
}

/* Whether the filters on pids and names exclude a known owner. */
static __always_inline bool owner_excluded(const struct owner *owner)
{
	if (exclude_pid && is_member(EXCLUDED_PID, owner->ref.pid))
		return true;
	return exclude_comm && is_member_comm(EXCLUDED_COMM, owner->comm);
}

/*
 * A transition without a known owner matches no filter on owners, and is not excluded. With
 * exclude_self the tracer's own transitions do not match.
 */
static __always_inline bool owner_matches(const struct owner *owner)
{
	if (exclude_self && owner->ref.source_and_flags & REF_SELF)
		return false;
	if (!owner->ref.pid)
		return !filter_pid && !filter_comm && !follow_children;
	if (follow_children && !is_followed(&owner->ref))
		return false;
	if (filter_pid && !is_member(MEMBER_PID, owner->ref.pid))
		return false;
	if (filter_comm && !is_member_comm(MEMBER_COMM, owner->comm))
		return false;
	return !owner_excluded(owner);
}

/* Whether a filter needs the owner. exclude_self is not one of these. */
static __always_inline bool filters_on_owners(void)
{
	return filter_pid || filter_comm || exclude_pid || exclude_comm || follow_children;
}

/* Whether the filters pass the socket's user: sk_uid, the uid of its record. */
static __always_inline bool uid_matches(__u32 uid)
{
	if (exclude_uid && is_member(EXCLUDED_UID, uid))
		return false;
	return !filter_uid || is_member(MEMBER_UID, uid);
}

/* Whether the mask has this bit; false from bit 32 on. */
static __always_inline bool has_bit(__u32 mask, __u32 bit)
{
	return bit < 32 && mask >> bit & 1;
}

/* Whether the filter on roles passes the role. Without a filter every role passes. */
static __always_inline bool role_matches(__u8 role)
{
	return !filter_roles || has_bit(filter_roles, role);
}

/* Whether the filter on states passes. new_state: TCP_TIME_WAIT if the CLOSE leaves a TIME_WAIT. */
static __always_inline bool states_match(__u32 old_state, __u32 new_state)
{
	if (!filter_states)
		return true;
	return old_state < 32 && has_bit(wanted_states[old_state & 31], new_state);
}

/*
 * As states_match(), for new_state as the tracepoint reports it: before the search for a
 * timewait socket, which costs more.
 */
static __always_inline bool states_may_match(__u32 old_state, __u32 new_state)
{
	return states_match(old_state, new_state) ||
	       (may_leave_timewait(old_state, new_state) && states_match(old_state, TCP_TIME_WAIT));
}

/*
 * Whether the filter on states leaves out each child's first transition. Then no transition is
 * deferred, because only that one may be.
 */
static __always_inline bool leaves_out_creations(void)
{
	return filter_states && !states_match(TCP_LISTEN, TCP_SYN_RECV);
}

/* Whether the filters pass the network namespace with this inode number. */
static __always_inline bool netns_matches(__u32 netns)
{
	if (exclude_netns && is_member(EXCLUDED_NETNS, netns))
		return false;
	return !filter_netns || is_member(MEMBER_NETNS, netns);
}

/* Whether there is a filter on the family, a port or an address, also one that excludes. */
static __always_inline bool filters_on_endpoints(void)
{
	return filter_family || filter_ports || filter_addrs;
}

/*
 * Whether all filters on the family, the ports and the addresses pass, those that exclude included.
 */
static __always_inline bool endpoints_match(const struct endpoints *ep)
{
	if (filter_family && ep->family != filter_family)
		return false;
	if (filter_ports & ~EXCLUDED_SIDES && !ports_match(ep))
		return false;
	if (filter_addrs & ~EXCLUDED_SIDES && !addrs_match(ep))
		return false;
	if (filter_ports & EXCLUDED_SIDES && ports_excluded(ep))
		return false;
	return !(filter_addrs & EXCLUDED_SIDES) || !addrs_excluded(ep);
}

#endif
