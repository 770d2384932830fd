package detect

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/tcpshift/tcpshift/internal/detect/rate"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// simOracle is the perfect observer of a simulation. It knows every socket of the kernel with
// the moment of its end, and shares no code with the engine, so that a wrong rule of the model
// is found, and not only what losses do to it.
type simOracle struct {
	r          *simRun
	open       map[string]*simAlert // by id
	storms     map[*simDestination]*simStorm
	buckets    simStorm
	binds      simStorm
	others     map[simKey]*simVerdict
	halfClosed map[*simDestination]simHalfClosed
	faults     []string
	seen       map[string]int // alerts that were opened, by kind
}

// simAlert is an alert that is open.
type simAlert struct {
	Alert
	openedAt   time.Duration
	wrongSince time.Duration // 0: the perfect observer agrees
	verifiedAt time.Duration // when it was not reported as unverified last
	failures   int           // that it has reported
	history    string
}

// simStorm is what the perfect observer says of the storms of a destination, or of the namespace.
type simStorm struct {
	mayAt     time.Duration // when a storm was last within 5 % of what justifies an alert
	mustSince time.Duration // since when there has been a storm with 5 % to spare; 0: there is none
	openAt    time.Duration // when an alert was open last
	failedAt  time.Duration // when a connect() found no port last
	refusedAt time.Duration // when the engine got the first such connect() that has no alert; 0: there is none
	// regularSince is since when the storm of a regular load has had to have an alert; 0: it need not have one.
	regularSince time.Duration
	why          string
}

func newSimOracle(r *simRun) *simOracle {
	return &simOracle{
		r: r, open: make(map[string]*simAlert), storms: make(map[*simDestination]*simStorm), others: make(map[simKey]*simVerdict),
		seen: make(map[string]int),
	}
}

func (o *simOracle) fault(format string, arguments ...any) {
	if len(o.faults) < 4 {
		o.faults = append(o.faults, fmt.Sprintf("after %v: ", o.r.k.now-time.Hour)+fmt.Sprintf(format, arguments...))
	}
}

// answerTime is how long the kernel's answer to a request may take, with another one before it.
func (o *simOracle) answerTime() time.Duration {
	w := &o.r.tr.worker
	return 3*(w.before+w.after) + o.lag() + simStep + o.r.tr.stalls.length(starvedWorker, o.r.k.now, remembered)
}

// isReadable reports whether the kernel's tables can be read most of the time.
func (o *simOracle) isReadable() bool { return o.r.tr.worker.fails < 0.3 && o.r.tr.worker.gone == 0 }

// mayLackTables reports whether some of the kernel's tables cannot be read.
func (o *simOracle) mayLackTables() bool { return o.r.tr.worker.fails > 0 || o.r.tr.worker.gone > 0 }

// mayBeBlind reports whether the engine may lack the truth, and has no means to find it.
func (o *simOracle) mayBeBlind() bool {
	tr := o.r.tr
	hidden := tr.passes != nil || slices.ContainsFunc(o.r.k.destinations, (*simDestination).hasKills) || tr.lostAt > 0 && o.r.k.now-tr.lostAt < 2*rate.TimeWaitHold || o.r.k.now-tr.began < 2*rate.TimeWaitHold
	return hidden && !o.isReadable()
}

func (o *simOracle) destinationOf(a *Alert) *simDestination {
	for _, d := range o.r.k.destinations {
		if !d.server && a.CapacityKind != TimeWaitBuckets && a.Role == tcp.RoleClient && d.key.local == a.Local.Addr && d.key.peer == a.Peer.Addr && d.key.peerPort == a.Peer.Port {
			return d
		}
	}
	return nil
}

func (o *simOracle) stormOf(d *simDestination) *simStorm {
	if o.storms[d] == nil {
		o.storms[d] = &simStorm{}
	}
	return o.storms[d]
}

// use is what is in use of a capacity.
type simUse struct {
	capacity  float64
	open      int
	timeWaits int             // that connect() may not take over
	releases  []time.Duration // when each of them is free, from now
}

