package detection_test

import (
	"flag"
	"net/netip"
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/test/attacker"
	"github.com/tcpshift/tcpshift/test/tcplab"
)

// floodConnections is the number of connections of one flood that is not endless.
var floodConnections = flag.Int("flood", 50_000, "connections of a hostile user's flood")

// stormPorts is how many ports a storm exhausts beside attacks.
const stormPorts = 120

// stormBeside runs a storm beside attacks, and checks its alert: it comes in time,
// with its own numbers, and none is about what the attackers do not do.
func stormBeside(t *testing.T, attack func(s *hostPair) []*attacker.Process) {
	t.Helper()
	tr := startTracer(t, "alerts")
	s := newHostPair(t, tr, stormPorts)
	s.sysctl("net.ipv4.tcp_tw_reuse", 0)
	s.serve(80, afterPeer)
	attackers := attack(s)
	storm := s.run(workload{To: s.port(80), UntilNoPort: true, Phases: []phase{{PerSecond: 20, For: waitLimit}}})
	opened := awaitAlert(t, tr, s.client, "time_wait_storm")
	if opened.Capacity != stormPorts || opened.Occupancy > stormPorts || opened.PeerAddr != s.to.String() || opened.PeerPort != 80 {
		t.Errorf("%+v", opened)
	}
	exhausted := <-storm
	if late := opened.came.Sub(exhausted.FirstNoPort); late > 3*time.Second {
		t.Errorf("the alert came %v after the last port was taken", late)
	}
	for _, a := range attackers {
		a.Stop()
	}
	tr.stop()
	for _, a := range tr.alerts {
		if ip, err := netip.ParseAddr(a.PeerAddr); a.Kind == "time_wait_storm" && err == nil && ip.IsLoopback() {
			t.Errorf("the flood makes no TIME_WAIT, and has a storm: %+v", a)
			break
		}
	}
	t.Logf("%d alerts in all; the storm's at %d of %d", len(tr.alerts), opened.Occupancy, opened.Capacity)
}

// Whatever a user without privileges does in namespaces of his own, the storm of another one
// is reported, with its own numbers, and the tracer goes on.
func TestHostile_FloodBesideStorm(t *testing.T) {
	tcplab.RequireRoot(t)
	for name, attacks := range map[string][]attacker.Attack{
		"destinations": {{Connections: 1 << 20, Destinations: 1}, {Connections: 1 << 20, Destinations: 1 << 20}},
		"refused":      {{Connections: 1 << 20, Destinations: 1 << 20, Refused: true}, {Connections: 10_000, Destinations: 10, Namespaces: 300, Refused: true}},
		"namespaces":   {{Connections: 10_000, Destinations: 100, Namespaces: 300}},
	} {
		t.Run(name, func(t *testing.T) {
			stormBeside(t, func(*hostPair) (list []*attacker.Process) {
				for _, a := range attacks {
					a.Endless = true
					list = append(list, attacker.Start(t, a))
				}
				return list
			})
		})
	}
}

// Many short connections of one user, half a million in make soak-chaos, and the storm of another
// one among them.
func TestHostile_ManyConnections(t *testing.T) {
	tcplab.RequireRoot(t)
	began := time.Now()
	stormBeside(t, func(*hostPair) []*attacker.Process {
		flood := attacker.Start(t, attacker.Attack{Connections: *floodConnections, Destinations: 1})
		t.Cleanup(func() {
			flood.Wait()
			t.Logf("%d connections in %v", *floodConnections, time.Since(began))
		})
		return nil
	})
}

// inside starts attacks in the network namespace of the storm's client: on most hosts all users
// share one.
func inside(t *testing.T, s *hostPair, attacks ...attacker.Attack) (list []*attacker.Process) {
	t.Helper()
	for _, a := range attacks {
		list = append(list, attacker.StartIn(t, s.client.Do, a))
	}
	return list
}

// The same in the namespace of the victim: floods of destinations, of alerts and of listeners
// leave the storm of another user its alert.
func TestHostile_FloodInTheSameNamespace(t *testing.T) {
	tcplab.RequireRoot(t)
	for name, attacks := range map[string][]attacker.Attack{
		"destinations": {{Connections: 1 << 20, Destinations: 1 << 20, Endless: true}},
		"refused":      {{Connections: 1 << 20, Destinations: 1 << 20, Refused: true, Endless: true}},
		"alerts":       {{Connections: 300 * 100, Destinations: 300, InARow: 100, Refused: true, Endless: true}},
		"listeners":    {{Listeners: 3000}, {Connections: 1 << 20, Destinations: 1 << 20, Refused: true, Endless: true}},
		"half closed":  {{HalfClosed: 30}, {Connections: 1 << 20, Destinations: 1 << 20, Endless: true}},
	} {
		t.Run(name, func(t *testing.T) {
			stormBeside(t, func(s *hostPair) []*attacker.Process { return inside(t, s, attacks...) })
		})
	}
}

// While one user has all the alerts of a kind that he may have, another one still gets his.
func TestHostile_AlertsOfAnotherUser(t *testing.T) {
	tcplab.RequireRoot(t)
	tr := startTracer(t, "alerts")
	s := newHostPair(t, tr, 20_000)
	attackers := inside(t, s, attacker.Attack{Connections: 300 * 200, Destinations: 300, InARow: 200, Refused: true, Endless: true})
	for began := time.Now(); len(pick(tr.of(s.client.Inode()), "connect_failures", "open")) < 128; time.Sleep(100 * time.Millisecond) {
		if time.Since(began) > waitLimit {
			t.Fatalf("the attacker has %d alerts, want 128", len(pick(tr.of(s.client.Inode()), "connect_failures", "open")))
		}
	}
	victim := s.run(workload{To: s.port(81), Phases: []phase{{PerSecond: 30, For: 15 * time.Second}}})
	for began := time.Now(); ; time.Sleep(100 * time.Millisecond) {
		found := false
		for _, a := range pick(tr.of(s.client.Inode()), "connect_failures", "open") {
			found = found || a.PeerPort == 81 && a.PeerAddr == s.to.String()
		}
		if found {
			break
		}
		if time.Since(began) > waitLimit {
			t.Fatal("the failing connects of another user have no alert")
		}
	}
	<-victim
	for _, a := range attackers {
		a.Stop()
	}
}

// The queue of a listener is read beside thousands of another user's that overflow, and has its
// alert.
func TestHostile_ListenerOfAnotherUser(t *testing.T) {
	tcplab.RequireRoot(t)
	tr := startTracer(t, "alerts")
	s := newHostPair(t, tr, 20_000)
	listeners := attacker.StartIn(t, s.server.Do, attacker.Attack{Listeners: 5000})
	pid := s.startServer(workload{Listen: s.port(90), NeverAccept: true, Backlog: 4})
	var opened alert
	for deadline := time.Now().Add(waitLimit); opened.PID == 0; time.Sleep(100 * time.Millisecond) {
		for _, a := range pick(tr.of(s.server.Inode()), listenQueueFull, "open") {
			if a.LocalPort == 90 {
				opened = a
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("the full queue of another user's listener has no alert, %d others have", len(tr.of(s.server.Inode())))
		}
		knock(t, s.client, s.port(90))
	}
	if opened.PID != pid {
		t.Errorf("the alert names %d, want %d: %+v", opened.PID, pid, opened)
	}
	listeners.Stop()
}
