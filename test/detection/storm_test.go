package detection_test

import (
	"math"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/test/tcplab"
)

// warned holds one storm of a scene against what is promised.
func (s *scene) warned(alerts []alert, capacity int, firstFailure time.Time) alert {
	s.t.Helper()
	opened := pick(alerts, "time_wait_storm", "open")
	if len(opened) != 1 {
		s.t.Fatalf("%d storms were told, want one: %+v", len(opened), alerts)
	}
	a := opened[0]
	if firstFailure.IsZero() {
		s.t.Fatalf("every connect() found a port; the alert was %+v", a)
	}
	truth := firstFailure.Sub(a.Time).Seconds()
	s.pace.within(truth)
	if !a.came.Before(firstFailure) {
		s.pace.untimely("the alert came %v after the first failure", a.came.Sub(firstFailure))
	}
	if a.Capacity != capacity || a.CapacityKind != "ephemeral_ports" {
		s.t.Errorf("the capacity is %d %s, want %d ports", a.Capacity, a.CapacityKind, capacity)
	}
	if float64(a.Occupancy) >= 0.8*float64(capacity) {
		s.pace.untimely("%d of %d ports were gone when the alert came", a.Occupancy, capacity)
	}
	if a.ExhaustionIn == nil || math.Abs(*a.ExhaustionIn-truth) > 0.2*truth {
		s.pace.untimely("forecast %s, truth %.2f s", secondsOf(a.ExhaustionIn), truth)
	}
	if a.PeerAddr != s.to.String() || a.LocalAddr != s.at.String() || a.Role != "client" {
		s.t.Errorf("the alert is about the wrong ones: %+v", a)
	}
	if a.ExhaustionIn != nil {
		s.t.Logf("open at %d of %d (%.0f %%), %s; forecast %.2f s, truth %.2f s (%+.1f %%); came %.0f ms after the fact", a.Occupancy, capacity,
			100*float64(a.Occupancy)/float64(capacity), a.OccupancySource, *a.ExhaustionIn, truth, 100*(*a.ExhaustionIn-truth)/truth,
			float64(a.came.Sub(a.Time).Microseconds())/1000)
	}
	return a
}

// failed: a connect() without a port is told at once, whoever made it.
func (s *scene) failed(tr *tracer, firstFailure time.Time) {
	s.t.Helper()
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if told := pick(tr.of(s.client.Inode()), "port_exhaustion", "open"); len(told) == 1 {
			if late := told[0].came.Sub(firstFailure); late > 2*time.Second {
				s.pace.untimely("that a connect() failed was told %v later", late)
			}
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("a connect() failed, and that is not told: %+v", tr.of(s.client.Inode()))
		}
	}
}

func TestAlert_TimewaitStorms(t *testing.T) {
	tcplab.RequireRoot(t)
	tr := startTracer(t, "alerts")
	t.Run("real", func(t *testing.T) {
		for name, blow := range storms {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				whileThePaceIsKept(t, func() *scene { return blow(t, tr) })
			})
		}
	})
	tr.stop()
	everyOneCloses(t, tr)
}

// oneProcess is the plain case: one process, one destination, one rate.
func oneProcess(ports int, rate float64) func(t *testing.T, tr *tracer) *scene {
	return func(t *testing.T, tr *tracer) *scene {
		s := newScene(t, tr, ports)
		s.serve(80, afterPeer)
		a := <-s.run(order{To: s.port(80), UntilNone: true, Gusts: []gust{{PerSecond: rate, For: patience}}})
		s.failed(tr, a.FirstNoPort)
		told := s.warned(tr.of(s.client.Inode()), ports, a.FirstNoPort)
		if told.PID != a.PID || told.Share < 0.95 || told.PeerPort != 80 || told.Comm != "exe" && told.Comm != "storms.test" {
			t.Errorf("the alert names %d (%s, share %v), port %d; it was %d", told.PID, told.Comm, told.Share, told.PeerPort, a.PID)
		}
		return s
	}
}

