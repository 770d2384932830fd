package filter

import (
	"net/netip"
	"slices"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// MatchesNetns reports whether the filter passes sockets of a namespace.
func (f *Filter) MatchesNetns(inode uint32) bool {
	return len(f.Netns) == 0 || slices.Contains(f.Netns, inode)
}

// NeedsOwnerRoleOrCgroup reports whether the filter is on the owner, the role or the cgroup of a socket,
// which internal/limits does not read. A socket without a known owner, role or cgroup does not
// match such a filter.
func (f *Filter) NeedsOwnerRoleOrCgroup() bool {
	return len(f.PIDs)+len(f.Comms)+len(f.Cgroups)+len(f.Roles) > 0
}

// MatchesEndpoints reports whether the family, the ports and the addresses of a connection
// pass, by the rules of endpoints_match() in bpf/filter.h. The caller must
// unmap v4-mapped addresses.
func (f *Filter) MatchesEndpoints(local, peer tcp.Endpoint) bool {
	if f.Family != 0 && (f.Family == 4) != local.Addr.Is4() {
		return false
	}
	return matchesSides(f.Ports, f.LocalPorts, f.PeerPorts, local.Port, peer.Port, PortRange.contains) &&
		matchesSides(f.Addrs, f.LocalAddrs, f.PeerAddrs, local.Addr, peer.Addr, netip.Prefix.Contains)
}

// matchesSides applies the filters on either side, on the local and on the peer's side.
// An empty filter passes all values.
func matchesSides[F, V any](either, local, peer []F, ofLocal, ofPeer V, matches func(F, V) bool) bool {
	has := func(filters []F, v V) bool {
		for _, f := range filters {
			if matches(f, v) {
				return true
			}
		}
		return len(filters) == 0
	}
	return (has(either, ofLocal) || has(either, ofPeer)) && has(local, ofLocal) && has(peer, ofPeer)
}

func (r PortRange) contains(port uint16) bool { return r.First <= port && port <= r.Last }
