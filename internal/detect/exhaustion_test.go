package detect

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// phases gives the kind and phase of each alert about ports, with its severity, and whether
// connects have failed.
func (h *host) phases() (all []string) {
	for _, a := range h.alerts {
		text := fmt.Sprint(a.Kind, " ", a.Phase)
		if a.Phase == Close {
			text += fmt.Sprint(" ", a.Reason)
		}
		if a.Failures > 0 {
			text += ", failed"
		}
		all = append(all, text)
	}
	return all
}

func (h *host) mustHave(want ...string) {
	h.t.Helper()
	if got := h.phases(); !slices.Equal(got, want) {
		h.t.Errorf("the alerts are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// failed is how many connects have failed in a run.
func (h *host) attempts(key destination, count int) (failed int) {
	for range count {
		if !h.connect(key, curl) {
			failed++
		}
	}
	return failed
}

// Where a storm exhausts the ports, its alert says so at the next tick, and no other one opens.
// Its close has all failures.
func TestExhaustion_IsTheStormsUpdate(t *testing.T) {
	h := newHost(t, 500, Config{})
	h.run(steady, time.Minute, true)
	firstFailure := h.now
	h.pass(40 * time.Millisecond)
	last := h.alerts[len(h.alerts)-1]
	if last.Phase != Update || last.Monotonic-firstFailure > 40*time.Millisecond || last.Severity != Critical || !last.Exhausts || last.ExhaustionIn != 0 ||
		last.Failures != 1 || last.Occupancy != 500 || last.Capacity != 500 || !strings.Contains(last.Cause, "; 1 connect has failed already") {
		t.Errorf("%+v", last)
	}
	failed := uint64(1)
	for range 25 {
		failed += uint64(h.attempts(to(80), 10))
		h.pass(100 * time.Millisecond)
	}
	h.pass(2 * time.Minute)
	h.mustHave("time_wait_storm open", "time_wait_storm update, failed", "time_wait_storm update, failed", "time_wait_storm update, failed",
		"time_wait_storm update, failed", "time_wait_storm update, failed", "time_wait_storm close resolved, failed")
	if end := h.alerts[len(h.alerts)-1]; end.Failures != failed || end.ID != last.ID {
		t.Errorf("the close has %d failures of %d", end.Failures, failed)
	}
}

// A storm that no forecast has found in time opens its alert with the first failure.
func TestExhaustion_OpensTheStorm(t *testing.T) {
	for name, tt := range map[string]struct {
		ports int
		run   func(h *host)
	}{
		"all at once": {500, func(h *host) {
			for range 501 {
				if h.connect(to(80), curl) {
					h.close(to(80), curl, true)
				}
			}
		}},
		"fewer than a storm needs": {4, func(h *host) {
			for range 5 {
				h.pass(time.Second)
				if h.connect(to(80), curl) {
					h.close(to(80), curl, true)
				}
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, tt.ports, Config{})
			h.run(load{key: to(81), by: []tcp.Owner{curl}, rate: constant(1)}, 3*time.Second, false) // the limits are known
			tt.run(h)
			h.pass(40 * time.Millisecond)
			a := h.theOnly("time_wait_storm")
			if a.Severity != Critical || !a.Exhausts || a.ExhaustionIn != 0 || a.Failures == 0 || a.Occupancy != uint64(tt.ports) || a.Capacity != uint64(tt.ports) {
				t.Errorf("%+v", a)
			}
			h.pass(2 * time.Minute)
			if len(only(h.alerts, "", Open)) > 1 || len(h.openFor) > 0 {
				t.Error(h.phases())
			}
		})
	}
}

// Open connections that take all ports are a port_exhaustion. Its update says how many are left
// as soon as there are some, and its close has all failures.
func TestExhaustion_OfOpenConnections(t *testing.T) {
	h := newHost(t, 100, Config{UpdateInterval: 3 * time.Second})
	h.attempts(to(80), 100)
	h.pass(2 * time.Second)
	failed := h.attempts(to(80), 1)
	h.pass(100 * time.Millisecond)
	if a := h.theOnly("port_exhaustion"); a.Failures != 1 || a.Occupancy != 100 || a.Capacity != 100 || !a.Exhausts || a.ExhaustionIn != 0 || a.Severity != Critical {
		t.Errorf("%+v", a)
	}
	failed += h.attempts(to(80), 20)
	for range 60 {
		h.close(to(80), curl, false)
	}
	h.pass(4 * time.Second)
	if u := h.alerts[len(h.alerts)-1]; u.Phase != Update || u.Occupancy != 40 || u.Exhausts || u.Failures != 21 {
		t.Errorf("%+v", u)
	}
	h.pass(time.Minute)
	if end := h.alerts[len(h.alerts)-1]; end.Phase != Close || end.Failures != uint64(failed) || len(only(h.alerts, "", Open)) > 1 {
		t.Errorf("%d failed: %+v", failed, end)
	}
}

// The connections of a storm stay open from some moment on: once they take most of the ports,
// the failures are theirs, and the storm's alert closes.
func TestExhaustion_OpenConnectionsTakeOver(t *testing.T) {
	h := newHost(t, 500, Config{UpdateInterval: time.Hour})
	h.run(steady, time.Minute, true)
	for range 80 { // each TIME_WAIT that ends gives its port to a connection that stays
		h.attempts(to(80), 40)
		h.pass(time.Second)
	}
	h.pass(time.Minute)
	h.mustHave("time_wait_storm open", "time_wait_storm update, failed", "time_wait_storm close resolved, failed",
		"port_exhaustion open, failed", "port_exhaustion close resolved, failed")
	if took := h.alerts[3].Monotonic; took != h.alerts[2].Monotonic || h.alerts[3].Failures >= h.alerts[2].Failures {
		t.Errorf("one closes after %v with %d failures, the other one opens after %v with %d", h.alerts[2].Monotonic-time.Hour, h.alerts[2].Failures,
			took-time.Hour, h.alerts[3].Failures)
	}
}

// TIME_WAITs take over from open connections.
func TestExhaustion_TimeWaitsTakeOver(t *testing.T) {
	h := newHost(t, 500, Config{UpdateInterval: time.Hour})
	h.attempts(to(80), 500)
	h.pass(2 * time.Second)
	for n := range 50 {
		h.pass(time.Second)
		h.attempts(to(80), 3)
		for range 10 {
			h.close(to(80), curl, true)
		}
		if n == 1 {
			h.theOnly("port_exhaustion")
		}
	}
	h.pass(2 * time.Minute)
	h.mustHave("port_exhaustion open, failed", "port_exhaustion update, failed", // the kernel confirms it
		"port_exhaustion close resolved, failed", "time_wait_storm open, failed", "time_wait_storm close resolved, failed")
}

// Where the model does not explain why a connect() has failed, the kernel's table decides what
// takes the ports before an alert opens.
func TestExhaustion_KernelDecides(t *testing.T) {
	for name, tt := range map[string]struct {
		timeWaits bool
		kind      string
	}{"TIME_WAITs": {true, "time_wait_storm"}, "open connections": {false, "port_exhaustion"}} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, 500, Config{})
			h.uncounted, h.answersAfter = true, 300*time.Millisecond
			h.run(load{key: to(81), by: []tcp.Owner{curl}, rate: constant(1)}, 3*time.Second, false)
			for range 500 { // which the filters leave out
				if h.open[to(80)]++; tt.timeWaits {
					h.open[to(80)]--
					h.ends[to(80)] = append(h.ends[to(80)], timewait{finAt: h.now - 10*time.Second, end: h.now + 50*time.Second})
				}
			}
			h.attempts(to(80), 3)
			h.pass(200 * time.Millisecond)
			if len(h.alerts) > 0 {
				t.Fatalf("the kernel has not answered: %v", h.phases())
			}
			h.pass(time.Second)
			if a := h.theOnly(tt.kind); a.Failures != 3 || a.Unverified || a.OccupancySource != FromKernel || a.Occupancy < 490 {
				t.Errorf("%+v", a)
			}
			h.pass(2 * time.Minute)
			if len(only(h.alerts, "", Open)) > 1 || len(h.openFor) > 0 {
				t.Error(h.phases())
			}
		})
	}
}

