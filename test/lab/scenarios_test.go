package lab

import (
	"fmt"
	"testing"
)

// The scenarios check themselves, by TCP_INFO and by each errno on the way.
// What is checked here is what they promise about the kernel's events.
func TestEveryScenarioTakesItsDocumentedPath(t *testing.T) {
	RequireRoot(t)
	for _, s := range Scenarios {
		for _, f := range Families {
			t.Run(fmt.Sprintf("%s %v", s.Name, f), func(t *testing.T) {
				t.Parallel()
				n := NewNetns(t)
				w := newWatch(t, 256)
				out := s.Run(n, f)
				checkPaths(t, w.events(t, touches(out)), out)
				checkLeft(t, n, out)
			})
		}
	}
}

func checkPaths(t *testing.T, events []event, out Outcome) {
	t.Helper()
	parties := out.Parties()
	if !replay(events, parties, make([]int, len(parties))) {
		for _, p := range parties {
			t.Errorf("%v to %v: want %v", p.Local, p.Remote, p.Path)
		}
		t.Errorf("got, in all:\n%v", events)
	}
}

// replay tells whether the events are the steps of the parties, each party's
// in the order of its path. An event may fit more than one party: all
// assignments are tried. at is how far each party has come.
func replay(events []event, parties []*Party, at []int) bool {
	if len(events) == 0 {
		for i, p := range parties {
			if at[i] != len(p.Path)-1 {
				return false
			}
		}
		return true
	}
	for i, p := range parties {
		if !isNext(events[0], p, at[i]) {
			continue
		}
		at[i]++
		if replay(events[1:], parties, at) {
			return true
		}
		at[i]--
	}
	return false
}

func isNext(e event, p *Party, at int) bool {
	return at+1 < len(p.Path) && e.from == p.Path[at] && e.to == p.Path[at+1] && fits(e, p)
}

// fits allows for the ports that the kernel does not have at some events, and
// for those that the party does not know.
func fits(e event, p *Party) bool {
	return (e.sport == 0 || p.Local.Port() == 0 || e.sport == p.Local.Port()) &&
		(e.dport == 0 || e.dport == p.Remote.Port())
}

// touches is true for the ports of the outcome that no other test has.
func touches(out Outcome) func(sport, dport uint16) bool {
	own := map[uint16]bool{}
	for _, p := range out.Parties() {
		for _, port := range []uint16{p.Local.Port(), p.Remote.Port()} {
			if port >= firstFreshPort && port < firstFreshPort+freshPorts {
				own[port] = true
			}
		}
	}
	return func(sport, dport uint16) bool { return own[sport] || own[dport] }
}

func checkLeft(t *testing.T, n *Netns, out Outcome) {
	t.Helper()
	for _, p := range out.Parties() {
		if got := n.Left(p); got != p.Left {
			t.Errorf("%v to %v left a timewait socket in %v, want %v", p.Local, p.Remote, got, p.Left)
		}
	}
}
