package detect

import (
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/tcpshift/tcpshift/internal/detect/rate"
	"github.com/tcpshift/tcpshift/internal/detect/topk"
)

const (
	// maxSuspects bounds the destinations that are counted in one reading of the kernel's
	// table. The local ports of each take up to 9 KiB.
	maxSuspects = 64
	// freshFor is how long a count of the kernel's table verifies a number by itself.
	// verifiedFor is how long it does if no transition has been lost since: then the model
	// counts on from it.
	freshFor    = 2 * time.Second
	verifiedFor = 15 * time.Second
	// refreshAfter is how old a count may get while an alert is open. It is half of the default
	// interval of updates, so that each update has a newer one.
	refreshAfter = 5 * time.Second
	// countWait bounds the wait for the kernel's count before an alert opens. There is no
	// time for it if the capacity is exhausted within noTimeToAsk: then the alert opens
	// unverified at once.
	countWait   = time.Second
	noTimeToAsk = 500 * time.Millisecond
	// waitShare is the fraction of the capacity that is at most taken during countWait where there is time for it.
	waitShare = 0.05
)

// verification compares the model of one destination with the kernel's table of sockets.
type verification struct {
	wanted     bool          // a detector asks for a count
	urgent     bool          // the numbers are not verified; an alert may wait for the count
	opensSince time.Duration // since when the model has found a storm that opens an alert; 0: it finds none

	firstRequestedAt time.Duration // 0: never
	requestedAt      time.Duration // the newest request
	verifiedAt       time.Duration // when the newest count that has come was requested; 0: none has come
	readAt           time.Duration // when the table of that count was read
	movesThen        int64         // see destinationUse.moves: after that
	ambiguous        bool          // that count does not show well enough which TIME_WAITs connect() takes over: see notTakenOver
	lostBefore       uint64        // tracker.lostTotal at verifiedAt
	moved            float64       // how many connections opened and ended around that count, which blurred it
	mayLose          uint64        // how many lost transitions since then are too few to matter: a twentieth of the ports

	timeWaits float64 // how many TIME_WAITs the kernel had more than the model, at verifiedAt: see applyTo
	young     float64 // of timeWaits: too young to be taken over then
	manyWait  bool    // connect() takes over TIME_WAITs, but not those in FIN_WAIT2, and many were in that substate
	isShort   bool    // the model has clearly fewer TIME_WAITs than leastTimeWaits
	expires   []int32 // see suspectCount.expires; nil: not known
	open      float64 // how many open connections the kernel had more, until settle corrects the model
	lastAck   float64 // connections in LAST_ACK: they keep their ports, and do not count as open in the model

	// The count by which settle is going to correct the open connections:
	settlesAt  time.Duration // when the engine will have observed all that it shows; 0: there is no such count
	settleOpen int64         // the connections that it has
	settleFrom mark          // the model before it was made

	settledAt   time.Duration // when settle last corrected them; 0: never
	settledLost uint64        // lostBefore at that time
	corrected   *rate.Counter // TIME_WAITs that correct has added since then, by the second of their creation; nil: none
	removed     *rate.Counter // TIME_WAITs that correct has taken off, by the second of their creation; nil: none
	forgotten   int64         // connections that applyOpen has forgotten since then
	reuses      bool          // connect() may take over TIME_WAITs

	marks []mark // of the model, while a count is awaited or is to be settled

	drift drift

	unreadable bool // the newest answer about the namespace is that it cannot be read: it may have vanished
}

// mark is what the model counted at a time. A count that comes late is compared with the model
// of the time at which the kernel's table was read.
type mark struct {
	at          time.Duration
	moves, open int64   // see destinationUse.moves and rate.Estimator.OpenCount
	timeWaits   float64 // see modelled
}

const (
	// markInterval is the least time between two marks, and maxMarks bounds them.
	markInterval = 100 * time.Millisecond
	maxMarks     = 64
	// pipelineTime is pipelineDelay as a duration.
	pipelineTime = time.Duration(pipelineDelay * float64(time.Second))
)

