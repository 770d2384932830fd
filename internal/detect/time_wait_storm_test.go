package detect

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

var curl = process(4711, "curl")

// mustWarn checks the promise for one storm: the alert opens before four fifths of the
// ports are taken and before the first failure, and its forecast is right within a fifth.
func (h *host) mustWarn() Alert {
	h.t.Helper()
	opened := only(h.alerts, "time_wait_storm", Open)
	if len(opened) != 1 {
		h.t.Fatalf("%d alerts were opened, want one; the first failure came after %v", len(opened), h.failed-time.Hour)
	}
	a := opened[0]
	if h.failed == 0 {
		h.t.Fatalf("there is an alert, and no connect() failed: %+v", a)
	}
	if a.Monotonic >= h.failed {
		h.t.Errorf("the alert came %v after the first failure", a.Monotonic-h.failed)
	}
	if share := float64(a.Occupancy) / float64(a.Capacity); share >= 0.8 {
		h.t.Errorf("the alert came when %d of %d ports were taken, %.0f %%", a.Occupancy, a.Capacity, 100*share)
	}
	truth := (h.failed - a.Monotonic).Seconds()
	if !a.Exhausts || math.Abs(a.ExhaustionIn.Seconds()-truth) > 0.2*truth {
		h.t.Errorf("forecast %v, %v; the first failure came after %.2f s", a.ExhaustionIn, a.Exhausts, truth)
	}
	h.t.Logf("open at %d of %d, forecast %.2f s, truth %.2f s", a.Occupancy, a.Capacity, a.ExhaustionIn.Seconds(), truth)
	return a
}

// mustBeSilent checks that no alert has been opened.
func (h *host) mustBeSilent() {
	h.t.Helper()
	for _, a := range h.finish() {
		if a.Phase != Open {
			continue
		}
		h.t.Errorf("%v after %v: %s %s: %s (%d of %d, rate %.1f, left %v)", h.failed > 0, a.Monotonic-time.Hour, a.Kind, a.Phase,
			a.Cause, a.Occupancy, a.Capacity, a.Rate, a.ExhaustionIn)
	}
}

// An alert opens before four fifths of the ports are taken, and forecasts when the
// last one is.
func TestStorm_AlertBeforeExhaustion(t *testing.T) {
	t.Parallel()
	for _, ports := range []int{200, 500, 28232} {
		critical := float64(ports) / 61
		for _, times := range []float64{1.06, 1.2, 1.5, 2, 3, 5, 10, 20} {
			for _, chance := range []bool{false, true} {
				if chance && (ports < 500 || times < 1.2) {
					continue // chance decides whether the ports are exhausted at all
				}
				t.Run(fmt.Sprintf("%d ports, %v times their capacity, by chance %v", ports, times, chance), func(t *testing.T) {
					h := newHost(t, ports, Config{})
					h.run(load{key: to(80), by: []tcp.Owner{curl}, rate: constant(times * critical), chance: chance}, 5*time.Minute, true)
					a := h.mustWarn()
					if a.Culprit.PID != curl.PID || a.Culprit.Share < 0.99 || a.Peer.Addr != there || a.Peer.Port != 80 || a.Netns != testNetns {
						t.Errorf("the alert is about %+v, peer %v", a.Culprit, a.Peer)
					}
				})
			}
		}
	}
}

// A load below the capacity raises no alert.
func TestStorm_NoneBelowCapacity(t *testing.T) {
	t.Parallel()
	for _, ports := range []int{200, 500, 3000} {
		critical := float64(ports) / 62
		for _, times := range []float64{0.1, 0.5, 0.8, 0.9, 0.95} {
			for _, bursts := range []int{1, ports / 20} {
				for _, chance := range []bool{false, true} {
					if chance && (times > 0.9 || bursts > 1 || ports < 500) {
						continue // chance makes it exceed the capacity now and then
					}
					t.Run(fmt.Sprintf("%d ports, %v times their capacity, %d at once, by chance %v", ports, times, bursts, chance), func(t *testing.T) {
						h := newHost(t, ports, Config{})
						h.run(load{key: to(80), by: []tcp.Owner{curl}, rate: constant(times * critical), bursts: bursts, chance: chance}, 5*time.Minute, false)
						h.mustBeSilent()
					})
				}
			}
		}
	}
}