// Where the kernel does not answer, an alert opens after a second, and also if the tracer ends
// before.
func TestExhaustion_NoAnswer(t *testing.T) {
	for _, wait := range []time.Duration{countWait + 100*time.Millisecond, 100 * time.Millisecond} {
		h := newHost(t, 500, Config{})
		h.unreadable = true
		h.run(load{key: to(81), by: []tcp.Owner{curl}, rate: constant(1)}, 3*time.Second, false)
		h.emit(to(80), 0, curl, tcp.Close, tcp.SynSent)
		h.emit(to(80), 0, curl, tcp.SynSent, tcp.Close)
		h.pass(wait)
		h.finish()
		if a := h.theOnly("port_exhaustion"); !a.Unverified || a.Failures != 1 {
			t.Errorf("after %v: %+v", wait, a)
		}
	}
}

// An alert whose kind the kernel's table does not confirm closes as refuted, and the other one
// reports all failures.
func TestExhaustion_KindIsRefuted(t *testing.T) {
	h := newHost(t, 500, Config{})
	h.unreadable = true
	h.run(load{key: to(81), by: []tcp.Owner{curl}, rate: constant(1)}, 3*time.Second, false)
	h.open[to(80)] = 500
	h.loses = true
	for range 490 {
		h.close(to(80), curl, true)
	}
	h.loses = false
	h.attempts(to(80), 4)
	h.pass(2 * time.Second)
	h.theOnly("port_exhaustion")
	h.unreadable = false
	h.pass(3 * time.Second)
	if got := h.phases(); !slices.Equal(got[:3], []string{"port_exhaustion open, failed", "port_exhaustion close refuted, failed", "time_wait_storm open, failed"}) {
		t.Fatal(got)
	}
	if a := h.alerts[2]; a.Failures != 4 || a.Unverified {
		t.Errorf("%+v", a)
	}
}