// mark notes what the model counts now, if a count that is awaited or is to be settled needs it.
func (tr *tracker) mark(key destination, u *destinationUse) {
	v := &u.kernel
	if v.settlesAt == 0 && (v.requestedAt <= v.verifiedAt || tr.now-v.requestedAt > maxMarks*markInterval) {
		v.marks = nil
		return
	}
	if n := len(v.marks); n > 0 && tr.now-v.marks[n-1].at < markInterval {
		return
	}
	if len(v.marks) >= maxMarks {
		v.marks = append(v.marks[:0], v.marks[1:]...)
	}
	v.marks = append(v.marks, tr.markNow(&Suspects{since: v.requestedAt}, key, u))
}

// markNow is what the model counts now, for a comparison with the counts of s.
func (tr *tracker) markNow(s *Suspects, key destination, u *destinationUse) mark {
	return mark{at: tr.now, moves: u.moves(), open: u.OpenCount(), timeWaits: tr.modelled(s, key, u)}
}

// around returns the last mark before from, or first if there is none; the first mark after until, or
// last; and spread, by how much the number of open connections has varied between the two.
func (v *verification) around(from, until time.Duration, first, last mark) (before, after mark, spread int64) {
	before, after = first, last
	least, most := first.open, first.open
	for i := range v.marks {
		m := &v.marks[i]
		if m.at < first.at {
			continue
		}
		if m.at <= from {
			before, least, most = *m, m.open, m.open
			continue
		}
		least, most = min(least, m.open), max(most, m.open)
		if m.at >= until {
			after = *m
			break
		}
	}
	return before, after, max(most, after.open) - min(least, after.open)
}

// uncertainty is by how many the number of open connections may have differed from that of the marks
// while, between these, moved connections opened and ended: by three standard deviations of chance, and
// never by more than moved.
func uncertainty(moved, spread int64) float64 {
	return min(float64(moved), float64(spread)+3*math.Sqrt(float64(moved)))
}

// isVerified reports whether the kernel's table confirms the present numbers: the newest count is fresh,
// or no transition was lost since; and it shows which TIME_WAITs connect() may take over. A count that has taken
// many TIME_WAITs off the model does not last, because it is not known when the model ends these: see left. Nor does one last
// that differs much from the model where manyWait, because the model knows little of their peers; nor one of which the model
// has clearly fewer: see leastTimeWaits.
func (v *verification) isVerified(tr *tracker) bool {
	age := tr.now - v.verifiedAt
	isVague := age > freshFor && (v.manyWait && math.Abs(v.timeWaits) > float64(v.mayLose) ||
		-v.timeWaits*age.Seconds() > float64(v.mayLose)*rate.TimeWaitHold.Seconds())
	return v.verifiedAt > 0 && !v.ambiguous && !isVague && !v.isShort && !v.unreadable &&
		(age <= freshFor && tr.lostTotal-v.lostBefore <= v.mayLose || age <= verifiedFor && tr.lostAt < v.verifiedAt)
}

// isComplete reports whether nothing that was lost is missing from the numbers: they were verified after
// the last loss, and no rate covers the time of it any more.
func (v *verification) isComplete(tr *tracker) bool {
	return v.isVerified(tr) && tr.lostAt < v.verifiedAt && tr.now-tr.lostAt > rate.MaxWindow
}

// gonePerSecond is by how much the rate may be too high, per second, because the kernel does not have some
// of the connections that count as open.
func (v *verification) gonePerSecond(u *destinationUse) float64 {
	return max(0, -v.open) / max(rate.Step, min(rate.MaxWindow, u.Age())).Seconds()
}

func (v *verification) source(tr *tracker) Source {
	if v.isVerified(tr) {
		return FromKernel
	}
	return FromEvents
}

// applyTo corrects a model by the newest count. The difference of the TIME_WAITs shrinks to nothing
// within a hold time, as they end.
func (v *verification) applyTo(m *rate.TimeWaitModel, now time.Duration) {
	age := now - v.verifiedAt
	if v.verifiedAt == 0 || age >= m.Hold {
		return
	}
	m.Scale = 1 // the count of one destination is better than the mean of its namespace
	m.TimeWaitOffset = (v.timeWaits - v.young) * v.left(age, m.Hold)
	if age < m.ReuseAfter {
		m.TimeWaitOffset += v.young
	}
	m.OpenOffset = v.open + v.lastAck
}