var storms = map[string]func(t *testing.T, tr *tracer) *scene{
	"from one process, slow":           oneProcess(300, 6.5),
	"from one process, steady":         oneProcess(300, 15),
	"from one process, quick":          oneProcess(500, 60),
	"from one process, hard":           oneProcess(500, 200),
	"from one process, hard and large": oneProcess(5000, 1500),
	"from many processes": func(t *testing.T, tr *tracer) *scene {
		s := newScene(t, tr, 400)
		s.serve(80, afterPeer)
		var processes []<-chan account
		pids := make(map[int]bool)
		var firstFailure time.Time
		for range 5 {
			processes = append(processes, s.run(order{To: s.port(80), UntilNone: true, Gusts: []gust{{PerSecond: 8, For: patience}}}))
		}
		for _, p := range processes {
			a := <-p
			pids[a.PID] = true
			if firstFailure.IsZero() || !a.FirstNoPort.IsZero() && a.FirstNoPort.Before(firstFailure) {
				firstFailure = a.FirstNoPort
			}
		}
		s.failed(tr, firstFailure)
		told := s.warned(tr.of(s.client.Inode()), 400, firstFailure)
		if !pids[told.PID] || told.Processes != 5 || math.Abs(told.Share-0.2) > 0.05 {
			t.Errorf("the alert names %d, share %v, one of %d; they are %v", told.PID, told.Share, told.Processes, pids)
		}
		return s
	},
	"with reserved ports and listeners among them": func(t *testing.T, tr *tracer) *scene {
		s := newScene(t, tr, 400)
		s.client.Sysctl("net.ipv4.ip_local_reserved_ports", "39990-40049,40100,40200-40248")
		for _, port := range []uint16{40060, 40061, 40110} {
			s.serveIn(s.client, s.at, port, afterPeer)
		}
		s.serve(80, afterPeer)
		a := <-s.run(order{To: s.port(80), UntilNone: true, Gusts: []gust{{PerSecond: 20, For: patience}}})
		s.failed(tr, a.FirstNoPort)
		s.warned(tr.of(s.client.Inode()), 400-50-1-49-3, a.FirstNoPort)
		return s
	},
	"from an address that is bound": func(t *testing.T, tr *tracer) *scene {
		s := newScene(t, tr, 300)
		second := netip.MustParseAddr("10.9.0.77")
		s.client.AddAddress(second)
		s.serve(80, afterPeer)
		// The other address has ports enough, and its use is no one's storm.
		other := s.run(order{To: s.port(80), Gusts: []gust{{PerSecond: 2, For: 20 * time.Second}}})
		a := <-s.run(order{To: s.port(80), From: second, UntilNone: true, Gusts: []gust{{PerSecond: 20, For: patience}}})
		<-other
		s.failed(tr, a.FirstNoPort)
		s.at = second
		s.warned(tr.of(s.client.Inode()), 300, a.FirstNoPort)
		return s
	},
	"while connections stay open": func(t *testing.T, tr *tracer) *scene {
		s := newScene(t, tr, 400)
		s.serve(80, afterPeer)
		pool := s.run(order{To: s.port(80), Open: time.Hour, Gusts: []gust{{PerSecond: 100, For: time.Second}, {For: 25 * time.Second}}})
		a := <-s.run(order{To: s.port(80), UntilNone: true, Gusts: []gust{{For: 3 * time.Second}, {PerSecond: 20, For: patience}}})
		s.failed(tr, a.FirstNoPort)
		s.warned(tr.of(s.client.Inode()), 400, a.FirstNoPort)
		<-pool
		return s
	},
	"where tw_reuse is off": func(t *testing.T, tr *tracer) *scene {
		s := newScene(t, tr, 300)
		s.sysctl("net.ipv4.tcp_tw_reuse", 0)
		s.serve(80, afterPeer)
		a := <-s.run(order{To: s.port(80), UntilNone: true, Gusts: []gust{{PerSecond: 25, For: patience}}})
		s.failed(tr, a.FirstNoPort)
		s.warned(tr.of(s.client.Inode()), 300, a.FirstNoPort)
		return s
	},
	"on loopback where tw_reuse is off": func(t *testing.T, tr *tracer) *scene {
		s := newScene(t, tr, 300)
		s.sysctl("net.ipv4.tcp_tw_reuse", 0)
		s.at, s.to = netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.1")
		s.serveIn(s.client, s.to, 80, afterPeer)
		a := <-s.run(order{To: s.port(80), UntilNone: true, Gusts: []gust{{PerSecond: 25, For: patience}}})
		s.failed(tr, a.FirstNoPort)
		s.warned(tr.of(s.client.Inode()), 300, a.FirstNoPort)
		return s
	},
	"after the range was narrowed": func(t *testing.T, tr *tracer) *scene {
		s := newScene(t, tr, 3000)
		s.serve(80, afterPeer)
		running := s.run(order{To: s.port(80), UntilNone: true, Gusts: []gust{{PerSecond: 25, For: patience}}})
		time.Sleep(3 * time.Second)
		s.client.Sysctl("net.ipv4.ip_local_port_range", "40000 40499")
		a := <-running
		s.failed(tr, a.FirstNoPort)
		if told := pick(tr.of(s.client.Inode()), "time_wait_storm", "open"); len(told) != 1 || told[0].Capacity != 500 {
			t.Errorf("got %+v, want one alert about 500 ports", told)
		}
		return s
	},
	"at a server that closes first": serverCloses,
}