// Where a thousand processes of one name share a storm, the alert has the name and no
// pid; where five do, it has one of them.
func TestStorm_ManyProcessesOfOneName(t *testing.T) {
	for _, processes := range []int{5, 1000} {
		t.Run(fmt.Sprintf("%d processes", processes), func(t *testing.T) {
			h := newHost(t, 500, Config{})
			var by []tcp.Owner
			for i := range processes {
				by = append(by, process(uint32(1000+i), "curl"))
			}
			h.run(load{key: to(80), by: by, rate: constant(20)}, 5*time.Minute, true)
			a := h.mustWarn()
			if string(a.Culprit.Comm.Bytes()) != "curl" || a.Culprit.Processes < 5 {
				t.Errorf("the alert is about %+v", a.Culprit)
			}
			if processes == 5 && (a.Culprit.PID < 1000 || a.Culprit.PID > 1004 || a.Culprit.Share < 0.99 || math.Abs(a.Culprit.PIDShare-0.2) > 0.05) {
				t.Errorf("the alert is about %+v, want one of five that share the load", a.Culprit)
			}
			if processes == 1000 && (a.Culprit.PID != 0 || a.Culprit.Share < 0.9) {
				t.Errorf("the alert is about %+v, want no single process and nearly all of the name", a.Culprit)
			}
		})
	}
}

// An alert about a storm among other traffic names the process that causes most of it.
func TestStorm_TopProcessAmongOthers(t *testing.T) {
	h := newHost(t, 500, Config{})
	quiet := process(7, "backup")
	for n := range 40 { // other destinations, each with a little
		h.run(load{key: to(uint16(1000 + n)), by: []tcp.Owner{quiet}, rate: constant(10)}, time.Second, false)
	}
	by := []tcp.Owner{curl, curl, curl, process(7, "backup")}
	h.run(load{key: to(80), by: by, rate: constant(30)}, 5*time.Minute, true)
	if a := h.mustWarn(); a.Culprit.PID != curl.PID || math.Abs(a.Culprit.Share-0.75) > 0.05 {
		t.Errorf("the alert is about %+v", a.Culprit)
	}
}

// Reserved and bound ports do not count as capacity.
func TestStorm_ReservedAndBoundPorts(t *testing.T) {
	h := newHost(t, 500, Config{})
	h.limits.Reserved = &tcp.PortSet{}
	for port := range uint16(150) {
		h.limits.Reserved.Add(20000 + 100 + port)
	}
	h.limits.Bound = tcp.PortSetOf(20001, 20002, 20120)
	h.run(load{key: to(80), by: []tcp.Owner{curl}, rate: constant(30)}, 5*time.Minute, true)
	if a := h.mustWarn(); a.Capacity != 348 {
		t.Errorf("the capacity is %d, want 348", a.Capacity)
	}
}

// Where tcp_tw_reuse lets connect() take over a TIME_WAIT, there is no storm.
func TestStorm_TimeWaitReuse(t *testing.T) {
	loopback := destination{local: here.Unmap(), peer: there, netns: testNetns, peerPort: 80}
	for _, tt := range []struct {
		name   string
		reuse  int
		key    destination
		reused bool
	}{
		{"never", 0, loopback, false},
		{"always", 1, to(80), true},
		{"on loopback, which this is not", 2, to(80), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newHost(t, 500, Config{})
			h.limits.Reuse = tt.reuse
			h.run(load{key: tt.key, by: []tcp.Owner{curl}, rate: constant(60)}, 5*time.Minute, true)
			if tt.reused {
				h.mustBeSilent()
			} else {
				h.mustWarn()
			}
		})
	}
}

// A limit that changes while the engine runs counts.
func TestStorm_LimitChanges(t *testing.T) {
	h := newHost(t, 5000, Config{})
	h.run(load{key: to(80), by: []tcp.Owner{curl}, rate: constant(20)}, 2*time.Minute, false) // 1220 ports taken
	if len(h.alerts) > 0 {
		t.Fatalf("an alert at a quarter of the capacity: %+v", h.alerts)
	}
	h.limits.PortHigh = h.limits.PortLow + 1249
	h.run(load{key: to(80), by: []tcp.Owner{curl}, rate: constant(21)}, 2*time.Minute, true)
	if opened := only(h.alerts, "time_wait_storm", Open); len(opened) != 1 || opened[0].Capacity != 1250 {
		t.Errorf("got %+v, want one alert about a capacity of 1250", opened)
	}
}