// left is the fraction of the difference of TIME_WAITs that is left after a time: by the timers in the
// kernel's table if these are known, else as if they ended evenly within a hold time.
func (v *verification) left(after, hold time.Duration) float64 {
	var all, left int32
	for second, n := range v.expires {
		all += n
		if time.Duration(second+1)*time.Second > after {
			left += n
		}
	}
	if all == 0 || v.timeWaits <= 0 {
		return float64(hold-after) / float64(hold)
	}
	return float64(left) / float64(all)
}

// leastTimeWaits is how many of the timewait sockets of the newest count still occupy their ports, by the timers that the
// table has shown. Where connect() takes over no TIME_WAIT, nothing else ends them, whatever the model knows of their
// peers. One that was in FIN_WAIT2 for long is older than what the model remembers.
func (v *verification) leastTimeWaits(now time.Duration) (least float64) {
	if v.verifiedAt == 0 || v.reuses || now-v.verifiedAt > verifiedFor {
		return 0
	}
	for second, n := range v.expires {
		if time.Duration(second)*time.Second >= now-v.readAt {
			least += float64(n)
		}
	}
	return least
}

// judgeCount finds out whether the newest count refutes what the model counts now.
func (tr *tracker) judgeCount(key destination, u *destinationUse) {
	v := &u.kernel
	v.isShort = false
	least := v.leastTimeWaits(tr.now)
	ns := tr.knownNamespace(key.netns)
	if least == 0 || ns == nil {
		return
	}
	u.Advance(tr.now)
	model := ns.uncorrected(key, u)
	v.applyTo(&model, tr.now)
	v.isShort = least-u.TimeWaits(model) > float64(v.mayLose)
}

// refreshCount requests a count of a destination if the newest one is too old. alerts means that
// an alert is open or about to open, exhausts that the capacity will be exhausted.
func (tr *tracker) refreshCount(ns *namespace, u *destinationUse, alerts, exhausts bool) {
	v := &u.kernel
	interval, isConfirmed := activeInterval, v.isVerified(tr) && tr.lostAt < v.verifiedAt
	switch {
	case !isConfirmed && (alerts || exhausts):
		interval = suspectedInterval
	case alerts && v.moved > float64(v.mayLose) && 2*pipelineDelay*u.RecentRate() < v.moved/4:
		interval = suspectedInterval // that count was blurred by what moved, and less moves now
	case alerts:
		interval = refreshAfter
	}
	if v.verifiedAt == 0 || tr.now-v.verifiedAt >= interval {
		v.wanted, v.urgent, ns.wantCounts = true, v.urgent || !isConfirmed, true
	}
}

// claimOf returns the claim of a storm: opens if the model demands an alert (opening) and mayOpen agrees,
// else keeps, or nothing if the model finds no storm any more; with verified if the kernel has the numbers (isVerified),
// and they are a reason to open an alert, else with doubted. sinceLoss means that it was
// counted after the last loss. opensSince belongs to the storm: see mayOpen.
func (tr *tracker) claimOf(opening bool, opensSince *time.Duration, isVerified, sinceLoss bool, f rate.Forecast) (c claim) {
	switch {
	case opening && tr.mayOpen(opensSince, isVerified && sinceLoss, f):
		c = opens
	case opening || keepsStorm(f):
		c = keeps
	}
	if !opening {
		*opensSince = 0
	}
	switch {
	case !isVerified:
	case opening || f.Occupancy >= exhaustedShare*f.Capacity:
		c |= verified
	case f.Occupancy < (tr.Threshold-0.2)*f.Capacity:
		c |= doubted | denied
	default:
		c |= doubted
	}
	return c
}

// mayOpen decides whether a storm that the model finds may open its alert: after the kernel has confirmed it
// (isConfirmed), if there is no time to wait for the count, or if no count came within countWait. A count that
// refutes the storm corrects the model, which then finds no storm. A count from before the last loss is not enough,
// because there is time for a newer one. opensSince is since when the model has found the storm; 0: mayOpen sets it.
func (tr *tracker) mayOpen(opensSince *time.Duration, isConfirmed bool, f rate.Forecast) bool {
	if *opensSince == 0 {
		*opensSince = tr.now
	}
	return isConfirmed || leavesNoTime(f) || tr.now-*opensSince >= countWait
}