func (u *simUse) occupied() float64 { return float64(u.open + u.timeWaits) }

// useOf counts the ports of a destination. See holdsOf for longest.
func (o *simOracle) useOf(d *simDestination, longest bool) (u simUse) {
	k := o.r.k
	u.capacity = float64(k.limits.PortCount())
	for i, s := range d.ports {
		port := k.limits.PortLow + uint16(i)
		switch {
		case s == nil && k.bound[port] > 0:
			u.capacity--
		case s == nil || k.isFree(s, k.now):
		case s.state == tcp.TimeWait || s.state == tcp.FinWait2:
			u.timeWaits++
			free := k.freeAt(s)
			if longest && s.state == tcp.FinWait2 && !o.knowsUnclosed(d) {
				free = k.now + rate.TimeWaitHold
			}
			u.releases = append(u.releases, free-k.now)
		default:
			u.open++
		}
	}
	return u
}

// buckets counts the TIME_WAITs of the namespace.
func (o *simOracle) bucketsUse() (u simUse) {
	k := o.r.k
	u.capacity, u.timeWaits = float64(k.limits.MaxTimeWaits), k.timeWaits
	for _, s := range k.sockets {
		if s.state == tcp.TimeWait || s.state == tcp.FinWait2 {
			u.releases = append(u.releases, s.endAt-k.now)
		}
	}
	return u
}

// knowsUnclosed reports whether the kernel's tables have shown that peers never close.
func (o *simOracle) knowsUnclosed(d *simDestination) bool {
	return d.unclosedAt > 0 && o.r.k.now-d.unclosedAt > activeInterval+2*time.Second+o.answerTime()
}

// check compares the alerts that are open with the truth.
func (o *simOracle) check() {
	k := o.r.k
	for _, d := range k.destinations {
		o.checkFailures(d)
	}
	half := k.now%(500*time.Millisecond) == 0
	for _, d := range k.destinations {
		if !d.server && d.since > 0 && (half || k.reuses(d)) { // where TIME_WAITs are short, more happens in between
			o.judgeStorm(d)
		}
		if !d.server && d.since > 0 {
			o.judgeRegular(d)
		}
	}
	if !half {
		return
	}
	o.judgeBuckets()
	o.judgeBinds()
	o.judgeOthers()
	for _, a := range o.sorted() {
		o.checkOpen(a)
	}
}

// sorted lists the open alerts in a fixed order.
func (o *simOracle) sorted() (list []*simAlert) {
	for _, a := range o.open {
		list = append(list, a)
	}
	slices.SortFunc(list, func(a, b *simAlert) int { return int(a.openedAt - b.openedAt) })
	return list
}

// checkFailures: an alert is open within countWait after the engine has got a connect() that found no port. It takes up
// to that long to decide which alert that is. It does not matter how late the engine has got it: an estimate of the
// delay would demand an alert again for connects that it has reported long ago. While the loop starves nothing is
// reported, so the demand is judged after its next tick.
func (o *simOracle) checkFailures(d *simDestination) {
	k, tr, st := o.r.k, o.r.tr, o.stormOf(d)
	if d.failed.within(simStep) > 0 {
		st.failedAt = k.now
	}
	if tr.stalls.has(starvedLoop, k.now) {
		return
	}
	if d.gotFailedAt == k.now && st.refusedAt == 0 {
		st.refusedAt = k.now
	}
	if st.refusedAt < tr.began {
		st.refusedAt = 0 // this engine has not got it
	}
	if st.refusedAt == 0 {
		return
	}
	for _, a := range o.open {
		if (a.Kind == timeWaitStorm || a.Kind == portExhaustionKind) && o.destinationOf(&a.Alert) == d {
			st.refusedAt = 0
			return
		}
	}
	if k.now-st.refusedAt > countWait {
		o.fault("connect() to %d found no port, and no alert is open", d.key.peerPort)
		st.refusedAt = 0
	}
}

