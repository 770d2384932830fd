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
	for _, f := range []Filter{{PIDs: []uint32{1}}, {Comms: []string{"a"}}, {Cgroups: []uint64{1}}, {Roles: []tcp.Role{tcp.RoleClient}}} {
		if !f.NeedsOwnerRoleOrCgroup() {
			t.Errorf("%+v needs no owner", f)
		}
	}
}

func endpoint(addr string, port uint16) tcp.Endpoint {
	return tcp.Endpoint{Addr: netip.MustParseAddr(addr), Port: port}
}