// A burst that ends, at once or slowly, raises no alert.
func TestStorm_BurstThatEnds(t *testing.T) {
	t.Parallel()
	for _, part := range []float64{0.2, 0.4, 0.55} {
		for _, over := range []time.Duration{200 * time.Millisecond, 2 * time.Second, 8 * time.Second, 14 * time.Second} {
			t.Run(fmt.Sprintf("%.0f %% within %v", 100*part, over), func(t *testing.T) {
				h := newHost(t, 500, Config{})
				for range 4 {
					h.run(load{key: to(80), by: []tcp.Owner{curl}, rate: constant(500 * part / over.Seconds())}, over, false)
					h.pass(62*time.Second - over)
				}
				h.mustBeSilent()
			})
		}
	}
	t.Run("by half each second", func(t *testing.T) {
		h := newHost(t, 500, Config{})
		h.run(load{key: to(80), by: []tcp.Owner{curl}, rate: func(since time.Duration) float64 {
			return 0.8 * 500 * math.Ln2 * math.Exp2(-since.Seconds())
		}}, 20*time.Second, false)
		h.mustBeSilent()
	})
}

// A client that was delayed catches up in a burst, which does not change the forecast:
// its rate stays what it was.
func TestStorm_DelayedClientCatchesUp(t *testing.T) {
	h := newHost(t, 300, Config{})
	storm := load{key: to(80), by: []tcp.Owner{curl}, rate: constant(25)}
	h.run(storm, 7*time.Second, true)
	h.pass(2 * time.Second)
	for range 50 {
		h.connect(to(80), curl)
		h.close(to(80), curl, true)
	}
	h.run(storm, time.Minute, true)
	h.mustWarn()
}

// Connections that the peer closes first leave no TIME_WAIT here, and raise no alert.
func TestStorm_PeerClosesFirst(t *testing.T) {
	h := newHost(t, 200, Config{})
	h.run(load{key: to(80), by: []tcp.Owner{curl}, rate: constant(100), peer: true, lasting: 200 * time.Millisecond}, 5*time.Minute, false)
	h.mustBeSilent()
}

// An alert is opened, updated at most every ten seconds and at the first failure, and closed.
func TestLifecycle_OpenUpdateClose(t *testing.T) {
	h := newHost(t, 500, Config{})
	h.run(load{key: to(80), by: []tcp.Owner{curl}, rate: constant(30)}, 40*time.Second, false)
	h.pass(3 * time.Minute)
	if len(h.engine.alerts.open) > 0 {
		t.Errorf("%d alerts are still open", len(h.engine.alerts.open))
	}
	last := make(map[string]Alert)
	for _, a := range h.alerts {
		before, known := last[a.ID]
		switch {
		case known != (a.Phase != Open):
			t.Errorf("the phase %v comes out of order: %+v", a.Phase, a)
		case a.Phase == Update && a.Monotonic-before.Monotonic < 10*time.Second && (before.Failures > 0 || a.Failures == 0):
			t.Errorf("an update after %v", a.Monotonic-before.Monotonic)
		case a.Lasted != a.Monotonic-before.Monotonic+before.Lasted && known:
			t.Errorf("it has lasted %v, after %v of %v ago", a.Lasted, before.Lasted, a.Monotonic-before.Monotonic)
		}
		last[a.ID] = a
	}
	kinds := make(map[string]int)
	for _, a := range last {
		kinds[a.Kind]++
		if a.Phase != Close || a.Reason != Resolved {
			t.Errorf("the last phase is %v: %+v", a.Phase, a)
		}
	}
	if kinds["time_wait_storm"] != 1 || len(kinds) != 1 {
		t.Errorf("alerts were opened: %v, want one for one cause", kinds)
	}
}

// Finish closes the alerts that are open.
func TestLifecycle_FinishCloses(t *testing.T) {
	h := newHost(t, 500, Config{})
	h.run(load{key: to(80), by: []tcp.Owner{curl}, rate: constant(30)}, 13*time.Second, false)
	if len(only(h.alerts, "time_wait_storm", Open)) != 1 {
		t.Fatal("there is no alert")
	}
	if closed := only(h.finish(), "time_wait_storm", Close); len(closed) != 1 || closed[0].ID != h.alerts[0].ID || closed[0].Reason != Stopped {
		t.Errorf("%+v", h.alerts)
	}
}