func (o *simOracle) judgeStorm(d *simDestination) {
	k, st := o.r.k, o.stormOf(d)
	u := o.useOf(d, true)
	if d.opened.within(2*rate.TimeWaitHold) == 0 {
		d.since = k.now
	}
	window := min(rate.MaxWindow, max(simStep, k.now-d.since))
	if age := k.now - o.r.tr.began; age > simStep {
		window = min(window, age)
	}
	perSecond := float64(d.opened.within(window)-d.ended.within(window)-o.burstOf(d, window)) / window.Seconds()
	in := u.exhaustedIn(perSecond, 0.95*u.capacity, o.holdsOf(d, true))
	// A connection whose beginning was lost is known since it became a TIME_WAIT: even a perfect observer of
	// what has reached the engine counts it as taken then.
	if late := d.seenLate.within(window); late > 0 {
		asSeen := float64(d.seenOpened.within(window)+late-d.seenEnded.within(window)) / window.Seconds()
		in = min(in, u.exhaustedIn(asSeen, 0.95*u.capacity, o.holdsOf(d, true)))
	}
	buckets := float64(k.limits.MaxTimeWaits)
	if buckets >= 0.95*u.capacity && (in <= rate.TimeWaitHold+time.Second || u.occupied() >= 0.9*u.capacity) {
		st.mayAt = k.now
	}
	st.why = fmt.Sprintf("%d open and %d in TIME_WAIT of %.0f, %.1f/s in %v, 95 %% in %v; %.1f/s seen, %d failed", u.open, u.timeWaits, u.capacity, perSecond, window, in,
		float64(d.seenOpened.within(window))/window.Seconds(), d.failed.within(10*time.Second))
	if least := o.useOf(d, false); buckets >= 1.05*u.capacity && o.mustWarn(d, &least) {
		if st.mustSince == 0 {
			st.mustSince = k.now
			o.seen[mustBe+timeWaitStorm]++
		}
	} else {
		st.mustSince = 0
	}
	for _, a := range o.open {
		if (a.Kind == timeWaitStorm || a.Kind == "port_exhaustion") && o.destinationOf(&a.Alert) == d {
			st.openAt = k.now
		}
	}
	patience := countWait + 500*time.Millisecond + o.lag()
	if st.mustSince > 0 && k.now-max(st.mustSince, st.openAt) > patience {
		o.fault("missed: a storm to %d since %v: %s", d.key.peerPort, st.mustSince-time.Hour, st.why)
		st.mustSince = 0
	}
}

// burstOf is how many connections one of the loads of a destination makes at once, beyond the first: so many more may be
// in a window than its rate makes. It matters while the window is short, because the tracer or the load is young.
func (o *simOracle) burstOf(d *simDestination, window time.Duration) (most int) {
	if window >= rate.MaxWindow {
		return 0
	}
	for _, l := range o.r.loads {
		if l.to == d && l.from < o.r.k.now {
			most = max(most, l.bursts-1)
		}
	}
	return most
}

// mustWarn reports whether there is a storm beyond doubt: what the engine has got came evenly
// for twenty seconds, and leads to exhaustion with 5 % to spare.
func (o *simOracle) mustWarn(d *simDestination, u *simUse) bool {
	k, tr := o.r.k, o.r.tr
	if k.now-tr.began < watched || o.mayBeBlind() || o.starves() || tr.lostAt > 0 && k.now-tr.lostAt < o.answerTime()+3*time.Second {
		return false
	}
	perSecond, even := o.evenRate(d)
	if !even {
		return false
	}
	least, capacity := 0.93*perSecond-1.5*math.Sqrt(perSecond/16), 1.05*u.capacity
	if o.perHold(d)*0.95 < least && u.occupied() < 0.97*u.capacity { // see rate.Estimator.Significant
		least = o.perHold(d) * 0.95
	}
	holds := o.holdsOf(d, false)
	in := u.exhaustedIn(least, capacity, holds)
	if o.bucketsFullIn() <= in+time.Second {
		return false // tcp_max_tw_buckets is reached before
	}
	return in <= 14*time.Second && u.occupied() >= 0.75*u.capacity && float64(u.timeWaits) >= 0.55*u.occupied()
}