// leavesNoTime reports whether the capacity is exhausted before an answer can come. A slow storm that seems to be so near
// has come near by a correction of the model, not by its connections: waiting for the answer costs little.
func leavesNoTime(f rate.Forecast) bool {
	return f.Exhausts && f.ExhaustedIn <= noTimeToAsk && f.Rate*countWait.Seconds() >= waitShare*f.Capacity
}

// countsDue reports whether counts are to be requested: once a second on average, and half a second after the
// request before at the earliest.
func (tr *tracker) countsDue(ns *namespace) bool {
	return ns.wantCounts && tr.now >= ns.nextCounts-suspectedInterval/2
}

// requestCounts makes the request for the counts of a namespace that detectors want.
func (tr *tracker) requestCounts(netns uint32, ns *namespace) *Suspects {
	ns.wantCounts, ns.nextCounts = false, max(ns.nextCounts, tr.now)+suspectedInterval
	var wanted []*topk.Entry[destination, destinationUse]
	for _, e := range tr.destinations.Entries() {
		if e.Key.netns == netns && e.Value.kernel.wanted {
			wanted = append(wanted, e)
		}
	}
	if len(wanted) > maxSuspects {
		slices.SortStableFunc(wanted, func(a, b *topk.Entry[destination, destinationUse]) int {
			return cmp.Compare(a.Value.kernel.requestedAt, b.Value.kernel.requestedAt)
		})
		wanted, ns.wantCounts = wanted[:maxSuspects], true
	}
	if len(wanted) == 0 {
		return nil
	}
	s := &Suspects{since: tr.now, skip: ns.otherBinds, lostBefore: tr.lostTotal}
	for _, e := range wanted {
		v := &e.Value.kernel
		s.Urgent = s.Urgent || v.urgent
		if v.wanted, v.urgent, v.requestedAt = false, false, tr.now; v.firstRequestedAt == 0 {
			v.firstRequestedAt = tr.now
		}
		x := suspect{key: e.Key, atRequest: tr.markNow(s, e.Key, &e.Value), ownTimeouts: e.Value.OwnTimeouts()}
		if failed := tr.exhausted.of(e.Key); failed != nil {
			x.refusedAt = failed.lastAt
		}
		s.list = append(s.list, x)
	}
	return s
}

// takeCounts implements Engine.UpdateSuspects. Counts that come after newer requests are used as well: a
// slow host would otherwise never verify anything.
func (tr *tracker) takeCounts(now time.Duration, c *SuspectCounts) {
	tr.now = max(tr.now, now)
	for i := range c.of.list {
		x := &c.of.list[i]
		e := tr.destinations.Find(x.key, x.key.hash())
		if e == nil || tr.seeding.isReading(x.key.netns) {
			continue // the model lacks the sockets that Seed is about to have
		}
		// The entry may be a new one, and a newer answer may have come before.
		if v := &e.Value.kernel; v.firstRequestedAt > 0 && v.firstRequestedAt <= c.of.since && v.verifiedAt < c.of.since {
			tr.takeCount(c, x, &e.Value, &c.counts[i])
		}
	}
}

// modelled is the number of TIME_WAITs of the model that is compared with the kernel's counts of s: those
// created from s.comparedFrom on.
func (tr *tracker) modelled(s *Suspects, key destination, u *destinationUse) float64 {
	u.Advance(tr.now)
	ns := &namespace{scale: 1, finFraction: 1} // in a tick none may be added: see namespaceInTick
	if e := tr.namespaces.Find(key.netns, uint64(key.netns)); e != nil {
		ns = &e.Value
	}
	model := ns.uncorrected(key, u)
	model.Scale = 1
	model.Hold = min(model.Hold, (tr.now-s.comparedFrom()).Truncate(time.Second)+time.Second)
	return u.TimeWaits(model)
}

