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

// maxDeviation is by which part of the time until the kernel refuses a forecast may be wrong.
const maxDeviation = 0.1

// checkStormAlert checks the one storm alert of a pair of hosts: forecast, capacity,
// time.
func (s *hostPair) checkStormAlert(alerts []alert, capacity int, firstFailure time.Time) alert {
	s.t.Helper()
	opened := pick(alerts, "time_wait_storm", "open")
	if len(opened) != 1 {
		s.t.Fatalf("%d alerts of a storm, want 1: %+v", len(opened), alerts)
	}
	a := opened[0]
	if firstFailure.IsZero() {
		s.t.Fatalf("the test is wrong, every connect() found a port; the alert was %+v", a)
	}
	truth := firstFailure.Sub(a.Time).Seconds()
	s.pace.within(truth)
	if !a.came.Before(firstFailure) {
		s.pace.timingError("the alert came %v after the first failure", a.came.Sub(firstFailure))
	}
	if a.Capacity != capacity || a.CapacityKind != "ephemeral_ports" {
		s.t.Errorf("the capacity is %d %s, want %d ports", a.Capacity, a.CapacityKind, capacity)
	}
	if float64(a.Occupancy) >= 0.8*float64(capacity) {
		s.pace.timingError("%d of %d ports were in use when the alert came", a.Occupancy, capacity)
	}
	if a.ExhaustionIn == nil || math.Abs(*a.ExhaustionIn-truth) > maxDeviation*truth {
		s.pace.timingError("forecast %s, want %.2f s", secondsOf(a.ExhaustionIn), truth)
	}
	if a.PeerAddr != s.to.String() || a.LocalAddr != s.at.String() || a.Role != "client" {
		s.t.Errorf("the alert names wrong addresses or a wrong role: %+v", a)
	}
	if a.ExhaustionIn != nil {
		s.t.Logf("open at %d of %d (%.0f %%), %s; forecast %.2f s, ports were used up after %.2f s (%+.1f %%); the alert came after %.0f ms", a.Occupancy, capacity,
			100*float64(a.Occupancy)/float64(capacity), a.OccupancySource, *a.ExhaustionIn, truth, 100*(*a.ExhaustionIn-truth)/truth,
			float64(a.came.Sub(a.Time).Microseconds())/1000)
	}
	return a
}

// checkFailureAlert waits for the phase of an alert that reports a connect() without a port. It
// must come within two seconds.
func (s *hostPair) checkFailureAlert(tr *tracer, kind string, firstFailure time.Time) alert {
	s.t.Helper()
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		for _, a := range tr.of(s.client.Inode()) {
			switch {
			case a.Failures == 0:
				continue
			case a.Kind != kind:
				s.t.Errorf("want a %s: %+v", kind, a)
			case a.came.Sub(firstFailure) > 2*time.Second:
				s.pace.timingError("the alert came %v after the failed connect()", a.came.Sub(firstFailure))
			}
			return a
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("no alert although a connect() failed: %+v", tr.of(s.client.Inode()))
		}
	}
}

// A TIME_WAIT storm opens one alert before the first connect() fails, with the right
// process, capacity and forecast.
func TestAlert_TimewaitStorms(t *testing.T) {
	tcplab.RequireRoot(t)
	tr := startTracer(t, "alerts")
	t.Run("real", func(t *testing.T) {
		for name, run := range storms {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				retryIfUneven(t, func() *hostPair { return run(t, tr) })
			})
		}
	})
	tr.stop()
	everyAlertCloses(t, tr)
}

// oneProcess is one process with one destination and one rate.
func oneProcess(ports int, rate float64) func(t *testing.T, tr *tracer) *hostPair {
	return func(t *testing.T, tr *tracer) *hostPair {
		s := newHostPair(t, tr, ports)
		s.serve(80, afterPeer)
		a := <-s.run(workload{To: s.port(80), UntilNoPort: true, Phases: []phase{{PerSecond: rate, For: waitLimit}}})
		s.checkFailureAlert(tr, "time_wait_storm", a.FirstNoPort)
		opened := s.checkStormAlert(tr.of(s.client.Inode()), ports, a.FirstNoPort)
		if opened.PID != a.PID || opened.Share < 0.95 || opened.PeerPort != 80 || opened.Comm != "exe" && opened.Comm != "detection.test" {
			t.Errorf("the alert names pid %d (%s, share %v), port %d; want pid %d", opened.PID, opened.Comm, opened.Share, opened.PeerPort, a.PID)
		}
		return s
	}
}

