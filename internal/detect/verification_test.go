package detect

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/internal/detect/rate"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// use gives what the engine counts for a destination.
func (h *host) use(key destination) *destinationUse {
	e := h.engine.tracker.destinations.Find(key, key.hash())
	if e == nil {
		h.t.Fatalf("the engine does not know %v", key)
	}
	return &e.Value
}

// occupancy is what the model counts, corrected by the kernel's table.
func (h *host) occupancy(key destination) float64 {
	u := h.use(key)
	u.Advance(h.now)
	return u.Occupancy(h.engine.tracker.ensureNamespace(key.netns).modelFor(h.now, key, u))
}

// taken is how many ports are in use.
func (h *host) taken(key destination) int { return h.open[key] + len(h.waiting(key)) }

// vanish makes the kernel forget TIME_WAITs, as ss -K does: no transition shows that.
func (h *host) vanish(key destination, count int) {
	h.ends[key] = h.waiting(key)[count:]
}

// fast takes 400 ports in a third of a second.
var fast = load{key: to(80), by: []tcp.Owner{curl}, rate: constant(1200)}

// steady takes 500 ports in 16 s.
var steady = load{key: to(80), by: []tcp.Owner{curl}, rate: constant(30)}

// A storm opens with the kernel's number, which the transitions since have moved on.
func TestVerification_OpensWithKernelNumber(t *testing.T) {
	h := newHost(t, 500, Config{})
	h.run(steady, 5*time.Minute, true)
	h.pass(100 * time.Millisecond)
	a := h.mustWarn()
	if a.OccupancySource != FromKernel || a.Unverified || a.Approximate {
		t.Errorf("source %v, unverified %v, approximate %v", a.OccupancySource, a.Unverified, a.Approximate)
	}
	if x := only(h.alerts, "time_wait_storm", Update); len(x) != 1 || x[0].Unverified || x[0].OccupancySource != FromKernel || x[0].Occupancy != 500 {
		t.Errorf("%+v", x)
	}
}

// A count that comes late delays a storm that leaves time, and no other alert.
func TestVerification_WaitsForTheKernel(t *testing.T) {
	h := newHost(t, 500, Config{})
	h.answersAfter = 300 * time.Millisecond
	h.run(steady, 5*time.Minute, true)
	if a := h.mustWarn(); a.Unverified || a.OccupancySource != FromKernel {
		t.Errorf("%+v", a)
	}
}

// A storm that takes all ports within four seconds waits for its first count, too: it comes after the model has found
// the storm, and in time.
func TestVerification_WaitsForTheFirstCount(t *testing.T) {
	h := newHost(t, 500, Config{})
	h.answersAfter = 2100 * time.Millisecond
	h.run(load{key: to(80), by: []tcp.Owner{curl}, rate: constant(125)}, time.Minute, true)
	if a := h.mustWarn(); a.Unverified || a.OccupancySource != FromKernel || a.Occupancy < 350 {
		t.Errorf("%+v", a)
	}
}

// Counts that come after newer requests verify the numbers, too.
func TestVerification_SlowKernel(t *testing.T) {
	h := newHost(t, 500, Config{UpdateInterval: time.Second})
	h.answersAfter = 2500 * time.Millisecond
	h.run(load{key: to(80), by: []tcp.Owner{curl}, rate: constant(9)}, 90*time.Second, true)
	if a := h.mustWarn(); a.OccupancySource != FromKernel || a.Unverified {
		t.Errorf("%+v", a)
	}
	for _, a := range only(h.alerts, "time_wait_storm", Update) {
		if a.Unverified {
			t.Errorf("after %v: %+v", a.Lasted, a)
		}
	}
}

// What a count corrects for good does not take back what a newer one has found.
func TestVerification_SettlesOneOfTwoCounts(t *testing.T) {
	u := &destinationUse{}
	for range 100 {
		u.Opened(time.Hour)
	}
	// The first count had 90 connections and five have moved since; the second one had 80.
	u.kernel = verification{settlesAt: time.Hour, settleOpen: 90, settleFrom: mark{moves: -5, open: 100}, verifiedAt: time.Hour, open: -20}
	now := time.Hour + openSettles
	u.settle(now)
	m := rate.TimeWaitModel{Hold: rate.TimeWaitHold}
	u.kernel.applyTo(&m, now)
	if open, got := u.OpenCount(), u.Connections(m); open != 95 || got != 80 {
		t.Errorf("%d connections count as open, and %.0f with the newer count, want 95 and 80", open, got)
	}
}

