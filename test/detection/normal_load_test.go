package detection_test

import (
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/test/tcplab"
)

// Loads that are normal on a host open no alert. They run at the same time, each in
// namespaces of its own, so that the namespace of an alert shows its load.
func TestAlert_NoneUnderNormalLoad(t *testing.T) {
	tcplab.RequireRoot(t)
	tr := startTracer(t, "alerts")
	t.Run("load", func(t *testing.T) {
		for name, load := range normalLoads {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				s := load(t, tr)
				for _, a := range append(tr.of(s.client.Inode()), tr.of(s.server.Inode())...) {
					t.Errorf("no alert is right under this load, got %s %s: %+v", a.Kind, a.Phase, a)
				}
			})
		}
	})
	for _, a := range tr.alerts {
		t.Logf("alert of another namespace: %s %s in %d: %s", a.Kind, a.Phase, a.Netns, a.Cause)
	}
}

// mustServe checks that every connect() found a port. Otherwise an alert would be right.
func mustServe(t *testing.T, accounts ...<-chan result) {
	t.Helper()
	for _, ended := range accounts {
		a := <-ended
		if a.NoPort > 0 || a.Other != "" {
			t.Errorf("the test is wrong, this load used up its ports: %+v", a)
		}
		t.Logf("%d connections made, %d refused", a.Made, a.Refused)
	}
}

// cutAfter ends the phases after d, so that all loads last equally long.
func cutAfter(d time.Duration, phases []phase) (cut []phase) {
	for _, p := range phases {
		if d <= 0 {
			break
		}
		p.For = min(p.For, d)
		d -= p.For
		cut = append(cut, p)
	}
	return cut
}

// runEven runs a load that never exceeds its rate: on a machine without a free CPU one that catches up would be another load
// than that of the test, and an alert about it might be right.
func (s *hostPair) runEven(o workload) <-chan result {
	o.SkipsMissed = true
	return s.run(o)
}

var normalLoads = map[string]func(t *testing.T, tr *tracer) *hostPair{
	// The kernel keeps a TIME_WAIT for 60 to 62 s.
	"a busy proxy at 90 % of its plateau": func(t *testing.T, tr *tracer) *hostPair {
		s := newHostPair(t, tr, 500)
		s.serve(80, afterPeer)
		mustServe(t, s.runEven(workload{To: s.port(80), Phases: []phase{{PerSecond: 0.9 * 500 / 61, For: *duration}}}))
		return s
	},
	"a batch job that opens 20 at once, at 80 %": func(t *testing.T, tr *tracer) *hostPair {
		s := newHostPair(t, tr, 500)
		s.serve(80, afterPeer)
		mustServe(t, s.runEven(workload{To: s.port(80), Phases: []phase{{PerSecond: 0.8 * 500 / 61, AtOnce: 20, For: *duration}}}))
		return s
	},
	"bursts that die down": func(t *testing.T, tr *tracer) *hostPair {
		s := newHostPair(t, tr, 500)
		s.serve(80, afterPeer)
		var bursts []phase
		for passed := time.Duration(0); passed < *duration; passed += 64 * time.Second {
			bursts = append(bursts, phase{PerSecond: 100, For: 1500 * time.Millisecond}, phase{PerSecond: 40, For: 1500 * time.Millisecond},
				phase{PerSecond: 10, For: 3 * time.Second}, phase{PerSecond: 1, For: 20 * time.Second}, phase{For: 38 * time.Second})
		}
		mustServe(t, s.runEven(workload{To: s.port(80), Phases: cutAfter(*duration, bursts)}))
		return s
	},
	"a port scan": func(t *testing.T, tr *tracer) *hostPair {
		s := newHostPair(t, tr, 500)
		s.serve(22, afterPeer)
		mustServe(t, s.runEven(workload{To: s.port(1), NextPort: true, Phases: []phase{{PerSecond: 200, For: *duration}}}))
		return s
	},
	"health checks, one of them of a service that is down": func(t *testing.T, tr *tracer) *hostPair {
		s := newHostPair(t, tr, 500)
		s.serve(80, afterPeer)
		s.serve(81, func(c *net.TCPConn) { _, _ = io.Copy(io.Discard, c); c.Close() })
		mustServe(t,
			s.runEven(workload{To: s.port(80), Phases: []phase{{PerSecond: 1, For: *duration}}}),
			s.runEven(workload{To: s.port(81), Reset: true, Phases: []phase{{PerSecond: 2, For: *duration}}}),
			s.runEven(workload{To: s.port(82), Phases: []phase{{PerSecond: 1, For: *duration}}}))
		return s
	},
	"keep-alive traffic": func(t *testing.T, tr *tracer) *hostPair {
		s := newHostPair(t, tr, 200)
		s.serve(80, func(c *net.TCPConn) { _, _ = io.Copy(c, c); c.Close() })
		mustServe(t,
			s.runEven(workload{To: s.port(80), Open: 20 * time.Second, PeerCloses: false, Phases: []phase{{PerSecond: 1.2, For: *duration}}}))
		return s
	},
	"a server that closes first, below its limit": func(t *testing.T, tr *tracer) *hostPair {
		s := newHostPair(t, tr, 500)
		s.server.Sysctl("net.ipv4.tcp_max_tw_buckets", "1000")
		s.serve(80, first)
		mustServe(t, s.runEven(workload{To: s.port(80), PeerCloses: true, Phases: []phase{{PerSecond: 0.9 * 1000 / 61, For: *duration}}}))
		return s
	},
	"connections that the peer closes first": func(t *testing.T, tr *tracer) *hostPair {
		s := newHostPair(t, tr, 200)
		s.serve(80, first)
		mustServe(t, s.runEven(workload{To: s.port(80), PeerCloses: true, Phases: []phase{{PerSecond: 60, For: *duration}}}))
		return s
	},
	"loopback, where ports are reused": func(t *testing.T, tr *tracer) *hostPair {
		s := newHostPair(t, tr, 300)
		s.at, s.to = netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.1")
		s.serveIn(s.client, s.to, 80, afterPeer)
		mustServe(t, s.runEven(workload{To: s.port(80), Phases: []phase{{PerSecond: 40, For: *duration}}}))
		return s
	},
	"tw_reuse everywhere": func(t *testing.T, tr *tracer) *hostPair {
		s := newHostPair(t, tr, 300)
		s.sysctl("net.ipv4.tcp_tw_reuse", 1)
		s.serve(80, afterPeer)
		mustServe(t, s.runEven(workload{To: s.port(80), Phases: []phase{{PerSecond: 40, For: *duration}}}))
		return s
	},
	"many destinations, each with a little": func(t *testing.T, tr *tracer) *hostPair {
		s := newHostPair(t, tr, 300)
		var all []<-chan result
		for port := range uint16(4) {
			s.serve(8000+port, afterPeer)
			all = append(all, s.runEven(workload{To: s.port(8000 + port), Phases: []phase{{PerSecond: 0.7 * 300 / 61, For: *duration}}}))
		}
		mustServe(t, all...)
		return s
	},
}
