package detect

import (
	"math"
	"time"

	"github.com/tcpshift/tcpshift/internal/detect/rate"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// checkNumbers judges what an alert about the ports of a destination reports, and the capacity of one
// about tcp_max_tw_buckets.
func (o *simOracle) checkNumbers(x *simAlert) {
	if x.Kind == timeWaitStorm && x.CapacityKind == TimeWaitBuckets && x.Capacity != uint64(o.r.k.limits.MaxTimeWaits) {
		o.fault("%s %s: %d of %d TIME_WAITs", x.Kind, x.ID, x.Capacity, o.r.k.limits.MaxTimeWaits)
	}
	if x.Kind == portExhaustionKind && !x.Peer.Addr.IsValid() {
		o.checkBinds(x)
	}
	if x.Role == tcp.RoleListener {
		o.checkListeners(x)
	}
	if x.Kind == "fin_wait2_pileup" {
		o.checkHalfClosed(x)
	}
	d := o.destinationOf(&x.Alert)
	if d == nil || x.Kind != timeWaitStorm && x.Kind != portExhaustionKind {
		return
	}
	if tr := o.r.tr; tr.vanished && o.r.k.now-o.r.end <= suspectedInterval+o.answerTime() {
		return // no answer has shown that yet
	}
	u := o.useOf(d, false)
	o.checkCapacity(x, &u)
	o.checkFailureCount(x, d)
	o.checkCulprit(x, d)
	if x.Unverified || x.Kind != timeWaitStorm || d.failed.within(2*time.Second) > 0 { // then none is free, whatever is counted
		return
	}
	if room, diff := o.roomOf(d, &u), float64(x.Occupancy)-u.occupied(); diff > room || -diff > room {
		o.fault("%s %s %s reports %d, and there are %.0f, room %.0f", x.Kind, x.ID, x.Phase, x.Occupancy, u.occupied(), room)
	}
	o.checkForecast(x, d, &u)
}

// checkBinds judges the numbers of an alert about all bound ports: connections show them, and the TIME_WAITs
// of these end up to two seconds late.
func (o *simOracle) checkBinds(x *simAlert) {
	k := o.r.k
	if x.Capacity != uint64(k.limits.PortCount()) {
		o.fault("%s %s: the capacity of bind() is %d, it is %d", x.Kind, x.ID, x.Capacity, k.limits.PortCount())
	}
	if o.r.tr.everLost {
		return
	}
	room := 2 + k.boundIn.within(time.Second+o.lag()+2*simStep)
	for _, s := range k.sockets {
		if age := k.now - s.createdAt; s.bound && s.createdAt > 0 && age > tcp.TimeWaitTimeout-time.Second || s.bound && !s.seen {
			room++
		}
	}
	if diff := int(x.Occupancy) - k.boundPorts(); diff > room || -diff > room {
		o.fault("%s %s %s: %d ports are bound, there are %d, room %d", x.Kind, x.ID, x.Phase, x.Occupancy, k.boundPorts(), room)
	}
}

// roomOf is how far a verified number may be from the truth: by what moves while the kernel's answer is
// on its way, by the TIME_WAITs that are about to end, and by a twentieth of the capacity where the engine
// cannot know everything: a verified number may lack as many after a loss, and no transition shows when the
// peers close, or whose TIME_WAITs connect() has taken over.
func (o *simOracle) roomOf(d *simDestination, u *simUse) float64 {
	moved := 500*time.Millisecond + o.lag() + o.answerTime()
	tr := o.r.tr
	if tr.lostAt > 0 && o.r.k.now-tr.lostAt < rate.TimeWaitHold || tr.passes != nil {
		moved += 5 * time.Second
	}
	room := 4 + float64(d.opened.within(moved)+d.allEnds.within(moved)) + float64(o.expiring(d)+o.unseenKills(d))
	room += min(u.capacity/20, float64(d.lastAcks)) // no transition shows when the peer acknowledges the last FIN
	if !o.knowsAll(d) {
		room += u.capacity / 20
	}
	return room
}

// knowsAll reports whether the engine has got all that there is to know about the connections of a
// destination: nothing was lost or is hidden, it was there from the beginning, no peer closes
// late, connect() takes over no TIME_WAIT, and no process calls bind().
func (o *simOracle) knowsAll(d *simDestination) bool {
	if o.r.tr.passes != nil || o.r.tr.everLost || o.r.tr.began > time.Hour+time.Second || o.r.k.reuses(d) {
		return false
	}
	for _, l := range o.r.loads {
		if l.binds || l.to == d && (l.finAfter > 0 || l.hang.finAfter > 0) {
			return false
		}
	}
	return true
}

// expiring counts the timewait sockets whose timers expire about now: these are up to two seconds late, and
// the model counts their creation in whole seconds.
func (o *simOracle) expiring(d *simDestination) int {
	const from, until = tcp.TimeWaitTimeout - time.Second, tcp.TimeWaitTimeout + 2*time.Second
	count := d.timeWaits.between(until+o.lag()+2*simStep, from-o.lag())
	for _, s := range d.ports {
		if s != nil && s.bound && !s.seen {
			count++ // nothing else shows that its port was bound
		}
		if s != nil && s.finAt > s.createdAt && s.index >= 0 { // the engine estimates when peers close
			if free := o.r.k.freeAt(s) - o.r.k.now; free > -4*time.Second && free < 2*time.Second {
				count++
			}
		}
	}
	return count
}

// checkCapacity: without bound ports the capacity is that of the sysctls. With some it is what useOf
// counts, except for those whose TIME_WAITs end about now, and those of connections that the engine does
// not know.
func (o *simOracle) checkCapacity(x *simAlert, u *simUse) {
	if x.CapacityKind != EphemeralPorts {
		return
	}
	room := 0.0
	for _, l := range o.r.loads {
		if l.binds && (o.r.tr.everLost || o.r.tr.forgot) {
			return // bound ports whose connections were lost or forgotten are not known
		}
		if l.binds {
			room += 2 + u.capacity/20 + 6*l.perSecond
		}
	}
	diff := math.Abs(float64(x.Capacity) - u.capacity)
	if u.capacity <= room && x.Kind == portExhaustionKind && x.Occupancy == x.Capacity {
		// bind() has taken all ports, or all but those that end about now: then the alert may have their number.
		diff = min(diff, math.Abs(float64(x.Capacity)-float64(o.r.k.boundPorts())))
	}
	if diff > room {
		o.fault("%s %s %s: capacity %d, it is %.0f, room %.0f", x.Kind, x.ID, x.Phase, x.Capacity, u.capacity, room)
	}
}

// checkFailureCount: an alert reports at least the failures that the engine has got since it opened, and
// no more than it has ever got. Updates come at an interval, so the newest failures may be missing.
func (o *simOracle) checkFailureCount(x *simAlert, d *simDestination) {
	k, tr := o.r.k, o.r.tr
	most := d.seenFailed.within(k.now - tr.began)
	least := d.seenFailed.between(k.now-x.openedAt-o.lag(), simStep+o.lag())
	if x.Kind != timeWaitStorm || x.Unverified { // another kind may have had them
		least = 0
	}
	if n := int(x.Failures); n > most || n < least || n < x.failures {
		o.fault("%s %s %s: %d failures, there were %d to %d, and %d were reported before", x.Kind, x.ID, x.Phase, n, least, most, x.failures)
	}
	x.failures = int(x.Failures)
}

// checkCulprit: the service that an alert names has connected to the destination. If no other one has, it
// is named with nearly everything.
func (o *simOracle) checkCulprit(x *simAlert, d *simDestination) {
	services := make(map[string]bool)
	for _, l := range o.r.loads {
		if l.to != d || o.r.k.now < l.from {
			continue
		}
		for _, p := range l.by {
			services[string(p.owner.Comm.Bytes())] = true
		}
	}
	switch c := &x.Culprit; {
	case c.Service != "" && !services[c.Service]:
		o.fault("%s %s names %s, which has not connected", x.Kind, x.ID, c.Service)
	case o.knowsAll(d) && len(services) == 1 && x.Kind == timeWaitStorm && (!services[c.Service] || c.Share < 0.99):
		o.fault("%s %s names %q with %.2f, and only %v have connected", x.Kind, x.ID, c.Service, c.Share, services)
	}
}

// unsure is by how much the rate of a window may differ from that of the last 24 s. Loads whose connections
// come at equal distances, and all the time, differ by one of their bursts at each end of the window.
func (o *simOracle) unsure(d *simDestination, perSecond float64, window time.Duration) float64 {
	k, bursts, atEnds, isRegular := o.r.k, 1, 0.1*perSecond, true
	for _, l := range o.r.loads {
		if l.to != d {
			continue
		}
		bursts = max(bursts, l.bursts)
		if l.from < k.now && l.until > k.now-watched {
			atEnds += 1 + float64(l.bursts)
			isRegular = isRegular && !l.chance && l.growth == 1 && l.from <= k.now-watched && l.until >= k.now && l.ends == closesFirst
		}
	}
	if isRegular && d.failed.within(watched) == 0 {
		return 0.02*perSecond + atEnds/window.Seconds()
	}
	return 0.07*perSecond + 3*math.Sqrt(perSecond*float64(bursts)/window.Seconds())
}

// checkForecast: where connections come evenly, the rate is theirs, by 7 % and three standard deviations of
// the window that it is taken over, which is half as long as the time to exhaustion, or longer. And that time
// is the one of such a rate, and of 5 % more or fewer ports. While the reader starves, the engine cannot know that
// connections still come.
func (o *simOracle) checkForecast(x *simAlert, d *simDestination, u *simUse) {
	perSecond, even := o.evenRate(d)
	if !even || o.r.tr.isBehind() || d.hasKills() || !o.knowsAll(d) {
		return
	}
	window := rate.MaxWindow
	if x.Exhausts {
		window = max(rate.Step, min(window, x.ExhaustionIn/2))
	}
	unsure := o.unsure(d, perSecond, window)
	if math.Abs(x.Rate-perSecond) > unsure {
		o.fault("%s %s %s: %.2f a second, there are %.2f, unsure by %.2f", x.Kind, x.ID, x.Phase, x.Rate, perSecond, unsure)
	}
	holds := o.holdsOf(d, false)
	first := u.exhaustedIn(perSecond+unsure, 0.95*u.capacity, holds)
	last := u.exhaustedIn(max(0, perSecond-unsure), 1.05*u.capacity, holds)
	in := x.ExhaustionIn
	if !x.Exhausts {
		in = 2 * rate.TimeWaitHold
	}
	if in < first-time.Second || last < rate.TimeWaitHold && in > last+time.Second {
		o.fault("%s %s %s: exhaustion in %v (%v), it is in %v to %v", x.Kind, x.ID, x.Phase, x.ExhaustionIn, x.Exhausts, first, last)
	}
}
