package detection_test

import (
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/test/tcplab"
)

// What happens on hosts where nothing is wrong, all at once: each in namespaces of its
// own, so that an alert tells by its namespace who is to blame.
func TestAlert_NoneUnderNormalLoad(t *testing.T) {
	tcplab.RequireRoot(t)
	tr := startTracer(t, "alerts")
	t.Run("load", func(t *testing.T) {
		for name, load := range calmLoads {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				s := load(t, tr)
				for _, a := range append(tr.of(s.client.Inode()), tr.of(s.server.Inode())...) {
					t.Errorf("%s %s: %+v", a.Kind, a.Phase, a)
				}
			})
		}
	})
	for _, a := range tr.alerts {
		t.Logf("of anybody: %s %s in %d: %s", a.Kind, a.Phase, a.Netns, a.Cause)
	}
}

// served: no connect() may have failed for want of a port, else it was no calm.
func served(t *testing.T, accounts ...<-chan account) {
	t.Helper()
	for _, ended := range accounts {
		a := <-ended
		if a.NoPort > 0 || a.Other != "" {
			t.Errorf("this was a storm after all: %+v", a)
		}
		t.Logf("%d connections made, %d refused", a.Made, a.Refused)
	}
}

var calmLoads = map[string]func(t *testing.T, tr *tracer) *scene{
	// The kernel keeps a TIME_WAIT for 60 to 62 s.
	"a busy proxy at 90 % of its plateau": func(t *testing.T, tr *tracer) *scene {
		s := newScene(t, tr, 500)
		s.serve(80, afterPeer)
		served(t, s.run(order{To: s.port(80), Gusts: []gust{{PerSecond: 0.9 * 500 / 61, For: *calm}}}))
		return s
	},
	"a batch job that opens 20 at once, at 80 %": func(t *testing.T, tr *tracer) *scene {
		s := newScene(t, tr, 500)
		s.serve(80, afterPeer)
		served(t, s.run(order{To: s.port(80), Gusts: []gust{{PerSecond: 0.8 * 500 / 61, AtOnce: 20, For: *calm}}}))
		return s
	},
	"bursts that die down": func(t *testing.T, tr *tracer) *scene {
		s := newScene(t, tr, 500)
		s.serve(80, afterPeer)
		var gusts []gust
		for passed := time.Duration(0); passed < *calm; passed += 64 * time.Second {
			gusts = append(gusts, gust{PerSecond: 100, For: 1500 * time.Millisecond}, gust{PerSecond: 40, For: 1500 * time.Millisecond},
				gust{PerSecond: 10, For: 3 * time.Second}, gust{PerSecond: 1, For: 20 * time.Second}, gust{For: 38 * time.Second})
		}
		served(t, s.run(order{To: s.port(80), Gusts: gusts}))
		return s
	},
	"a port scan": func(t *testing.T, tr *tracer) *scene {
		s := newScene(t, tr, 500)
		s.serve(22, afterPeer)
		served(t, s.run(order{To: s.port(1), NextPort: true, Gusts: []gust{{PerSecond: 200, For: *calm}}}))
		return s
	},
	"health checks, one of them to what is down": func(t *testing.T, tr *tracer) *scene {
		s := newScene(t, tr, 500)
		s.serve(80, afterPeer)
		s.serve(81, func(c *net.TCPConn) { _, _ = io.Copy(io.Discard, c); c.Close() })
		served(t,
			s.run(order{To: s.port(80), Gusts: []gust{{PerSecond: 1, For: *calm}}}),
			s.run(order{To: s.port(81), Reset: true, Gusts: []gust{{PerSecond: 2, For: *calm}}}),
			s.run(order{To: s.port(82), Gusts: []gust{{PerSecond: 1, For: *calm}}}))
		return s
	},
	"keep-alive traffic": func(t *testing.T, tr *tracer) *scene {
		s := newScene(t, tr, 200)
		s.serve(80, func(c *net.TCPConn) { _, _ = io.Copy(c, c); c.Close() })
		served(t,
			s.run(order{To: s.port(80), Open: 20 * time.Second, PeerCloses: false, Gusts: []gust{{PerSecond: 1.2, For: *calm}}}))
		return s
	},
	"a server that closes first, below its limit": func(t *testing.T, tr *tracer) *scene {
		s := newScene(t, tr, 500)
		s.server.Sysctl("net.ipv4.tcp_max_tw_buckets", "1000")
		s.serve(80, first)
		served(t, s.run(order{To: s.port(80), PeerCloses: true, Gusts: []gust{{PerSecond: 0.9 * 1000 / 61, For: *calm}}}))
		return s
	},
	"connections that the peer closes first": func(t *testing.T, tr *tracer) *scene {
		s := newScene(t, tr, 200)
		s.serve(80, first)
		served(t, s.run(order{To: s.port(80), PeerCloses: true, Gusts: []gust{{PerSecond: 60, For: *calm}}}))
		return s
	},
	"loopback, where ports are reused": func(t *testing.T, tr *tracer) *scene {
		s := newScene(t, tr, 300)
		s.at, s.to = netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.1")
		s.serveIn(s.client, s.to, 80, afterPeer)
		served(t, s.run(order{To: s.port(80), Gusts: []gust{{PerSecond: 40, For: *calm}}}))
		return s
	},
	"tw_reuse everywhere": func(t *testing.T, tr *tracer) *scene {
		s := newScene(t, tr, 300)
		s.sysctl("net.ipv4.tcp_tw_reuse", 1)
		s.serve(80, afterPeer)
		served(t, s.run(order{To: s.port(80), Gusts: []gust{{PerSecond: 40, For: *calm}}}))
		return s
	},
	"many destinations, each with a little": func(t *testing.T, tr *tracer) *scene {
		s := newScene(t, tr, 300)
		var all []<-chan account
		for port := range uint16(4) {
			s.serve(8000+port, afterPeer)
			all = append(all, s.run(order{To: s.port(8000 + port), Gusts: []gust{{PerSecond: 0.7 * 300 / 61, For: *calm}}}))
		}
		served(t, all...)
		return s
	},
}
