package filter

import (
	"net/netip"
	"testing"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// A transition passes the filters that the kernel programs pass it by: an unknown value matches no filter and no exclusion.
func TestFilter_MatchesTransitions(t *testing.T) {
	owner := tcp.Owner{PID: 7, Comm: tcp.Comm{'c', 'u', 'r', 'l'}, Source: tcp.PIDTask}
	established := tcp.Transition{
		Netns: 5, UID: 33, Owner: owner, Role: tcp.RoleClient, Old: tcp.SynSent, New: tcp.Established,
		Local: endpoint("10.0.0.1", 40000), Peer: endpoint("10.0.0.2", 80),
	}
	began := established // connect() has chosen neither the local address nor the port
	began.Old, began.New, began.Local = tcp.Close, tcp.SynSent, tcp.Endpoint{}
	listens := tcp.Transition{Netns: 5, IPv6: true, Role: tcp.RoleListener, Old: tcp.Close, New: tcp.Listen, Local: endpoint("::", 80)}
	local := []PortRange{{40000, 40000}}
	prefix := []netip.Prefix{netip.MustParsePrefix("10.0.0.1/32")}
	any6 := []netip.Prefix{netip.MustParsePrefix("::/0")}
	for _, c := range []struct {
		name                        string
		filter                      Filter
		established, began, listens bool
	}{
		{"none", Filter{}, true, true, true},
		{"namespace", Filter{Netns: []uint32{5}}, true, true, true},
		{"not namespace", Filter{Not: Exclusions{Netns: []uint32{5}}}, false, false, false},
		{"family 4", Filter{Family: 4}, true, true, false},
		{"family 6", Filter{Family: 6}, false, false, true},
		{"local port", Filter{LocalPorts: local}, true, false, false},
		{"not local port", Filter{Not: Exclusions{LocalPorts: local}}, false, true, true},
		{"local address", Filter{LocalAddrs: prefix}, true, false, false},
		{"not local address", Filter{Not: Exclusions{LocalAddrs: prefix}}, false, true, true},
		{"peer address", Filter{PeerAddrs: any6}, false, false, false},
		{"local address of a listener", Filter{LocalAddrs: any6}, false, false, true},
		{"pid", Filter{PIDs: []uint32{7}}, true, true, false},
		{"not pid", Filter{Not: Exclusions{PIDs: []uint32{7}}}, false, false, true},
		{"comm", Filter{Comms: []string{"curl"}}, true, true, false},
		{"a prefix of comm", Filter{Comms: []string{"cur"}}, false, false, false},
		{"not comm", Filter{Not: Exclusions{Comms: []string{"curl", "wget"}}}, false, false, true},
		{"pid and another comm", Filter{PIDs: []uint32{7}, Comms: []string{"wget"}}, false, false, false},
		{"user", Filter{UIDs: []uint32{33}}, true, true, false},
		{"not user", Filter{Not: Exclusions{UIDs: []uint32{33}}}, false, false, true},
		{"role", Filter{Roles: []tcp.Role{tcp.RoleListener, tcp.RoleServer}}, false, false, true},
		{"old state", Filter{OldStates: []tcp.State{tcp.Close}}, false, true, true},
		{"new state", Filter{NewStates: []tcp.State{tcp.Listen, tcp.Established}}, true, false, true},
		{"both states", Filter{OldStates: []tcp.State{tcp.Close}, NewStates: []tcp.State{tcp.Established}}, false, false, false},
		{"port and role", Filter{Ports: local, Roles: []tcp.Role{tcp.RoleServer}}, false, false, false},
	} {
		for _, each := range []struct {
			name       string
			transition *tcp.Transition
			want       bool
		}{{"ESTABLISHED", &established, c.established}, {"SYN_SENT", &began, c.began}, {"LISTEN", &listens, c.listens}} {
			if got := passes(&c.filter, each.transition); got != each.want {
				t.Errorf("%s: the transition to %s matches %v, want %v", c.name, each.name, got, each.want)
			}
		}
	}
	orphan := Filter{ExcludeOrphanFinWait2: true}
	for _, noProcess := range []bool{true, false} {
		if got := passes(&orphan, &tcp.Transition{Old: tcp.FinWait1, New: tcp.FinWait2, NoProcess: noProcess}); got == noProcess {
			t.Errorf("FIN_WAIT2, NoProcess %v: it matches %v", noProcess, got)
		}
	}
	states := Filter{NewStates: []tcp.State{tcp.Close}}
	if passes(&states, &established) || !states.MatchesExceptStates(&established) {
		t.Error("MatchesExceptStates notices the filter on states")
	}
}

func passes(f *Filter, t *tcp.Transition) bool { return f.MatchesStates(t) && f.MatchesExceptStates(t) }
