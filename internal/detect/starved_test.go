package detect

import (
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// steadyUse is a load that takes a fraction of the ports, for as long as it takes to reach its plateau. A restart
// then finds the TIME_WAITs.
func (h *host) steadyUse(fraction float64) {
	h.limits.Reuse = 0
	perSecond := fraction * float64(h.limits.PortCount()) / 61
	h.run(load{key: to(80), by: []tcp.Owner{curl}, rate: constant(perSecond)}, 100*time.Second, false)
}

// restartSlowly is restart on a starved machine: the timewait sockets come in parts, between is called after each
// part, and the engine ticks.
func (h *host) restartSlowly(key destination, parts int, between func()) {
	h.finish()
	h.alerts, h.openFor, h.answers = nil, make(map[destination]Alert), nil
	h.engine = New(Config{}, h.now)
	l := h.limits
	l.TimeWaits = h.timeWaits(testNetns)
	h.engine.Update(h.now, testNetns, &l)
	waiting := append([]timewait(nil), h.waiting(key)...)
	for part := range parts {
		for i := part; i < len(waiting); i += parts {
			s := seedOpen(0)
			s.New, s.Substate, s.ExpiresIn = tcp.TimeWait, tcp.TimeWait, tcp.TimeWaitTimeout-(h.now-waiting[i].created)
			s.Peer.Port = key.peerPort
			h.engine.Seed(h.now, testNetns, s)
		}
		between()
	}
	h.engine.SeedingDone(h.now)
}

// While the sockets of before the start come, the kernel's count of TIME_WAITs is above the model, and some transitions
// were lost: the sockets that have not come yet are the reason, and no number is scaled up.
func TestStarved_LossWhileSeeding(t *testing.T) {
	for _, parts := range []int{2, 3, 5} {
		h := newHost(t, 500, Config{})
		h.unreadable = true
		h.steadyUse(0.9)
		h.restartSlowly(to(80), parts, func() {
			h.engine.AddLost(h.now, 300)
			h.pass(1100 * time.Millisecond)
		})
		h.pass(5 * time.Second)
		h.mustBeSilent()
		if got, most := h.occupancy(to(80)), 470.0; got > most {
			t.Errorf("%d parts: the model has %.0f, and there are %d", parts, got, h.taken(to(80)))
		}
	}
}

// A loss adds to the model no more than was lost, whatever the kernel counts: others may have the rest.
func TestStarved_SmallLoss(t *testing.T) {
	h := newHost(t, 500, Config{})
	h.unreadable = true
	h.steadyUse(0.3)
	others := to(81)
	for range 400 {
		h.ends[others] = append(h.ends[others], timewait{created: h.now, end: h.now + time.Minute})
	}
	h.engine.AddLost(h.now, 7)
	h.pass(15 * time.Second)
	if got, most := h.occupancy(to(80)), float64(h.taken(to(80))+20); got > most {
		t.Errorf("the model has %.0f, and there are %d", got, h.taken(to(80)))
	}
}

// The kernel's table is counted before all sockets of before the start have come: those that come later are in that
// count, and count once.
func TestStarved_CountWhileSeeding(t *testing.T) {
	for _, parts := range []int{2, 3, 5} {
		h := newHost(t, 500, Config{})
		h.steadyUse(0.9)
		h.restartSlowly(to(80), parts, func() { h.pass(1100 * time.Millisecond) })
		h.pass(200 * time.Millisecond)
		if got, most := h.occupancy(to(80)), float64(h.taken(to(80))+10); got > most {
			t.Errorf("%d parts: the model has %.0f, and there are %d", parts, got, h.taken(to(80)))
		}
		h.mustBeSilent()
	}
}

// The table is counted before the first socket of before the start comes.
func TestStarved_CountBeforeSeeding(t *testing.T) {
	h := newHost(t, 500, Config{})
	h.steadyUse(0.45)
	h.finish()
	h.alerts, h.openFor = nil, make(map[destination]Alert)
	h.engine = New(Config{}, h.now)
	waiting := append([]timewait(nil), h.waiting(to(80))...)
	l := h.limits
	l.TimeWaits = h.timeWaits(testNetns)
	h.engine.Update(h.now, testNetns, &l)
	h.cookie = 1 << 20
	h.run(load{key: to(80), by: []tcp.Owner{curl}, rate: constant(1000)}, 205*time.Millisecond, false) // 41 % of the ports
	h.pass(1500 * time.Millisecond)
	if h.counted == 0 {
		t.Fatal("the destination is no suspect: this proves nothing")
	}
	for _, w := range waiting {
		s := seedOpen(0)
		s.New, s.Substate, s.ExpiresIn = tcp.TimeWait, tcp.TimeWait, tcp.TimeWaitTimeout-(h.now-w.created)
		h.engine.Seed(h.now, testNetns, s)
	}
	h.engine.SeedingDone(h.now)
	h.pass(40 * time.Millisecond)
	if got, most := h.occupancy(to(80)), float64(h.taken(to(80))+10); got > most {
		t.Errorf("the model has %.0f, and there are %d", got, h.taken(to(80)))
	}
}

// phantomStorm opens an alert of a storm that does not exist: the kernel has no TIME_WAITs any more.
func (h *host) phantomStorm() Alert {
	for h.now < time.Hour+320*time.Millisecond && len(h.alerts) == 0 {
		h.run(fast, 10*time.Millisecond, false)
		h.vanish(to(80), len(h.waiting(to(80))))
	}
	opened := only(h.alerts, timeWaitStorm, Open)
	if len(opened) != 1 || !opened[0].Unverified {
		h.t.Fatalf("%+v", opened)
	}
	return opened[0]
}

// An unverified alert is refuted as well where the kernel's count of all TIME_WAITs has corrected the model before the
// count of the destination comes.
func TestStarved_RefutedAfterACorrection(t *testing.T) {
	h := newHost(t, 400, Config{})
	h.answersAfter = 400 * time.Millisecond
	h.uncounted = true
	opened := h.phantomStorm()
	h.uncounted = false
	h.pass(3 * time.Second)
	closed := only(h.alerts, timeWaitStorm, Close)
	if len(closed) != 1 || closed[0].Reason != Refuted || closed[0].Monotonic-opened.Monotonic > 2*time.Second {
		t.Errorf("%+v", closed)
	}
}

// However late the kernel's answer comes, an alert that it contradicts is refuted. One that ends before any answer
// is not resolved.
func TestStarved_LateAnswers(t *testing.T) {
	for _, after := range []time.Duration{2 * time.Second, 5 * time.Second, 9 * time.Second, 30 * time.Second} {
		for _, uncounted := range []bool{true, false} {
			h := newHost(t, 400, Config{})
			h.answersAfter, h.uncounted = after, true
			h.phantomStorm()
			h.uncounted = uncounted
			h.pass(40 * time.Second)
			want := Refuted
			if after > quietPeriod+5*time.Second {
				want = Unverified
			}
			if closed := only(h.alerts, timeWaitStorm, Close); len(closed) != 1 || closed[0].Reason != want {
				t.Errorf("answers after %v: %+v, want it to close once as %s", after, summaries(closed), want)
			}
			if updates := only(h.alerts, timeWaitStorm, Update); len(updates) > 0 && !updates[0].Unverified {
				t.Errorf("answers after %v: %+v", after, updates)
			}
		}
	}
}

// An alert that opened on a number that was wrong is not confirmed by a burst of a load that fits: the kernel's number
// must be a reason to open it.
func TestStarved_BurstConfirmsNothing(t *testing.T) {
	h := newHost(t, 500, Config{})
	h.steadyUse(0.8)
	h.unreadable = true
	h.engine = New(Config{}, h.now)
	h.alerts, h.openFor = nil, make(map[destination]Alert)
	l := h.limits
	l.TimeWaits = -1
	h.engine.Update(h.now, testNetns, &l)
	for range 2 { // the model has each twice
		for _, w := range h.waiting(to(80)) {
			s := seedOpen(0)
			s.New, s.Substate, s.ExpiresIn = tcp.TimeWait, tcp.TimeWait, tcp.TimeWaitTimeout-(h.now-w.created)
			h.engine.Seed(h.now, testNetns, s)
		}
	}
	h.engine.SeedingDone(h.now)
	h.uncounted = true
	h.pass(1500 * time.Millisecond)
	if opened := only(h.alerts, timeWaitStorm, Open); len(opened) != 1 || !opened[0].Unverified {
		t.Fatalf("%+v", summaries(h.alerts))
	}
	h.unreadable, h.uncounted = false, false
	h.run(load{key: to(80), by: []tcp.Owner{curl}, rate: constant(0.8 * 500 / 61), bursts: 20}, 40*time.Second, false)
	for _, a := range only(h.alerts, timeWaitStorm, Update) {
		if !a.Unverified {
			t.Errorf("confirmed: %d of %d, %.1f/s", a.Occupancy, a.Capacity, a.Rate)
		}
	}
	if closed := only(h.alerts, timeWaitStorm, Close); len(closed) != 1 || closed[0].Reason != Refuted {
		t.Errorf("%+v", summaries(closed))
	}
}

// Transitions that reach the engine late count in the second in which they happened: they are no burst.
func TestStarved_LateTransitions(t *testing.T) {
	for _, stall := range []time.Duration{time.Second, 3 * time.Second, 8 * time.Second} {
		h := newHost(t, 500, Config{})
		h.limits.Reuse, h.uncounted, h.unreadable = 0, true, true
		const perSecond = 0.85 * 500 / 61
		w := load{key: to(80), by: []tcp.Owner{curl}, rate: constant(perSecond)}
		h.run(w, 100*time.Second, false)
		for range 8 {
			h.run(w, 5*time.Second, false)
			h.late = true
			h.run(w, stall, false)
			h.deliver()
			h.pass(40 * time.Millisecond)
			u := h.use(to(80))
			u.Advance(h.now)
			if f := u.Forecast(h.engine.tracker.ensureNamespace(testNetns).modelFor(h.now, to(80), u), 500); f.Rate > 1.2*perSecond {
				t.Errorf("%v late: %.1f a second, there are %.1f", stall, f.Rate, perSecond)
			}
		}
		h.mustBeSilent()
	}
}

// Two tables that were read a second apart show no socket that has waited for five, although the second one comes late.
// The rate is that between the readings as well.
func TestStarved_LateTableOfFinWait2(t *testing.T) {
	h := newHost(t, 500, Config{HalfClosed: 20})
	table := func(n int) (list []tcp.Socket) {
		for cookie := range n {
			s := seedOpen(uint64(cookie + 1))
			s.New, s.Substate, s.ExpiresIn, s.NoProcess = tcp.TimeWait, tcp.FinWait2, 50*time.Second, true
			list = append(list, *s)
		}
		return list
	}
	h.connect(to(80), curl)
	first := h.now
	h.engine.UpdateHalfClosed(first, first, testNetns, table(40))
	h.now += 15 * time.Second
	h.engine.UpdateHalfClosed(h.now, first+time.Second, testNetns, table(40))
	if alerts := only(h.engine.Tick(h.now), "fin_wait2_pileup", Open); len(alerts) > 0 {
		t.Errorf("%+v", summaries(alerts))
	}
	h.engine.UpdateHalfClosed(h.now, first+6*time.Second, testNetns, table(140))
	alerts := only(h.engine.Tick(h.now+time.Millisecond), "fin_wait2_pileup", Open)
	if len(alerts) != 1 || alerts[0].Occupancy != 40 {
		t.Errorf("%+v", summaries(alerts))
	}
	h.engine.UpdateHalfClosed(h.now+2*time.Millisecond, first+11*time.Second, testNetns, table(140))
	alerts = only(h.engine.Tick(h.now+10*time.Second+3*time.Millisecond), "fin_wait2_pileup", Update)
	if len(alerts) != 1 || alerts[0].Occupancy != 140 || alerts[0].Rate != 20 {
		t.Errorf("%+v, want 100 more in 5 s", summaries(alerts))
	}
}

// A connect() that found no port has an alert within countWait after the engine gets it, however late that is and whether
// or not ports are free again. The alert closes.
func TestStarved_LateFailures(t *testing.T) {
	for _, late := range []time.Duration{time.Second, 9 * time.Second, 12 * time.Second, 30 * time.Second, 3 * time.Minute} {
		for _, first := range []bool{false, true} { // this side closes first: TIME_WAITs have the ports
			h := newHost(t, 100, Config{})
			h.limits.Reuse, h.unreadable = 0, true
			h.attempts(to(80), 100)
			for first && h.open[to(80)] > 0 {
				h.close(to(80), curl, true)
			}
			h.pass(40 * time.Millisecond)
			h.late = true
			failed := h.attempts(to(80), 3)
			h.pass(200 * time.Millisecond)
			for h.open[to(80)] > 0 {
				h.close(to(80), curl, false)
			}
			h.pass(late - 200*time.Millisecond)
			h.deliver()
			h.pass(countWait + 80*time.Millisecond) // two ticks more
			if a := h.openFor[to(80)]; failed != 3 || a.Failures != 3 {
				t.Errorf("%v late, of 3 connects %d failed, and the alert has %d: %v", late, failed, a.Failures, h.phases())
			}
			h.pass(2 * time.Minute)
			if len(h.openFor) > 0 {
				t.Errorf("%v late, open after two minutes: %v", late, h.phases())
			}
		}
	}
}

// Which alert reports a connect() that comes late is decided as for others: the kernel's table may show it, and has a
// second for that.
func TestStarved_LateFailuresWaitForTheTable(t *testing.T) {
	h := newHost(t, 100, Config{})
	h.limits.Reuse, h.answersAfter = 0, 400*time.Millisecond
	h.run(load{key: to(81), by: []tcp.Owner{curl}, rate: constant(1)}, 3*time.Second, false) // the limits are known
	for range 100 {
		h.ends[to(80)] = append(h.ends[to(80)], timewait{created: h.now, finAt: h.now, end: h.now + time.Minute}) // a filter hides them
	}
	h.late = true
	h.attempts(to(80), 1)
	h.pass(5 * time.Second)
	h.deliver()
	h.pass(time.Second)
	if len(h.alerts) == 0 || h.alerts[0].Kind != timeWaitStorm {
		t.Error(h.phases())
	}
}