// A timewait socket in FIN_WAIT2 without a timestamp of the peer counts once, although the table
// shows no timestamps.
func TestVerification_FinWait2WithoutTimestamps(t *testing.T) {
	h := newHost(t, 500, Config{})
	h.limits.Reuse = 1
	h.unreadable = true
	h.run(load{key: to(80), by: []tcp.Owner{curl}, rate: constant(10)}, 10*time.Second, false)
	h.untimed, h.finAfter = true, 30*time.Second
	h.run(load{key: to(80), by: []tcp.Owner{curl}, rate: constant(12)}, 20*time.Second, false)
	u, tr := h.use(to(80)), h.engine.tracker
	// The table also has others, which connect() takes over.
	c := suspectCount{timeWaits: 240, finWait2: 240, reusable: 200}
	s := &Suspects{since: h.now}
	tr.takeCount(&SuspectCounts{of: s, readAt: h.now, readUntil: h.now}, &suspect{key: to(80), atRequest: tr.markNow(s, to(80), u)}, u, &c)
	if got := h.occupancy(to(80)); got < 230 || got > 260 {
		t.Errorf("the model has %.0f, want 240", got)
	}
}

// A connect() that has found no port shows that the TIME_WAITs that were old enough have no
// timestamp of the peer: it would have taken them over.
func TestVerification_RefusedTimeWaits(t *testing.T) {
	h := newHost(t, 500, Config{})
	h.limits.Reuse = 1
	s := &Suspects{since: h.now, list: []suspect{{key: to(80), refusedAt: h.now - 10*time.Second}}}
	counts := s.NewCounts(h.now, &h.limits)
	for i, age := range []time.Duration{500 * time.Millisecond, 2 * time.Second, 10500 * time.Millisecond, 12 * time.Second, 30 * time.Second} {
		x := tcp.Socket{ExpiresIn: time.Minute - age, Transition: tcp.Transition{New: tcp.TimeWait, Substate: tcp.TimeWait}}
		x.Local, x.Peer = tcp.Endpoint{Addr: here, Port: h.limits.PortLow + uint16(i)}, tcp.Endpoint{Addr: there, Port: 80}
		counts.Add(testNetns, &x)
	}
	c, refused := &counts.counts[0], int32(0)
	for _, n := range c.refusedIn {
		refused += n
	}
	if c.timeWaits != 3 || refused != 2 || c.reusable != 2 {
		t.Errorf("%d that connect() does not take over, %d of them shown by a failure, %d that it may take over; want 3, 2, 2", c.timeWaits, refused, c.reusable)
	}
}

// The kernel has no TIME_WAITs where the model has enough of them for a storm: no alert
// opens, and the model is corrected.
func TestVerification_PhantomOpensNoAlert(t *testing.T) {
	h := newHost(t, 500, Config{})
	h.uncounted = true // its count would correct the model, too
	h.run(steady, 5*time.Second, false)
	for range 10 {
		h.run(steady, time.Second, false)
		h.vanish(to(80), 28)
	}
	h.mustBeSilent()
	if got, want := h.occupancy(to(80)), float64(h.taken(to(80))); got > want+3*28 {
		t.Errorf("the model has %.0f, the kernel %.0f", got, want)
	}
}

// Half a second's TIME_WAITs are all that the kernel ever has, whatever their substate was and whether connect()
// would take them over: each count takes off those that the count before has not.
func TestVerification_PhantomsOfEveryKind(t *testing.T) {
	for _, reuse := range []int{0, 1} {
		for _, finAfter := range []time.Duration{0, time.Millisecond, time.Hour} {
			for _, untimed := range []bool{false, true} {
				t.Run(fmt.Sprintf("tcp_tw_reuse=%d/FIN_after_%v/untimed=%v", reuse, finAfter, untimed), func(t *testing.T) {
					h := newHost(t, 500, Config{})
					h.uncounted, h.limits.Reuse, h.finAfter, h.untimed = true, reuse, finAfter, untimed
					for range 160 {
						h.run(load{key: to(80), by: []tcp.Owner{curl}, rate: constant(25)}, 500*time.Millisecond, false)
						h.vanish(to(80), len(h.waiting(to(80))))
					}
					h.mustBeSilent()
					if got := h.occupancy(to(80)); got > 250 {
						t.Errorf("the model has %.0f, and the kernel at most 13", got)
					}
				})
			}
		}
	}
}

// Connections whose ends were lost count as open for no longer than a second.
func TestVerification_LostEnds(t *testing.T) {
	h := newHost(t, 500, Config{})
	h.run(small, 20*time.Second, false)
	for range 180 {
		h.connect(to(80), curl)
	}
	h.loses = true
	for range 180 {
		h.close(to(80), curl, false)
	}
	h.loses = false
	h.run(small, 3*time.Second, false)
	if open := h.use(to(80)).OpenCount(); open > 25 {
		t.Errorf("%d connections count as open, and none is", open)
	}
	h.run(small, time.Minute, false)
	h.mustBeSilent()
}

