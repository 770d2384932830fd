package detect

import (
	"fmt"
	"time"

	"github.com/tcpshift/tcpshift/internal/detect/rate"
	"github.com/tcpshift/tcpshift/internal/detect/topk"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// portStorm finds clients whose TIME_WAITs are going to take the last local port for
// a destination, or have taken it.
type portStorm struct {
	*tracker
}

func newPortStorm(tr *tracker) detector { return portStorm{tr} }

func (portStorm) kind() string { return timeWaitStorm }

func (portStorm) needs() tcp.Transitions { return tcp.Transitions{} }

func (portStorm) observe(*tcp.Transition) {}

func (d portStorm) failures(c cause) uint64 { return d.exhausted.failures(c, byTimeWaits) }

// pin also notes in stormAt that the alert is open.
func (d portStorm) pin(c cause) {
	d.tracker.pin(c)
	key := c.(destination)
	if e := d.destinations.Find(key, key.hash()); e != nil {
		e.Value.stormAt = d.now
	}
}

func (d portStorm) check(raise raiser) {
	for _, e := range d.destinations.Entries() {
		u := &e.Value
		d.mark(e.Key, u)
		d.judgeCount(e.Key, u)
		x := d.exhausted.of(e.Key)
		if x != nil && d.kindOf(e.Key, x) == notTimeWaits {
			u.kernel.opensSince = 0
			raise(e.Key, d.endOf(u, x), nil)
			continue
		}
		if d.raises(e, x, raise) {
			continue
		}
		u.kernel.opensSince = 0
		switch {
		case u.isRefuted(d.now):
			raise(e.Key, gone, nil)
		case u.kernel.isVerified(d.tracker):
			raise(e.Key, doubted, nil)
		}
	}
}

// endOf is the claim of a storm if port_exhaustion reports the failed connects.
func (d portStorm) endOf(u *destinationUse, x *exhaustion) claim {
	switch {
	case x.refuted:
		return refuted
	case u.isRefuted(d.now):
		return gone
	}
	return ended
}

// raises raises the cause of one destination, and reports whether there is one. x is nil if no
// connect() has failed lately.
func (d portStorm) raises(e *topk.Entry[destination, destinationUse], x *exhaustion, raise raiser) bool {
	fails := x != nil && x.kind == byTimeWaits && x.isFailing(d.now)
	capacity, ns := d.stormCapacity(e, fails)
	if capacity == 0 {
		return false
	}
	u := &e.Value
	u.Advance(d.now)
	model := ns.modelFor(d.now, e.Key, u)
	f := u.Forecast(model, capacity)
	d.suspectWaiting(ns, u, model, capacity)
	if !fails && f.Occupancy < exhaustedShare*capacity && d.reachesBucketsFirst(e.Key, u, ns, capacity-u.Connections(model), u.TimeWaits(model)) {
		return false
	}
	suspected := fails || u.isSuspected(model, f)
	if suspected {
		ns.suspectedAt = d.now
	}
	if u.TimeWaits(model) < timeWaitShare*f.Occupancy && !fails {
		return false // connections that are still open take more ports than TIME_WAITs do
	}
	c := d.claim(ns, u, model, f, fails, suspected)
	if c != 0 {
		raise(e.Key, c, func() Finding { return d.describe(e, ns, x.correct(d.now, f)) })
	}
	return c&(opens|keeps) != 0
}

// stormCapacity is portCapacity, or 0 if a destination has too few connections for a forecast. fails means that
// connects have failed: then the number of connections does not matter.
func (d portStorm) stormCapacity(e *topk.Entry[destination, destinationUse], fails bool) (float64, *namespace) {
	if e.Weight < minConnections && !fails {
		return 0, nil
	}
	capacity, ns := d.portCapacity(e.Key, &e.Value)
	if float64(e.Weight) < minShare*capacity && !fails {
		return 0, ns
	}
	return capacity, ns
}

// isSuspected is isSuspected for a destination, also without the TIME_WAITs that the model lacks because it was scaled
// down. Other destinations may have had the TIME_WAITs that ended early, and those created since may stay: the kernel's
// count of this destination shows both.
func (u *destinationUse) isSuspected(m rate.TimeWaitModel, f rate.Forecast) bool {
	if isSuspected(f) || m.Scale >= 1 {
		return isSuspected(f)
	}
	m.Scale = 1
	return isSuspected(u.Forecast(m, f.Capacity))
}

// claim is what a storm claims, with neither opens nor keeps if there is none. It requests the kernel's count if that is
// needed. suspected means that the destination is a suspect.
func (d portStorm) claim(ns *namespace, u *destinationUse, m rate.TimeWaitModel, f rate.Forecast, fails, suspected bool) claim {
	v := &u.kernel
	opening := opensStorm(&u.Estimator, f, m, d.Threshold, v.gonePerSecond(u)) && d.opensUnscaled(u, m, f)
	alerts := fails || opening || keepsStorm(f)
	if alerts || suspected {
		d.refreshCount(ns, u, alerts, fails || f.Exhausts)
	}
	isVerified := v.isVerified(d.tracker)
	if opening && isVerified {
		u.refutedAt = 0 // there were fewer sockets than the model had, and enough for a storm
	}
	c := d.claimOf(opening, &v.opensSince, isVerified, v.verifiedAt > d.lostAt, f)
	switch {
	case fails && isVerified: // the kernel has refused a port: there is nothing to wait for
		return opens | verified
	case fails:
		return opens
	case !opening && u.isRefuted(d.now) && f.Occupancy < (d.Threshold-0.2)*f.Capacity:
		return c &^ keeps // the rate may be that of connections that never were: alone it keeps no alert open
	}
	return c
}

// opensUnscaled reports whether the model finds a storm that opens an alert without the TIME_WAITs by which it was scaled
// up after a loss. These may belong to another destination, so they only make a suspect: the kernel's count of the
// destination must show them.
func (d portStorm) opensUnscaled(u *destinationUse, m rate.TimeWaitModel, f rate.Forecast) bool {
	if m.Scale <= 1 {
		return true
	}
	m.Scale = 1
	return opensStorm(&u.Estimator, u.Forecast(m, f.Capacity), m, d.Threshold, u.kernel.gonePerSecond(u))
}

// isRefuted reports whether the kernel's table had clearly fewer sockets than the model within
// the last ten seconds.
func (u *destinationUse) isRefuted(now time.Duration) bool {
	return u.refutedAt > 0 && now-u.refutedAt < quietPeriod
}

// suspectWaiting requests the kernel's table where it matters how many peers have closed:
// connect() may take over TIME_WAITs, but not those in FIN_WAIT2, and no tracepoint shows
// when the peer's FIN ends that substate.
func (d portStorm) suspectWaiting(ns *namespace, u *destinationUse, m rate.TimeWaitModel, capacity float64) {
	if d.now-u.waitingAt > activeInterval {
		u.waitingAt = 0
	}
	m.FinFraction = 0
	if m.ReuseAfter > 0 && !m.ReusesFinWait2 && u.FinWait2Running(m.FinWait2Hold, 0) > 0 && u.Occupancy(m) >= suspectedShare*capacity {
		ns.suspectedAt, ns.wantHalfClosed = d.now, true
	}
}

// takeFinWait2 counts the timewait sockets in FIN_WAIT2 in the kernel's table, by destination. It learns
// from them how many peers close, and after which time.
func (tr *tracker) takeFinWait2(now, readAt time.Duration, netns uint32, sockets []tcp.Socket) {
	ns := tr.ensureNamespace(netns)
	before := make(map[*destinationUse]float64) // TIME_WAITs of destinations whose count has all, by the model of before
	for _, e := range tr.destinations.Entries() {
		u := &e.Value
		if e.Key.netns != netns {
			continue
		}
		if v := &u.kernel; v.verifiedAt > 0 && now-v.verifiedAt <= freshFor && (!v.reuses || u.moves()-v.movesThen <= int64(v.mayLose)) {
			u.Advance(now)
			before[u] = u.TimeWaits(ns.modelFor(now, e.Key, u))
		}
		u.waiting, u.waitingOldest, u.waitingAt, u.waitingIn = 0, 0, now, nil
	}
	lifetime := ns.limits.FinWait2TimewaitTimeout()
	ends := make(map[*destinationUse]*waitingEnds) // of destinations whose sockets have several timeouts
	for i := range sockets {
		s := &sockets[i]
		if s.New != tcp.TimeWait {
			continue // it has its process, and counts as open
		}
		key := destination{local: s.Local.Addr, peer: s.Peer.Addr, netns: netns, peerPort: s.Peer.Port}
		if e := tr.destinations.Find(key, key.hash()); e != nil {
			if u := &e.Value; u.HasOwnTimeouts() {
				ends[u] = ends[u].add(readAt, s.ExpiresIn)
			} else {
				u.addWaiting(readAt, lifetime-s.ExpiresIn)
			}
		}
	}
	for u, n := range ends {
		n.resolve(&u.Estimator, readAt, lifetime, func(second int64, count int32) { u.addWaitingIn(readAt, second, count) })
	}
	for _, e := range tr.destinations.Entries() {
		if u := &e.Value; e.Key.netns == netns {
			u.Advance(now)
			u.learnWaiting(now - readAt)
			u.learnDelay(now, readAt, lifetime)
			u.learnFinFractionOf(now, ns, e.Key)
			if counted, has := before[u]; has { // a better model does not change a count
				u.kernel.timeWaits += counted - u.TimeWaits(ns.modelFor(now, e.Key, u))
			}
		}
	}
}

// addWaiting counts a timewait socket in FIN_WAIT2 of a table that was read at readAt.
func (u *destinationUse) addWaiting(readAt, age time.Duration) {
	oldest := max(u.waitingOldest, age)
	u.addWaitingIn(readAt, int64((readAt-max(0, age))/time.Second), 1)
	u.waitingOldest = oldest
}

// addWaitingIn counts timewait sockets in FIN_WAIT2 of a table that was read at readAt, by the second of their creation.
func (u *destinationUse) addWaitingIn(readAt time.Duration, second int64, count int32) {
	if u.waitingIn == nil {
		u.waitingIn = &rate.Counter{}
		u.waitingIn.Advance(int64(readAt / time.Second))
	}
	u.waitingIn.AddAt(second, count)
	u.waiting += int64(count)
	u.waitingOldest = max(u.waitingOldest, readAt-time.Duration(second)*time.Second-time.Second/2)
}

// learnFinFractionOf finds out from the sockets that wait in FIN_WAIT2 which fraction of the peers closes, unless a
// table of all sockets of the destination has shown it lately.
func (u *destinationUse) learnFinFractionOf(now time.Duration, ns *namespace, key destination) {
	lifetime := ns.limits.FinWait2TimewaitTimeout()
	reuses := ns.limits.ReusesFinWait2 && ns.limits.AllowsReuse(key.local, key.peer) // then many that are gone had no FIN
	isLearned := u.finLearned > 0 && now-u.finLearned <= verifiedFor
	running := u.FinWait2Running(lifetime, 0)
	if reuses || isLearned || running < minReconciled {
		return
	}
	u.finFraction, u.finKnown = max(0, 1-float64(u.waiting)/float64(running)), true
	if u.finFraction > 0.05 && u.newestWait() {
		u.finFraction = 1
	}
}

// knownNamespace returns the entry of a namespace if its limits are set, else nil.
func (tr *tracker) knownNamespace(netns uint32) *namespace {
	if found := tr.namespaces.Find(netns, uint64(netns)); found != nil && found.Value.known {
		return &found.Value
	}
	return nil
}

// portsFor is the number of local ports that connect() could choose for one destination.
func (ns *namespace) portsFor(use *destinationUse) int {
	return max(0, ns.ports-ns.boundByOthers(use))
}

// portCapacity is how many local ports TIME_WAITs can take for a destination. It is 0 if the limits of the
// namespace or of the sockets (ownRange) are not known, if all ports are bound, or if tcp_max_tw_buckets is lower.
// The namespace is nil if its limits are not known.
func (tr *tracker) portCapacity(key destination, use *destinationUse) (float64, *namespace) {
	ns := tr.knownNamespace(key.netns)
	if ns == nil || key.ownRange { // no event shows how many ports a socket with its own range may use
		return 0, ns
	}
	capacity := ns.portsFor(use)
	if ns.limits.MaxTimeWaits < capacity {
		return 0, ns // the kernel never keeps so many TIME_WAITs
	}
	return float64(capacity), ns
}

func (d portStorm) describe(e *topk.Entry[destination, destinationUse], ns *namespace, forecast rate.Forecast) Finding {
	u := &e.Value
	model := ns.modelFor(d.now, e.Key, u)
	occupancy := round(min(forecast.Occupancy, forecast.Capacity))
	f := Finding{
		Severity: stormSeverity(forecast), Culprit: d.culpritOf(&u.topServices),
		Netns: e.Key.netns, Role: tcp.RoleClient,
		Local: tcp.Endpoint{Addr: e.Key.local}, Peer: tcp.Endpoint{Addr: e.Key.peer, Port: e.Key.peerPort},
		RateUnit: "connections", Rate: forecast.Rate, Occupancy: occupancy, OccupancySource: u.kernel.source(d.tracker),
		Capacity: uint64(forecast.Capacity), CapacityKind: EphemeralPorts,
		Projected:    round(u.Plateau(forecast.Rate, model)),
		ExhaustionIn: forecast.ExhaustedIn, Exhausts: forecast.Exhausts,
		Approximate: e.Missed > 0 || ns.limits.Assumed || ns.limits.BoundUnknown || d.isStale(ns),
		Unverified:  !u.kernel.isVerified(d.tracker), complete: u.kernel.isComplete(d.tracker),
	}
	timeWaits := u.TimeWaits(model)
	if d.exhausted.of(e.Key).isRefused(d.now) {
		timeWaits = u.lateTimeWaits(model)
	}
	f.Cause = u.stormCause(model, min(round(timeWaits), occupancy), occupancy) +
		fmt.Sprintf("; at this rate %s would be in use", counted(f.Projected, "port", "ports"))
	if f.Failures = d.failures(e.Key); f.Failures > 0 {
		f.Cause += "; " + connectsFailed(f.Failures)
	}
	if x := d.exhausted.of(e.Key); x != nil && x.isFailing(d.now) && ns.refutesLimits(u.Occupancy(model)) {
		f.Capacity, f.CapacityKind, f.Occupancy = 0, "", round(u.Occupancy(model))
	}
	f.Advice = portAdvice(ns)
	d.addBinds(ns, &f)
	return f
}

// refutesLimits reports whether a failed connect() shows that the limits are wrong: they are assumed, and by them
// ports would be left.
func (ns *namespace) refutesLimits(occupied float64) bool {
	return ns.limits.Assumed && occupied < exhaustedShare*float64(ns.ports)
}

// stormCause says which of the ports in use closed connections keep, and for how long.
func (u *destinationUse) stormCause(m rate.TimeWaitModel, timeWaits, occupancy uint64) string {
	part := fmt.Sprintf("%d of the %s in use %s", timeWaits, counted(occupancy, "port", "ports"), choose(timeWaits, "is", "are"))
	if !m.ReusesFinWait2 && u.waitingAt > 0 && 2*uint64(u.waiting) > timeWaits { // by the kernel's table
		return fmt.Sprintf("%s of connections that this side has closed, and the peers of %d of them have not "+
			"closed yet (FIN_WAIT2), which keeps the port of each until they do, or for net.ipv4.tcp_fin_timeout", part,
			min(uint64(u.waiting), timeWaits))
	}
	return fmt.Sprintf("%s in TIME_WAIT: the connections are short, and this side closes them first, "+
		"which keeps the port of each for %s", part, u.keptFor(m))
}

// addBinds adds to a finding how many ports are bound, what to do about that, and which service has
// bound most of them, if one has bound more than half. It may be another service than the one whose
// connects fail.
func (tr *tracker) addBinds(ns *namespace, f *Finding) {
	if ns.bindCount == 0 {
		return
	}
	f.Cause += "; " + counted(uint64(ns.bindCount), "port is taken for all destinations, because it was bound before connect()",
		"ports are taken for all destinations, because they were bound before connect()")
	if ns.bindsOther > 0 {
		f.Cause += fmt.Sprintf(" (%d by sockets that are older than tcpshift, or by listeners that have closed)", ns.bindsOther)
	}
	if c := tr.culpritOf(&ns.bindServices); c.Share*float64(ns.bindCount-ns.bindsOther) > 0.5*float64(ns.bindCount) {
		f.Cause += ", most of them by " + c.Service
	}
	f.Advice += "; bind() an address without a port (IP_BIND_ADDRESS_NO_PORT), so that connections share ports between destinations"
}

// keptFor is in words how long most TIME_WAITs keep their port.
func (u *destinationUse) keptFor(m rate.TimeWaitModel) string {
	switch mean := u.MeanHold(m); {
	case mean > m.Hold/2:
		return "60 s"
	case m.ReuseAfter > 0:
		return "at least " + max(time.Millisecond, m.ReuseAfter.Round(100*time.Millisecond)).String()
	default:
		return "about " + mean.Round(time.Second).String()
	}
}

// reusePortsAdvice begins with the cure; the rest of it only buys time.
const reusePortsAdvice = "reuse connections: keep-alive, or a pool in the client; if that takes time, use more local or peer addresses; " +
	"then widen net.ipv4.ip_local_port_range"

// portAdvice is the advice with the numbers of a namespace.
func portAdvice(ns *namespace) string {
	advice, l := reusePortsAdvice, &ns.limits
	if l.Assumed {
		return advice
	}
	advice += fmt.Sprintf(", now %d to %d", l.PortLow, l.PortHigh)
	if excluded := int(l.PortHigh) - int(l.PortLow) + 1 - l.PortCount() + ns.bindCount; excluded > 0 {
		advice += fmt.Sprintf(" with %d of them reserved or bound", excluded)
	}
	return advice
}