// takeCount corrects the model of one destination by the kernel's count. The count may or may not have what opened
// or closed while the table was read, so model and count may differ by that much. A count during which too much
// has moved is ignored.
func (tr *tracker) takeCount(all *SuspectCounts, x *suspect, u *destinationUse, c *suspectCount) {
	s, key := all.of, x.key
	v, ns := &u.kernel, tr.ensureNamespace(key.netns)
	before, after, spread := v.around(all.readAt-pipelineTime, all.readUntil+pipelineTime, x.atRequest, tr.markNow(s, key, u))
	occupied, moved := u.Occupancy(ns.modelFor(tr.now, key, u)), max(0, after.moves-before.moves)
	if float64(moved) > occupied/2+minConnections {
		return // so much has moved that the count proves nothing
	}
	c.resolveTimeouts(all, &u.Estimator, ns.limits.FinWait2TimewaitTimeout())
	v.verifiedAt, v.timeWaits, v.open, v.lastAck = s.since, 0, 0, float64(c.lastAck)
	v.readAt, v.movesThen, v.unreadable = all.readAt, after.moves, ns.unreadable
	v.lostBefore, v.mayLose, v.moved = s.lostBefore, uint64(max(minConnections, ns.ports/20)), float64(moved)
	if v.settlesAt == 0 {
		v.settlesAt, v.settleOpen, v.settleFrom = all.readUntil+openSettles, int64(c.open), before
	}
	removed := 0.0
	if v.reuses = ns.takesOver(key, u); v.reuses {
		modelled := tr.modelled(s, key, u)
		u.removeUntimed(all, c, ns.limits.FinWait2TimewaitTimeout())
		removed = modelled - tr.modelled(s, key, u)
	}
	after.timeWaits, before.timeWaits = after.timeWaits-removed, before.timeWaits-removed
	least, most := c.notTakenOver(int64(s.comparedFrom()/time.Second), u)
	v.ambiguous = uint64(most-least) > v.mayLose
	ahead := pipelineDelay * u.RecentRate()
	v.timeWaits = difference(float64(least), float64(most), after.timeWaits, float64(moved)+math.Abs(after.timeWaits-before.timeWaits), ahead)
	v.expires, v.young, v.isShort = nil, 0, false
	v.manyWait = v.reuses && !ns.limits.ReusesFinWait2 && c.finWait2 > int(v.mayLose)
	if v.reuses {
		if ns.limits.ReusesFinWait2 {
			ns.learnUntimedFraction(key, u, c, float64(most))
		}
		// Those that were too old to be taken over have not moved.
		v.timeWaits = max(v.timeWaits, float64(least-c.young)-after.timeWaits-float64(moved)-ahead) + c.onlyInTable(u)
		if v.timeWaits > 0 {
			v.expires = slices.Clone(c.expires[:])
			v.young = min(v.timeWaits, max(0, float64(c.young)-u.TimedWithin(ns.limits.ReuseDelay)))
		}
	} else {
		modelled := tr.modelled(s, key, u)
		u.learnFinDelay(c, ns.limits.FinWait2TimewaitTimeout(), tr.now-all.readAt)
		unclosed := u.learnFinFraction(all, c, ns.limits.FinWait2TimewaitTimeout())
		v.timeWaits += modelled - tr.modelled(s, key, u) // a better model does not change a count
		ns.correct(all, key, u, c, unclosed)
		v.expires = slices.Clone(c.expires[:])
	}
	if drift := v.drift.add(float64(c.open)-float64(before.open+after.open)/2, moved, spread, s.lostBefore); drift != 0 {
		u.ForgetOpen(tr.now, -min(0, drift))
		u.AddOpen(tr.now, max(0, drift))
		after.open += drift
	}
	open := float64(c.open)
	v.open = difference(open, open, float64(after.open), uncertainty(moved, spread), ahead)
	corrected := u.Occupancy(ns.modelFor(tr.now, key, u))
	if occupied-corrected > max(minConnections, float64(ns.ports)/20) {
		u.refutedAt = tr.now
	}
}

// recordedFor is how long an Estimator remembers TIME_WAITs.
const recordedFor = 64 * time.Second