// Where more is in use than the model has, because transitions were lost, the model goes up.
func TestVerification_ModelGoesUp(t *testing.T) {
	h := newHost(t, 500, Config{})
	h.uncounted = true
	h.run(load{key: to(80), by: []tcp.Owner{curl}, rate: constant(40)}, 6*time.Second, false)
	h.loses = true
	h.run(load{key: to(80), by: []tcp.Owner{curl}, rate: constant(40)}, 3*time.Second, false)
	h.loses = false
	h.run(load{key: to(80), by: []tcp.Owner{curl}, rate: constant(40)}, 5*time.Minute, true)
	opened := only(h.alerts, "time_wait_storm", Open)
	if len(opened) != 1 || opened[0].Occupancy < 330 || opened[0].Monotonic >= h.failed {
		t.Fatalf("%v, first failure after %v", summaries(opened), h.failed-time.Hour)
	}
	if left := 40 * (h.failed - opened[0].Monotonic).Seconds(); math.Abs(500-left-float64(opened[0].Occupancy)) > 25 {
		t.Errorf("%d are in use, and there is room for %.0f more", opened[0].Occupancy, left)
	}
}

// Where there is no time to ask, the alert opens unverified, and is confirmed within a second.
func TestVerification_NoTimeToAsk(t *testing.T) {
	h := newHost(t, 400, Config{})
	h.answersAfter = 400 * time.Millisecond
	h.run(fast, 2*time.Second, true)
	opened := only(h.alerts, "time_wait_storm", Open)
	if len(opened) != 1 || !opened[0].Unverified || opened[0].OccupancySource != FromEvents || opened[0].Monotonic >= h.failed {
		t.Fatalf("%+v, first failure after %v", opened, h.failed-time.Hour)
	}
	h.run(fast, 2*time.Second, false)
	next := only(h.alerts, "time_wait_storm", Update) // the first failure, and the kernel's answer
	if len(next) != 2 || !next[0].Unverified || next[0].Failures == 0 || next[1].Unverified || next[1].OccupancySource != FromKernel ||
		next[1].Occupancy != 400 {
		t.Fatalf("%+v", next)
	}
	if after := next[1].Monotonic - opened[0].Monotonic; after > time.Second {
		t.Errorf("it was confirmed after %v", after)
	}
}

// Such an alert closes within a second if the kernel refutes it.
func TestVerification_RefutedWithinASecond(t *testing.T) {
	h := newHost(t, 400, Config{})
	h.uncounted = true
	h.answersAfter = 400 * time.Millisecond
	for h.now < time.Hour+320*time.Millisecond && len(h.alerts) == 0 {
		h.run(fast, 10*time.Millisecond, false)
		h.vanish(to(80), len(h.waiting(to(80))))
	}
	opened := only(h.alerts, "time_wait_storm", Open)
	if len(opened) != 1 || !opened[0].Unverified {
		t.Fatalf("%+v", opened)
	}
	h.pass(2 * time.Second)
	closed := only(h.alerts, "time_wait_storm", Close)
	if len(closed) != 1 || closed[0].Reason != Refuted || closed[0].Monotonic-opened[0].Monotonic > time.Second {
		t.Errorf("%+v", closed)
	}
}

// Where the kernel cannot be asked, a storm opens a second late, and stays unverified.
func TestVerification_KernelCannotBeAsked(t *testing.T) {
	h := newHost(t, 500, Config{})
	h.unreadable = true
	h.run(steady, 5*time.Minute, true)
	h.pass(15 * time.Second)
	for _, a := range only(h.alerts, "time_wait_storm", Update) {
		if !a.Unverified {
			t.Errorf("%+v", a)
		}
	}
	if a := h.mustWarn(); !a.Unverified || a.OccupancySource != FromEvents {
		t.Errorf("%+v", a)
	}
}

// The kernel's table is read at most once a second, and seldom while nothing is near.
func TestVerification_AsksSeldom(t *testing.T) {
	h := newHost(t, 500, Config{})
	h.run(load{key: to(80), by: []tcp.Owner{curl}, rate: constant(4)}, 10*time.Minute, false) // 244 of 500
	if h.counted < 10 || h.counted > 65 {
		t.Errorf("%d counts in ten minutes of a load that is suspected and harmless", h.counted)
	}
	h.counted = 0
	h.run(steady, time.Minute, false)
	if h.counted < 5 || h.counted > 20 {
		t.Errorf("%d counts in a minute with an alert", h.counted)
	}
}

