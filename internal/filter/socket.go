package filter

import (
	"net/netip"
	"slices"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// MatchesNetns reports whether the filter passes sockets of a namespace.
func (f *Filter) MatchesNetns(inode uint32) bool {
	return (len(f.Netns) == 0 || slices.Contains(f.Netns, inode)) && !slices.Contains(f.Not.Netns, inode)
}

// NeedsOwnerRoleOrCgroup reports whether the filter passes only some owners, roles or cgroups of
// sockets, which internal/limits does not read. A socket without a known owner, role or cgroup
// does not match such a filter. It is never excluded for its owner or cgroup.
func (f *Filter) NeedsOwnerRoleOrCgroup() bool {
	return f.Children || len(f.PIDs)+len(f.Comms)+len(f.Cgroups)+len(f.Roles) > 0
}

// MatchesSocket reports whether the endpoints and the user of a socket pass. The user of a
// timewait socket is not known, so it passes no filter on users and is not excluded for its user.
func (f *Filter) MatchesSocket(s *tcp.Socket) bool {
	if s.New == tcp.TimeWait {
		return len(f.UIDs) == 0 && f.MatchesEndpoints(s.Local, s.Peer)
	}
	return f.matchesUID(s.UID) && f.MatchesEndpoints(s.Local, s.Peer)
}

// MatchesListener reports whether the endpoint and the user of a listener pass.
func (f *Filter) MatchesListener(l *tcp.Listener) bool {
	return f.matchesUID(l.UID) && f.MatchesEndpoints(l.Local, tcp.Endpoint{})
}

func (f *Filter) matchesUID(uid uint32) bool {
	return (len(f.UIDs) == 0 || slices.Contains(f.UIDs, uid)) && !slices.Contains(f.Not.UIDs, uid)
}

// MatchesEndpoints reports whether the family, the ports and the addresses of a connection
// pass, by the rules of endpoints_match() in bpf/filter.h. The caller must
// unmap v4-mapped addresses.
func (f *Filter) MatchesEndpoints(local, peer tcp.Endpoint) bool {
	return f.matchesFamily(local.Addr.Is4()) && f.matchesEnds(local, peer)
}

func (f *Filter) matchesFamily(isIPv4 bool) bool { return f.Family == 0 || (f.Family == 4) == isIPv4 }

// matchesEnds is MatchesEndpoints without the family.
func (f *Filter) matchesEnds(local, peer tcp.Endpoint) bool {
	peer.Addr = known(peer.Addr)
	return matchesSides(f.Ports, f.LocalPorts, f.PeerPorts, local.Port, peer.Port, PortRange.contains) &&
		matchesSides(f.Addrs, f.LocalAddrs, f.PeerAddrs, local.Addr, peer.Addr, netip.Prefix.Contains) &&
		!excludesSides(f.Not.Ports, f.Not.LocalPorts, f.Not.PeerPorts, local.Port, peer.Port, PortRange.contains) &&
		!excludesSides(f.Not.Addrs, f.Not.LocalAddrs, f.Not.PeerAddrs, local.Addr, peer.Addr, netip.Prefix.Contains)
}

// known returns the zero Addr, which is in no prefix, for an unspecified address: the peer of a
// socket without a peer. The local address of a listener may be unspecified and known.
func known(addr netip.Addr) netip.Addr {
	if addr.IsUnspecified() {
		return netip.Addr{}
	}
	return addr
}

// matchesSides applies the filters on either side, on the local and on the peer's side.
// An empty filter passes all values.
func matchesSides[F, V any](either, local, peer []F, ofLocal, ofPeer V, matches func(F, V) bool) bool {
	has := func(filters []F, v V) bool { return len(filters) == 0 || matchesAny(filters, v, matches) }
	return (has(either, ofLocal) || has(either, ofPeer)) && has(local, ofLocal) && has(peer, ofPeer)
}

// excludesSides reports whether the exclusions of either side, of the local or of the peer's side
// have the value of that side.
func excludesSides[F, V any](either, local, peer []F, ofLocal, ofPeer V, matches func(F, V) bool) bool {
	return matchesAny(either, ofLocal, matches) || matchesAny(either, ofPeer, matches) ||
		matchesAny(local, ofLocal, matches) || matchesAny(peer, ofPeer, matches)
}

func matchesAny[F, V any](filters []F, v V, matches func(F, V) bool) bool {
	return slices.ContainsFunc(filters, func(f F) bool { return matches(f, v) })
}

func (r PortRange) contains(port uint16) bool { return r.First <= port && port <= r.Last }
