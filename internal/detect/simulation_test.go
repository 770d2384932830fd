package detect

import (
	"flag"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

var (
	simulations = flag.Uint64("simulations", defaultSimulations, "how many random simulations TestSimulation runs")
	firstSeed   = flag.Uint64("first-simulation", 1, "the seed of the first of these simulations")
	kills       = flag.Bool("kills", false, "timewait sockets are killed in each simulation, instead of in one of five")
	starved     = flag.Bool("starved", false, "something gets no CPU for a while in each simulation, instead of in one of five")
	hangs       = flag.Bool("hangs", false, "the peers of one load hang for a while")
	vanishes    = flag.Bool("vanishes", false, "the namespace vanishes at the end")
	simulation  = flag.Uint64("simulation", 0, "the seed of the only simulation that TestSimulation runs, and prints")
)

// No alert is open that a perfect observer would not open within 5 % of the capacity, and none
// is missed: for random loads, losses, filters, restarts, and answers of the kernel that are late
// or fail.
func TestSimulation(t *testing.T) {
	t.Parallel()
	if *simulation > 0 {
		r := newSimRun(*simulation)
		r.run()
		t.Log(r.describe())
		for _, fault := range r.oracle.faults {
			t.Error(fault)
		}
		return
	}
	var mu sync.Mutex
	opened, failed := make(map[string]int), 0
	seeds := make(chan uint64)
	var all sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		all.Go(func() {
			for seed := range seeds {
				r := newSimRun(seed)
				r.run()
				mu.Lock()
				for kind, n := range r.oracle.seen {
					opened[kind] += n
				}
				if len(r.oracle.faults) > 0 {
					failed++
					if failed <= 40 {
						t.Errorf("seed %d (go test ./internal/detect -run TestSimulation -simulation %d)\n%s%s", seed, seed, r.describe(), r.oracle.faults)
					}
				}
				mu.Unlock()
			}
		})
	}
	for seed := range *simulations {
		seeds <- seed + *firstSeed
	}
	close(seeds)
	all.Wait()
	t.Logf("%d of %d failed; alerts, and how many of them must be: %v", failed, *simulations, opened)
	for _, kind := range []string{timeWaitStorm, "close_wait_leak", "connect_failures", "fin_wait2_pileup", "reset_burst", "listen_queue_full"} {
		if *simulations >= 500 && (opened[kind] == 0 || opened[mustBe+kind] == 0) {
			t.Errorf("no %s has come, or none had to: this proves nothing", kind)
		}
	}
}

// mustBe counts causes that must have an alert.
const mustBe = "must be "

// take judges an alert when it is reported.
func (o *simOracle) take(a *Alert) {
	k := o.r.k
	if *simulation > 0 {
		fmt.Printf("%8.1f %s %s %s %s of %d/%d: %d of %d %s, rate %.1f, %v in %v, unverified %v, lost %d, approximate %v, failures %d\n", (k.now - time.Hour).Seconds(), a.ID, a.Kind, a.Phase, a.Reason,
			a.Peer.Port, a.Local.Port, a.Occupancy, a.Capacity, a.CapacityKind, a.Rate, a.Exhausts, a.ExhaustionIn, a.Unverified, a.Lost, a.Approximate, a.Failures)
		if d := o.destinationOf(a); d != nil {
			fmt.Printf("         truth: %s\n         model: %s\n", o.stormOf(d).why, o.modelOf(d))
		}
	}
	if a.Phase == Close {
		o.close(a)
		return
	}
	x := o.open[a.ID]
	if x == nil {
		x = &simAlert{openedAt: k.now}
		o.open[a.ID] = x
		o.seen[a.Kind]++
		if a.Kind == "close_wait_leak" {
			o.judgePlainLeak(a)
		}
	}
	x.Alert = *a
	if !a.Unverified {
		x.verifiedAt = k.now
	}
	if a.Culprit.PID != 0 && o.r.tr.dead[a.Culprit.PID] {
		o.fault("%s names %d, which is dead", a.Kind, a.Culprit.PID)
	}
	o.checkNumbers(x)
}