// bucketsFullIn is when the namespace has tcp_max_tw_buckets TIME_WAITs, with 5 % less of them, if their number
// grows as fast as within the last seconds.
func (o *simOracle) bucketsFullIn() time.Duration {
	k, growth := o.r.k, 0.0
	for _, window := range []time.Duration{2 * time.Second, 4 * time.Second, rate.MaxWindow} {
		growth = max(growth, float64(k.timeWaitsIn.within(window)-k.timeWaitsOut.within(window))/window.Seconds())
	}
	free := 0.95*float64(k.limits.MaxTimeWaits) - float64(k.timeWaits)
	switch {
	case free <= 0:
		return 0
	case growth == 0:
		return 1 << 62
	}
	return time.Duration(free / growth * float64(time.Second))
}

// watched is how long connections must have come evenly for a judgement of their rate.
const watched = 24 * time.Second

// evenRate is the rate of the connections that the engine has got, and whether they came evenly.
func (o *simOracle) evenRate(d *simDestination) (perSecond float64, even bool) {
	total := float64(d.seenOpened.within(watched) - d.ended.within(watched))
	perSecond = total / watched.Seconds()
	if total < 40 || o.r.k.now-o.r.tr.began < watched {
		return perSecond, false
	}
	for at := time.Duration(0); at < watched; at += 2 * time.Second {
		part := float64(d.seenOpened.between(at+2*time.Second, at)-d.ended.between(at+2*time.Second, at)) / 2
		if math.Abs(part-perSecond) > 0.25*perSecond+0.5 {
			return perSecond, false
		}
	}
	return perSecond, true
}

// perHold is the mean rate of one hold time, or since the first connection, as the engine has got it.
func (o *simOracle) perHold(d *simDestination) float64 {
	hold := rate.TimeWaitHold
	if o.r.k.reuses(d) {
		hold = max(2*time.Second, o.r.k.limits.ReuseDelay)
	}
	span := min(hold, o.r.k.now-max(o.r.tr.began, d.since))
	n := float64(d.seenOpened.within(span) - d.ended.within(span))
	return max(0, n-math.Sqrt(max(0, n))) / max(simStep, span).Seconds()
}

// boundPorts counts the ports that bind() has taken.
func (k *simKernel) boundPorts() (n int) {
	for port := int(k.limits.PortLow); port <= int(k.limits.PortHigh); port++ {
		if k.bound[port] > 0 {
			n++
		}
	}
	return n
}

// judgeBinds: bind() may take the last port if it goes on as within the last 16 s, and no port is free
// again within a hold time.
func (o *simOracle) judgeBinds() {
	k, st := o.r.k, &o.binds
	n, capacity := float64(k.boundPorts()), float64(k.limits.PortCount())
	window := min(rate.MaxWindow, max(simStep, k.now-o.r.tr.began))
	perSecond := float64(k.boundIn.within(window)) / window.Seconds()
	if n >= 0.9*capacity || n+perSecond*(rate.TimeWaitHold+time.Second).Seconds() >= 0.95*capacity {
		st.mayAt = k.now
	}
	st.why = fmt.Sprintf("%.0f of %.0f ports bound, %.1f/s", n, capacity, perSecond)
}

func (o *simOracle) judgeBuckets() {
	k, st := o.r.k, &o.buckets
	if k.limits.MaxTimeWaits == noBuckets {
		return
	}
	u := o.bucketsUse()
	window := rate.MaxWindow
	if age := k.now - o.r.tr.began; age > simStep {
		window = min(window, age)
	}
	perSecond := float64(k.timeWaitsIn.within(window)) / window.Seconds()
	in := u.exhaustedIn(perSecond, 0.95*u.capacity, nil)
	if in <= rate.TimeWaitHold+time.Second || u.occupied() >= 0.9*u.capacity {
		st.mayAt = k.now
	}
	st.why = fmt.Sprintf("%d TIME_WAITs of %.0f, %.1f/s, 95 %% in %v", u.timeWaits, u.capacity, perSecond, in)
}