var storms = map[string]func(t *testing.T, tr *tracer) *hostPair{
	"from one process, slow":           oneProcess(300, 6.5),
	"from one process, steady":         oneProcess(300, 15),
	"from one process, quick":          oneProcess(500, 60),
	"from one process, hard":           oneProcess(500, 200),
	"from one process, hard and large": oneProcess(5000, 1500),
	"from many processes": func(t *testing.T, tr *tracer) *hostPair {
		s := newHostPair(t, tr, 400)
		s.serve(80, afterPeer)
		var processes []<-chan result
		pids := make(map[int]bool)
		var firstFailure time.Time
		for range 5 {
			processes = append(processes, s.run(workload{To: s.port(80), UntilNoPort: true, Phases: []phase{{PerSecond: 8, For: waitLimit}}}))
		}
		for _, p := range processes {
			a := <-p
			pids[a.PID] = true
			if firstFailure.IsZero() || !a.FirstNoPort.IsZero() && a.FirstNoPort.Before(firstFailure) {
				firstFailure = a.FirstNoPort
			}
		}
		s.checkFailureAlert(tr, "time_wait_storm", firstFailure)
		opened := s.checkStormAlert(tr.of(s.client.Inode()), 400, firstFailure)
		if !pids[opened.PID] || opened.Processes != 5 || opened.Share < 0.95 || math.Abs(opened.PIDShare-0.2) > 0.05 {
			t.Errorf("the alert names pid %d, share %v of %v, %d processes; want 5 processes, one of %v",
				opened.PID, opened.PIDShare, opened.Share, opened.Processes, pids)
		}
		return s
	},
	"with reserved ports and listeners among them": func(t *testing.T, tr *tracer) *hostPair {
		s := newHostPair(t, tr, 400)
		s.client.Sysctl("net.ipv4.ip_local_reserved_ports", "39990-40049,40100,40200-40248")
		for _, port := range []uint16{40060, 40061, 40110} {
			s.serveIn(s.client, s.at, port, afterPeer)
		}
		s.serve(80, afterPeer)
		a := <-s.run(workload{To: s.port(80), UntilNoPort: true, Phases: []phase{{PerSecond: 20, For: waitLimit}}})
		s.checkFailureAlert(tr, "time_wait_storm", a.FirstNoPort)
		s.checkStormAlert(tr.of(s.client.Inode()), 400-50-1-49-3, a.FirstNoPort)
		return s
	},
	"from an address that is bound": func(t *testing.T, tr *tracer) *hostPair {
		s := newHostPair(t, tr, 300)
		second := netip.MustParseAddr("10.9.0.77")
		s.client.AddVethAddr(second)
		s.serve(80, afterPeer)
		// The other address has enough ports and is not part of the storm.
		other := s.run(workload{To: s.port(80), Phases: []phase{{PerSecond: 2, For: 20 * time.Second}}})
		a := <-s.run(workload{To: s.port(80), From: second, UntilNoPort: true, Phases: []phase{{PerSecond: 20, For: waitLimit}}})
		<-other
		s.checkFailureAlert(tr, "time_wait_storm", a.FirstNoPort)
		s.at = second
		s.checkStormAlert(tr.of(s.client.Inode()), 300, a.FirstNoPort)
		return s
	},
	"while connections stay open": func(t *testing.T, tr *tracer) *hostPair {
		s := newHostPair(t, tr, 400)
		s.serve(80, afterPeer)
		pool := s.run(workload{To: s.port(80), Open: time.Hour, Phases: []phase{{PerSecond: 100, For: time.Second}, {For: 25 * time.Second}}})
		a := <-s.run(workload{To: s.port(80), UntilNoPort: true, Phases: []phase{{For: 3 * time.Second}, {PerSecond: 20, For: waitLimit}}})
		s.checkFailureAlert(tr, "time_wait_storm", a.FirstNoPort)
		s.checkStormAlert(tr.of(s.client.Inode()), 400, a.FirstNoPort)
		<-pool
		return s
	},
	"where tw_reuse is off": func(t *testing.T, tr *tracer) *hostPair {
		s := newHostPair(t, tr, 300)
		s.sysctl("net.ipv4.tcp_tw_reuse", 0)
		s.serve(80, afterPeer)
		a := <-s.run(workload{To: s.port(80), UntilNoPort: true, Phases: []phase{{PerSecond: 25, For: waitLimit}}})
		s.checkFailureAlert(tr, "time_wait_storm", a.FirstNoPort)
		s.checkStormAlert(tr.of(s.client.Inode()), 300, a.FirstNoPort)
		return s
	},
	"on loopback where tw_reuse is off": func(t *testing.T, tr *tracer) *hostPair {
		s := newHostPair(t, tr, 300)
		s.sysctl("net.ipv4.tcp_tw_reuse", 0)
		s.at, s.to = netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.1")
		s.serveIn(s.client, s.to, 80, afterPeer)
		a := <-s.run(workload{To: s.port(80), UntilNoPort: true, Phases: []phase{{PerSecond: 25, For: waitLimit}}})
		s.checkFailureAlert(tr, "time_wait_storm", a.FirstNoPort)
		s.checkStormAlert(tr.of(s.client.Inode()), 300, a.FirstNoPort)
		return s
	},
	"after the range was narrowed": func(t *testing.T, tr *tracer) *hostPair {
		s := newHostPair(t, tr, 3000)
		s.serve(80, afterPeer)
		running := s.run(workload{To: s.port(80), UntilNoPort: true, Phases: []phase{{PerSecond: 25, For: waitLimit}}})
		time.Sleep(3 * time.Second)
		s.client.Sysctl("net.ipv4.ip_local_port_range", "40000 40499")
		a := <-running
		s.checkFailureAlert(tr, "time_wait_storm", a.FirstNoPort)
		if opened := pick(tr.of(s.client.Inode()), "time_wait_storm", "open"); len(opened) != 1 || opened[0].Capacity != 500 {
			t.Errorf("got %+v, want one alert about 500 ports", opened)
		}
		return s
	},
	"at a server that closes first": serverCloses,
}

