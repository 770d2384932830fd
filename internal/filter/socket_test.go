package filter

import (
	"net/netip"
	"testing"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// A socket of the kernel's tables passes the filters that its transitions would pass.
func TestFilter_MatchesSockets(t *testing.T) {
	local, peer := endpoint("10.0.0.1", 40000), endpoint("10.0.0.2", 80)
	local6, peer6 := endpoint("2001:db8::1", 40000), endpoint("2001:db8::2", 80)
	port := []PortRange{{80, 90}}
	prefix := []netip.Prefix{netip.MustParsePrefix("10.0.0.2/32")}
	for _, c := range []struct {
		name   string
		filter Filter
		v4, v6 bool
	}{
		{"none", Filter{}, true, true},
		{"family 4", Filter{Family: 4}, true, false},
		{"family 6", Filter{Family: 6}, false, true},
		{"either port", Filter{Ports: port}, true, true},
		{"another port", Filter{Ports: []PortRange{{81, 39999}}}, false, false},
		{"peer port", Filter{PeerPorts: port}, true, true},
		{"local port", Filter{LocalPorts: port}, false, false},
		{"either address", Filter{Addrs: prefix}, true, false},
		{"peer address", Filter{PeerAddrs: prefix}, true, false},
		{"local address", Filter{LocalAddrs: prefix}, false, false},
		{"port and address", Filter{Ports: port, LocalAddrs: prefix}, false, false},
		{"not either port", Filter{Not: Exclusions{Ports: port}}, false, false},
		{"not another port", Filter{Not: Exclusions{Ports: []PortRange{{81, 39999}}}}, true, true},
		{"not peer port", Filter{Not: Exclusions{PeerPorts: port}}, false, false},
		{"not local port", Filter{Not: Exclusions{LocalPorts: port}}, true, true},
		{"not either address", Filter{Not: Exclusions{Addrs: prefix}}, false, true},
		{"not peer address", Filter{Not: Exclusions{PeerAddrs: prefix}}, false, true},
		{"not local address", Filter{Not: Exclusions{LocalAddrs: prefix}}, true, true},
		{"a port, and not an address", Filter{Ports: port, Not: Exclusions{Addrs: prefix}}, false, true},
	} {
		if got := c.filter.MatchesEndpoints(local, peer); got != c.v4 {
			t.Errorf("%s: IPv4 matches %v, want %v", c.name, got, c.v4)
		}
		if got := c.filter.MatchesEndpoints(local6, peer6); got != c.v6 {
			t.Errorf("%s: IPv6 matches %v, want %v", c.name, got, c.v6)
		}
	}
	inOther := Filter{Netns: []uint32{7}}
	if inOther.MatchesNetns(8) || !inOther.MatchesNetns(7) || !(&Filter{}).MatchesNetns(8) {
		t.Error("a filter on namespaces passes another namespace, or not its own")
	}
	for _, f := range []Filter{
		{Not: Exclusions{PIDs: []uint32{1}, Comms: []string{"a"}, Cgroups: []uint64{1}}}, {UIDs: []uint32{1}},
	} {
		if f.NeedsOwnerRoleOrCgroup() {
			t.Errorf("%+v needs an owner", f)
		}
	}
	notThere := Filter{Netns: []uint32{7, 8}, Not: Exclusions{Netns: []uint32{7}}}
	if notThere.MatchesNetns(7) || !notThere.MatchesNetns(8) || notThere.MatchesNetns(9) {
		t.Error("an excluded namespace passes, or another one does not")
	}
	for _, f := range []Filter{{PIDs: []uint32{1}}, {Comms: []string{"a"}}, {Cgroups: []uint64{1}}, {Roles: []tcp.Role{tcp.RoleClient}}} {
		if !f.NeedsOwnerRoleOrCgroup() {
			t.Errorf("%+v needs no owner", f)
		}
	}
}

// The user of a timewait socket is not known: it passes no filter on users, and every exclusion.
func TestFilter_MatchesUsers(t *testing.T) {
	open := tcp.Socket{Transition: tcp.Transition{New: tcp.Established, UID: 7}}
	timewait := tcp.Socket{Transition: tcp.Transition{New: tcp.TimeWait}}
	open.Local, open.Peer = endpoint("10.0.0.1", 40000), endpoint("10.0.0.2", 80)
	timewait.Local, timewait.Peer = open.Local, open.Peer
	for _, c := range []struct {
		name           string
		filter         Filter
		open, timewait bool
	}{
		{"none", Filter{}, true, true},
		{"its user", Filter{UIDs: []uint32{7}}, true, false},
		{"another user", Filter{UIDs: []uint32{8}}, false, false},
		{"user 0", Filter{UIDs: []uint32{0}}, false, false},
		{"not its user", Filter{Not: Exclusions{UIDs: []uint32{7}}}, false, true},
		{"not another user", Filter{Not: Exclusions{UIDs: []uint32{0, 8}}}, true, true},
		{"its user, and another port", Filter{UIDs: []uint32{7}, Ports: []PortRange{{1, 1}}}, false, false},
		{"not its port", Filter{Not: Exclusions{Ports: []PortRange{{80, 80}}}}, false, false},
	} {
		if got := c.filter.MatchesSocket(&open); got != c.open {
			t.Errorf("%s: an open socket matches %v, want %v", c.name, got, c.open)
		}
		if got := c.filter.MatchesSocket(&timewait); got != c.timewait {
			t.Errorf("%s: a timewait socket matches %v, want %v", c.name, got, c.timewait)
		}
	}
}

// A listener has no peer, which neither a filter nor an exclusion matches, also if its peer's address is read as the
// unspecified one. Its own unspecified address is known.
func TestFilter_MatchesListeners(t *testing.T) {
	everything := []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}
	l := tcp.Listener{Local: endpoint("0.0.0.0", 80), UID: 7}
	for _, c := range []struct {
		name   string
		filter Filter
		want   bool
	}{
		{"none", Filter{}, true},
		{"not its port", Filter{Not: Exclusions{Ports: []PortRange{{80, 80}}}}, false},
		{"not its address", Filter{Not: Exclusions{LocalAddrs: everything}}, false},
		{"an address", Filter{Addrs: everything}, true},
		{"its address", Filter{LocalAddrs: everything}, true},
		{"every peer's address", Filter{PeerAddrs: everything}, false},
		{"every peer's port", Filter{PeerPorts: []PortRange{{1, 65535}}}, false},
		{"not a peer", Filter{Not: Exclusions{PeerAddrs: everything, PeerPorts: []PortRange{{1, 65535}}}}, true},
		{"its user", Filter{UIDs: []uint32{7}}, true},
		{"not its user", Filter{Not: Exclusions{UIDs: []uint32{7}}}, false},
	} {
		if got := c.filter.MatchesListener(&l); got != c.want {
			t.Errorf("%s: the listener matches %v, want %v", c.name, got, c.want)
		}
		if got := c.filter.MatchesEndpoints(l.Local, endpoint("0.0.0.0", 0)); len(c.filter.UIDs)+len(c.filter.Not.UIDs) == 0 && got != c.want {
			t.Errorf("%s: the listener with an unspecified peer matches %v, want %v", c.name, got, c.want)
		}
	}
}

func endpoint(addr string, port uint16) tcp.Endpoint {
	return tcp.Endpoint{Addr: netip.MustParseAddr(addr), Port: port}
}