// TIME_WAITs that nothing modelled, such as those of a filtered process, count for
// tcp_max_tw_buckets.
func TestVerification_BucketsOfOthers(t *testing.T) {
	h := newHost(t, 28000, Config{})
	h.limits.MaxTimeWaits = 1000
	other := destination{netns: testNetns, local: here, peer: there, peerPort: 81}
	for range 500 {
		end := h.now + 50*time.Second
		h.ends[other] = append(h.ends[other], timewait{end: end})
	}
	h.run(load{key: to(80), by: []tcp.Owner{curl}, rate: constant(25)}, 15*time.Second, false)
	opened := only(h.alerts, "time_wait_storm", Open)
	if len(opened) != 1 || opened[0].CapacityKind != TimeWaitBuckets || opened[0].OccupancySource != FromKernel || opened[0].Occupancy < 700 ||
		opened[0].Occupancy > 800 {
		t.Errorf("%+v", opened)
	}
}

// The numbers of an alert that was verified after a loss are complete: nothing is missing.
func TestVerification_CompleteAfterLoss(t *testing.T) {
	h := newHost(t, 500, Config{})
	h.run(load{key: to(80), by: []tcp.Owner{curl}, rate: constant(4)}, 50*time.Second, false)
	h.engine.AddLost(h.now, 17)
	h.run(load{key: to(80), by: []tcp.Owner{curl}, rate: constant(12)}, 5*time.Minute, true)
	a := h.mustWarn()
	if complete := a.Monotonic > time.Hour+50*time.Second+rate.MaxWindow; a.Unverified || complete != (a.Lost == 0) {
		t.Errorf("%d lost, after %v", a.Lost, a.Monotonic-time.Hour)
	}
}

// The same transitions and answers lead to the same alerts, ids included, also if many open at
// once.
func TestVerification_Deterministic(t *testing.T) {
	run := func() (all []string) {
		h := newHost(t, 100, Config{})
		h.limits.PortHigh = h.limits.PortLow + 20
		for range 40 {
			for port := range uint16(30) {
				h.connect(to(80+port), curl)
			}
		}
		h.pass(12 * time.Second)
		for _, a := range h.finish() {
			all = append(all, fmt.Sprint(a.ID, a.Kind, a.Phase, a.Peer, a.Occupancy, a.Monotonic))
		}
		return all
	}
	first := run()
	if len(first) < 60 {
		t.Fatalf("%d alerts", len(first))
	}
	for range 3 {
		if again := run(); !slices.Equal(again, first) {
			t.Fatalf("%v\nwant\n%v", again, first)
		}
	}
}

// For random loads of which random transitions are lost: what a verified alert of a storm says
// is what the kernel has, within a twentieth of the capacity, what moves in a tick and what ends
// within a second (the kernel's timers are 0 to 2 s late, the model's one), and no alert is left
// when the load is over.
func TestVerification_RandomLosses(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 8))
	checked, unverified := 0, 0
	for round := range 60 {
		ports := 200 + random.IntN(1800)
		h := newHost(t, ports, Config{})
		h.uncounted = round%2 == 0
		h.answersAfter = time.Duration(random.IntN(150)) * time.Millisecond
		var perSecond, fastest float64
		h.inspect = func(a Alert) {
			switch {
			case a.Kind != "time_wait_storm" || a.Phase == Close:
				return
			case a.Unverified:
				unverified++
				return
			}
			checked++
			truth, room := float64(h.taken(to(80))), float64(ports)/20+4+fastest+perSecond*(0.2+2*h.answersAfter.Seconds())
			for _, w := range h.waiting(to(80)) { // whose timers are late
				if w.end-h.now < 2*time.Second {
					room++
				}
			}
			for _, at := range h.lostTimes { // since the numbers were verified
				if h.now-at <= freshFor {
					room++
				}
			}
			if d := math.Abs(float64(a.Occupancy) - truth); d > room {
				t.Errorf("round %d after %v, %s: %d of %d, truth %.0f, room %.0f", round, h.now-time.Hour, a.Phase, a.Occupancy, ports, truth, room)
			}
		}
		for range 6 + random.IntN(6) {
			perSecond = float64(ports) / 61 * 3 * random.Float64()
			fastest = max(fastest, perSecond)
			h.lossShare = []float64{0, 0, 0.05, 0.5, 1}[random.IntN(5)]
			h.run(load{
				key: to(80), by: []tcp.Owner{curl}, rate: constant(perSecond), peer: random.IntN(4) == 0,
				lasting: time.Duration(random.IntN(3000)) * time.Millisecond,
			}, time.Duration(5+random.IntN(15))*time.Second, false)
			for h.open[to(80)] > 0 { // run has left them open
				h.close(to(80), curl, true)
			}
		}
		h.lossShare = 0
		h.pass(3 * time.Minute)
		if len(h.engine.alerts.open) > 0 {
			t.Errorf("round %d: %d alerts are open, and nothing happens", round, len(h.engine.alerts.open))
		}
	}
	t.Logf("%d verified phases, %d unverified", checked, unverified)
	if checked < 100 {
		t.Error("this proves nothing")
	}
}