func serverCloses(t *testing.T, tr *tracer) *hostPair {
	// A SYN from a port that has a TIME_WAIT at the server ends that (TCP_TW_SYN). connect() chooses ports by chance, and of
	// few ports it comes back to some within the test: then the TIME_WAITs grow more slowly, which no forecast can know.
	s := newHostPair(t, tr, 3000)
	s.client.Sysctl("net.ipv4.ip_local_port_range", "2000 64999")
	s.server.Sysctl("net.ipv4.tcp_max_tw_buckets", "400")
	s.serve(80, first)
	most, full := s.whenTimeWaits(280), s.whenTimeWaits(400)
	a := <-s.run(workload{To: s.port(80), PeerCloses: true, Phases: []phase{{PerSecond: 25, For: 22 * time.Second}}})
	if a.NoPort > 0 {
		t.Fatalf("the test is wrong, the client ran out of ports: %+v", a)
	}
	if opened := tr.of(s.client.Inode()); len(opened) > 0 {
		t.Errorf("an alert about the client, which does nothing wrong: %+v", opened)
	}
	alerts := pick(tr.of(s.server.Inode()), "time_wait_storm", "open")
	if len(alerts) != 1 {
		t.Fatalf("want one storm alert about the server: %+v", tr.of(s.server.Inode()))
	}
	opened := alerts[0]
	truth := (<-full).Sub(opened.Time).Seconds()
	t.Logf("the kernel counted 280 %v before the alert, and 400 %.2f s after it", opened.Time.Sub(<-most), truth)
	s.pace.within(truth)
	if opened.CapacityKind != "time_wait_buckets" || opened.Capacity != 400 || opened.Role != "server" || opened.LocalPort != 80 ||
		opened.PID != os.Getpid() {
		t.Errorf("want 400 time_wait_buckets of server port 80 and this process: %+v", opened)
	}
	if opened.Occupancy >= 320 {
		s.pace.timingError("%d of 400 TIME_WAITs were there when the alert came", opened.Occupancy)
	}
	if opened.ExhaustionIn == nil || math.Abs(*opened.ExhaustionIn-truth) > maxDeviation*truth {
		s.pace.timingError("forecast %s, want %.2f s", secondsOf(opened.ExhaustionIn), truth)
	}
	if opened.ExhaustionIn != nil {
		t.Logf("open at %d of %d; forecast %s, want %.2f s (%+.1f %%)", opened.Occupancy, opened.Capacity, secondsOf(opened.ExhaustionIn), truth,
			100*(*opened.ExhaustionIn-truth)/truth)
	}
	return s
}

// everyAlertCloses checks that each alert has one open and one close, and at most one
// update in ten seconds, besides those of the kernel's answer and of the first failure.
func everyAlertCloses(t *testing.T, tr *tracer) {
	t.Helper()
	before := make(map[string]alert)
	for _, a := range tr.alerts {
		last, known := before[a.Alert]
		if known == (a.Phase == "open") || last.Phase == "close" || a.Phase == "update" && a.Time.Sub(last.Time) < 10*time.Second && last.Confidence != "unverified" && (last.Failures > 0 || a.Failures == 0) {
			t.Errorf("after %+v came %+v", last, a)
		}
		before[a.Alert] = a
	}
	for _, a := range before {
		if a.Phase != "close" {
			t.Errorf("this alert never closes: %+v", a)
		}
	}
}

// whenTimeWaits sends the time at which the server's namespace has count TIME_WAITs by
// the kernel's count.
func (s *hostPair) whenTimeWaits(count int) <-chan time.Time {
	at := make(chan time.Time, 1)
	go func() {
		for deadline := time.Now().Add(waitLimit); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
			var text []byte
			s.server.Do(func() { text, _ = os.ReadFile("/proc/thread-self/net/sockstat") })
			_, after, _ := strings.Cut(string(text), " tw ")
			word, _, _ := strings.Cut(after, " ")
			if found, err := strconv.Atoi(word); err == nil && found >= count {
				break
			}
		}
		at <- time.Now()
	}()
	return at
}