// The TIME_WAITs of one destination end at its ports: where these are fewer than
// tcp_max_tw_buckets, no second alert says that they reach it.
func TestExhaustion_PortsBeforeBuckets(t *testing.T) {
	h := newHost(t, 500, Config{})
	h.limits.MaxTimeWaits = 550
	h.run(steady, 2*time.Minute, false)
	if a := h.theOnly("time_wait_storm"); a.CapacityKind != EphemeralPorts {
		t.Errorf("%+v", a)
	}
	// With another destination they do.
	h = newHost(t, 500, Config{})
	h.limits.MaxTimeWaits = 550
	for range 40 * 15 {
		for _, port := range []uint16{80, 81} {
			if h.connect(to(port), curl) {
				h.close(to(port), curl, true)
			}
		}
		h.pass(time.Second / 15)
	}
	buckets := 0
	for _, a := range only(h.alerts, "time_wait_storm", Open) {
		if a.CapacityKind == TimeWaitBuckets {
			buckets++
		}
	}
	if buckets != 1 {
		t.Errorf("%d alerts about tcp_max_tw_buckets: %v", buckets, h.phases())
	}
}

// A connect() that finds no port refutes the range of ports that is assumed while the namespace cannot be read, unless
// that many are taken: then the alert has no capacity.
func TestExhaustion_OfAnUnknownRange(t *testing.T) {
	h := newHost(t, 100, Config{})
	h.engine.Update(h.now, testNetns, nil)
	h.attempts(to(80), 101)
	h.pass(countWait + 100*time.Millisecond)
	for _, a := range h.engine.Finish(h.now) {
		h.take(a)
	}
	if a := h.theOnly("port_exhaustion"); a.Capacity != 100 {
		t.Errorf("the limits were read, and the alert has a capacity of %d", a.Capacity)
	}
	e := New(Config{}, h.now)
	e.Update(h.now, testNetns, nil)
	h.engine = e
	h.attempts(to(80), 1)
	if early := e.Tick(h.now); len(early) > 0 {
		t.Errorf("nothing is known yet, and there is %+v", early)
	}
	h.now += countWait + 100*time.Millisecond
	opened := only(e.Tick(h.now), "port_exhaustion", Open)
	if len(opened) != 1 || opened[0].Capacity != 0 || opened[0].Failures != 1 {
		t.Errorf("%+v, want one without a capacity", opened)
	}
}

// A namespace that cannot be read is forgotten: no alert reports the kernel's default range, which is assumed from
// then on, as exhausted.
func TestExhaustion_NamespaceForgotten(t *testing.T) {
	h := newHost(t, 100, Config{UpdateInterval: time.Second})
	h.run(load{key: to(80), by: []tcp.Owner{curl}, rate: constant(20)}, time.Minute, true)
	h.pass(6 * time.Second)
	h.engine.Update(h.now, testNetns, nil) // now it is forgotten
	for range 20 {
		h.emit(to(80), 0, curl, tcp.Close, tcp.SynSent)
		h.emit(to(80), 20001, curl, tcp.CloseWait, tcp.LastAck)
		h.engine.Update(h.now, testNetns, nil)
		for range 5 {
			h.now += 100 * time.Millisecond
			for _, a := range h.engine.Tick(h.now) {
				h.take(a)
			}
		}
	}
	h.mustWarn()
	for _, a := range h.alerts {
		if a.CapacityKind == EphemeralPorts && a.Capacity != 100 {
			t.Errorf("%s of %s after %v: %d of %d", a.Phase, a.Kind, a.Monotonic-time.Hour, a.Occupancy, a.Capacity)
		}
	}
}

// A storm whose connects have failed was true. When an administrator kills its TIME_WAITs, its alert closes at once, and
// not as refuted.
func TestExhaustion_KilledTimeWaits(t *testing.T) {
	h := newHost(t, 100, Config{})
	h.limits.Reuse = 0
	for range 100 {
		h.connect(to(80), curl)
		h.close(to(80), curl, true)
	}
	h.attempts(to(80), 3)
	h.pass(15 * time.Second)
	h.vanish(to(80), len(h.waiting(to(80))))
	h.pass(6 * time.Second)
	closed := only(h.alerts, timeWaitStorm, Close)
	if len(closed) != 1 || closed[0].Reason != Resolved || closed[0].Failures != 3 {
		t.Errorf("%v", h.phases())
	}
}