func serverCloses(t *testing.T, tr *tracer) *scene {
	s := newScene(t, tr, 3000)
	s.server.Sysctl("net.ipv4.tcp_max_tw_buckets", "400")
	s.serve(80, first)
	most, full := s.fullAt(280), s.fullAt(400)
	a := <-s.run(order{To: s.port(80), PeerCloses: true, Gusts: []gust{{PerSecond: 25, For: 22 * time.Second}}})
	if a.NoPort > 0 {
		t.Fatalf("the client ran out of ports: %+v", a)
	}
	if told := tr.of(s.client.Inode()); len(told) > 0 {
		t.Errorf("the client does nothing wrong, and is told of: %+v", told)
	}
	opened := pick(tr.of(s.server.Inode()), "time_wait_storm", "open")
	if len(opened) != 1 {
		t.Fatalf("%+v", tr.of(s.server.Inode()))
	}
	told := opened[0]
	t.Logf("the kernel counted 280 %v before the alert, and 400 %v after it", told.Time.Sub(<-most), (<-full).Sub(told.Time))
	// On a busy machine the server, which is this process, does not keep the pace.
	truth := float64(400-told.Occupancy) / 25
	s.pace.within(truth)
	if told.CapacityKind != "time_wait_buckets" || told.Capacity != 400 || told.Role != "server" || told.LocalPort != 80 ||
		told.PID != os.Getpid() {
		t.Errorf("%+v", told)
	}
	if told.Occupancy >= 320 {
		s.pace.untimely("%d of 400 were there when the alert came", told.Occupancy)
	}
	if told.ExhaustionIn == nil || math.Abs(*told.ExhaustionIn-truth) > 0.2*truth {
		s.pace.untimely("forecast %s, truth %.2f s", secondsOf(told.ExhaustionIn), truth)
	}
	t.Logf("open at %d of %d; forecast %s, truth %.2f s", told.Occupancy, told.Capacity, secondsOf(told.ExhaustionIn), truth)
	return s
}

// everyOneCloses: one open, one close, and no update before ten seconds are over.
func everyOneCloses(t *testing.T, tr *tracer) {
	t.Helper()
	before := make(map[string]alert)
	for _, a := range tr.alerts {
		last, known := before[a.Alert]
		if known == (a.Phase == "open") || last.Phase == "close" || a.Phase == "update" && a.Time.Sub(last.Time) < 10*time.Second {
			t.Errorf("after %+v comes %+v", last, a)
		}
		before[a.Alert] = a
	}
	for _, a := range before {
		if a.Phase != "close" {
			t.Errorf("this alert never closes: %+v", a)
		}
	}
}

// fullAt gives the time when the server's namespace holds so many TIME_WAITs, by the
// kernel's count.
func (s *scene) fullAt(count int) <-chan time.Time {
	at := make(chan time.Time, 1)
	go func() {
		for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
			var text []byte
			s.server.Do(func() { text, _ = os.ReadFile("/proc/thread-self/net/sockstat") })
			_, after, _ := strings.Cut(string(text), " tw ")
			word, _, _ := strings.Cut(after, " ")
			if held, err := strconv.Atoi(word); err == nil && held >= count {
				break
			}
		}
		at <- time.Now()
	}()
	return at
}
