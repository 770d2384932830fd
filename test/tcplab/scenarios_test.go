package tcplab

import (
	"fmt"
	"slices"
	"testing"
)

// Every scenario causes the events that its comment lists. (Scenarios check TCP_INFO
// and errors themselves.)
func TestScenario_DocumentedPaths(t *testing.T) {
	w := newStateLog(t)
	for _, s := range Scenarios {
		for _, f := range Families {
			t.Run(fmt.Sprintf("%s %v", s.Name, f), func(t *testing.T) {
				t.Parallel()
				n := NewNetns(t)
				out := s.Run(n, f)
				checkPaths(t, w.events(t, touches(out)), out)
				checkSubstate(t, n, out)
			})
		}
	}
}

func checkPaths(t *testing.T, events []event, out Outcome) {
	t.Helper()
	var walks []*walk
	for _, p := range out.Endpoints() {
		walks = append(walks, &walk{endpoint: p})
	}
	if !replay(events, walks) {
		for _, w := range walks {
			t.Errorf("path of %v to %v: want %v", w.endpoint.Local, w.endpoint.Remote, w.endpoint.Path)
		}
		t.Errorf("all events: %v", events)
	}
}

// walk is an endpoint on its path.
type walk struct {
	endpoint *Endpoint
	at       int // index of its state
}

// replay reports whether the events are the steps of the walks, each in order. An event
// may fit several walks: replay tries all assignments.
func replay(events []event, walks []*walk) bool {
	if len(events) == 0 {
		return !slices.ContainsFunc(walks, func(w *walk) bool { return w.at != len(w.endpoint.Path)-1 })
	}
	for _, w := range walks {
		if !w.isNext(events[0]) {
			continue
		}
		w.at++
		if replay(events[1:], walks) {
			return true
		}
		w.at--
	}
	return false
}

func (w *walk) isNext(e event) bool {
	path := w.endpoint.Path
	return w.at+1 < len(path) && e.from == path[w.at] && e.to == path[w.at+1] && fits(e, w.endpoint)
}

// fits allows for ports that the kernel does not have at some events, and for ports
// that the endpoint does not know.
func fits(e event, p *Endpoint) bool {
	return (e.sport == 0 || p.Local.Port() == 0 || e.sport == p.Local.Port()) &&
		(e.dport == 0 || e.dport == p.Remote.Port())
}

// touches reports whether a port belongs to the outcome only.
func touches(out Outcome) func(sport, dport uint16) bool {
	own := map[uint16]bool{}
	for _, p := range out.Endpoints() {
		for _, port := range []uint16{p.Local.Port(), p.Remote.Port()} {
			if port >= FirstFreshPort && port < FirstFreshPort+freshPorts {
				own[port] = true
			}
		}
	}
	return func(sport, dport uint16) bool { return own[sport] || own[dport] }
}

func checkSubstate(t *testing.T, n *Netns, out Outcome) {
	t.Helper()
	for _, p := range out.Endpoints() {
		if got := n.TimewaitSubstate(p); got != p.Substate {
			t.Errorf("%v to %v left a timewait socket in %v, want %v", p.Local, p.Remote, got, p.Substate)
		}
	}
}