// close: an alert that was unverified and is refuted as soon as the kernel answers counts as
// never opened.
func (o *simOracle) close(a *Alert) {
	x := o.open[a.ID]
	delete(o.open, a.ID)
	if x != nil && a.Reason == Refuted {
		o.seen["refuted "+x.Kind]++
	}
	if x != nil && x.verifiedAt == 0 && a.Reason == Resolved && a.Failures == 0 && !o.isTakenOver(a) {
		o.fault("%s %s was never verified, and closes as resolved", x.Kind, x.ID)
	}
	if x == nil || x.wrongSince == 0 || x.verifiedAt == 0 && a.Reason == Refuted || o.isExcused(x) {
		return
	}
	if wrong := o.r.k.now - x.wrongSince; wrong > time.Second {
		o.fault("%s %s was wrong for %v: %s", x.Kind, x.ID, wrong, x.history)
	}
}

// isTakenOver reports whether an alert of another kind may report the failed connects of the destination.
func (o *simOracle) isTakenOver(a *Alert) bool {
	d := o.destinationOf(a)
	return d != nil && d.seenFailed.within(countWait+2*simStep+o.lag()) > 0
}

// checkOpen judges an alert that is open.
func (o *simOracle) checkOpen(x *simAlert) {
	k := o.r.k
	var agrees bool
	var why string
	slack := quietPeriod + 4*time.Second + o.lag()
	if slices.ContainsFunc(o.r.loads, func(l *simLoad) bool { return l.binds }) {
		slack += 2 * time.Second // the bound ports of timewait sockets are free when their timers expire
	}
	switch {
	case x.Kind == timeWaitStorm && x.CapacityKind == TimeWaitBuckets:
		agrees, why = k.now-o.buckets.mayAt <= slack+o.answerTime(), o.buckets.why
	case x.Kind == timeWaitStorm:
		st := o.stormOf(o.destinationOf(&x.Alert))
		agrees, why = k.now-max(st.mayAt, st.failedAt+quietPeriod) <= slack+o.answerTime(), st.why
	case x.Kind == "port_exhaustion" && !x.Peer.Addr.IsValid():
		o.judgeBinds()
		agrees, why = k.now-o.binds.mayAt <= slack, o.binds.why
	case x.Kind == "port_exhaustion":
		st := o.stormOf(o.destinationOf(&x.Alert))
		agrees, why = k.now-st.failedAt <= slack+quietPeriod, st.why
	default:
		agrees, why = o.agrees(x)
	}
	switch {
	case agrees:
		x.wrongSince = 0
	case x.wrongSince == 0:
		x.wrongSince, x.history = k.now, why
	}
	if x.wrongSince == 0 || o.isExcused(x) {
		return
	}
	patience := time.Second
	if x.verifiedAt == 0 {
		patience += o.answerTime() + 2*time.Second
	}
	if k.now-x.wrongSince > patience {
		o.fault("false: %s %s is open since %v: %d of %d, %.1f/s, unverified %v; %s", x.Kind, x.ID, x.openedAt-time.Hour, x.Occupancy, x.Capacity, x.Rate, x.Unverified, why)
		x.wrongSince = 1 << 62
	}
}

// isExcused reports whether an alert that is marked as unverified cannot be verified.
func (o *simOracle) isExcused(x *simAlert) bool {
	tr := o.r.tr
	if d := o.destinationOf(&x.Alert); d != nil && x.Unverified && o.isAmbiguous(d) {
		return true
	}
	losing := tr.lostAt > 0 && o.r.k.now-tr.lostAt < 3*time.Second+o.answerTime()
	return x.Unverified && (o.mayBeBlind() || losing || x.Kind == "close_wait_leak" && !o.isReadable() ||
		x.Kind == "fin_wait2_pileup" && o.mayLackTables())
}

// isAmbiguous reports whether some TIME_WAITs of a destination have timestamps and others have none:
// connect() takes over the former, and the kernel's table does not show which these are.
func (o *simOracle) isAmbiguous(d *simDestination) bool {
	timed, untimed := 0, 0
	for _, s := range d.ports {
		switch {
		case s == nil || s.state != tcp.TimeWait && s.state != tcp.FinWait2:
		case s.untimed:
			untimed++
		default:
			timed++
		}
	}
	return o.r.k.reuses(d) && min(timed, untimed) > 0
}

// modelOf is what the engine has of a destination, printed for a look into one simulation.
func (o *simOracle) modelOf(d *simDestination) string {
	e := o.r.tr.engine.tracker.destinations.Find(d.key, d.key.hash())
	if e == nil {
		return "nothing"
	}
	m := o.r.tr.engine.tracker.ensureNamespace(testNetns).modelFor(o.r.k.now, d.key, &e.Value)
	return fmt.Sprintf("%d open, %.0f TIME_WAITs, %+v, %+v", e.Value.OpenCount(), e.Value.TimeWaits(m), m, e.Value.kernel)
}