// An alert reports how many transitions were lost.
func TestEngine_ReportsLoss(t *testing.T) {
	h := newHost(t, 500, Config{})
	h.engine.AddLost(h.now, 17)
	h.run(load{key: to(80), by: []tcp.Owner{curl}, rate: constant(30)}, 13*time.Second, false)
	if opened := only(h.alerts, "time_wait_storm", Open); len(opened) != 1 || opened[0].Lost != 17 {
		t.Errorf("%+v", opened)
	}
}

// A scan of a million peers takes a bounded table, and a storm that follows is found and
// marked as approximate.
func TestStorm_AmongAMillionPeers(t *testing.T) {
	t.Parallel()
	h := newHost(t, 500, Config{MaxDestinations: 256})
	h.uncounted = true // this host does not know of them
	h.limits.MaxTimeWaits = 1 << 30
	scanner := process(99, "scanner")
	key := to(0)
	for n := range 1_000_000 / floodDivisor {
		if key.peerPort++; key.peerPort == 0 {
			key.peer = key.peer.Next()
		}
		h.emit(key, 0, scanner, tcp.Close, tcp.SynSent)
		if n%3 == 0 {
			h.emit(key, 20000, scanner, tcp.FinWait2, tcp.TimeWait)
		} else {
			h.emit(key, 20000, scanner, tcp.CloseWait, tcp.LastAck)
		}
		if n%(100_000/floodDivisor) == 0 {
			h.pass(time.Second)
		}
	}
	if kept := len(h.engine.tracker.destinations.Entries()); kept > 256 || kept != h.engine.tracker.destinations.Len() {
		t.Errorf("%d destinations are kept, want at most 256", kept)
	}
	if len(h.alerts) > 0 {
		t.Errorf("a scan raises %+v", h.alerts)
	}
	h.run(load{key: to(80), by: []tcp.Owner{curl}, rate: constant(30)}, 5*time.Minute, true)
	if a := h.mustWarn(); !a.Approximate {
		t.Error("the alert is not marked as approximate")
	}
}

// An alert counts the failures of its own storm, not those of an earlier one, and is critical
// while connects fail.
func TestStorm_FailuresOfThisAlert(t *testing.T) {
	h := newHost(t, 500, Config{UpdateInterval: time.Second})
	h.run(load{key: to(80), by: []tcp.Owner{curl}, rate: constant(20)}, 27*time.Second, false) // and the last fail
	h.pass(52 * time.Second)
	h.run(load{key: to(80), by: []tcp.Owner{curl}, rate: constant(60)}, 7*time.Second, false)
	opened := only(h.alerts, "time_wait_storm", Open)
	if len(opened) != 2 || h.failed == 0 {
		t.Fatalf("%d alerts, first failure at %v", len(opened), h.failed)
	}
	during := uint64(0)
	for _, a := range h.alerts {
		switch {
		case a.Kind != "time_wait_storm":
		case a.ID == opened[1].ID && a.Failures > 0:
			t.Errorf("%s of the second alert: %d failures, and none came since the first", a.Phase, a.Failures)
		case a.ID == opened[0].ID:
			during = max(during, a.Failures)
		}
		if a.Exhausts && a.ExhaustionIn == 0 && a.Severity != Critical {
			t.Errorf("%s: the ports are exhausted now, and it is a %s", a.Phase, a.Severity)
		}
	}
	if during < 10 {
		t.Errorf("the first alert has %d failures", during)
	}
}

// An alert is critical while connects fail, although by the model there is room.
func TestStorm_CriticalWhileConnectsFail(t *testing.T) {
	h := newHost(t, 500, Config{UpdateInterval: 100 * time.Millisecond})
	h.run(load{key: to(80), by: []tcp.Owner{curl}, rate: constant(9)}, 31*time.Second, false)
	h.emit(to(80), 0, curl, tcp.Close, tcp.SynSent)
	h.emit(to(80), 0, curl, tcp.SynSent, tcp.Close)
	h.pass(500 * time.Millisecond)
	last := h.alerts[len(h.alerts)-1]
	for _, a := range h.alerts {
		if a.Kind == "time_wait_storm" {
			last = a
		}
	}
	if last.Kind != "time_wait_storm" || last.Phase != Update || last.Severity != Critical || last.ExhaustionIn != 0 || last.Failures != 1 {
		t.Errorf("%+v", last)
	}
}
