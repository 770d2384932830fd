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
	// verifiedFor is how long it does if no transition has been lost since: the model then
	// has moved it on.
	freshFor    = 2 * time.Second
	verifiedFor = 15 * time.Second
	// refreshAfter is how old a count gets while an alert is open. It is half of the default
	// interval of updates, so that each has a newer one.
	refreshAfter = 5 * time.Second
	// verdictWait bounds the wait for the kernel's count before an alert opens. There is no
	// time for it if the capacity is exhausted within noTimeToAsk: then the alert opens
	// unverified at once.
	verdictWait = time.Second
	noTimeToAsk = 500 * time.Millisecond
)

// verification compares the model of one destination with the kernel's table of sockets.
type verification struct {
	wanted      bool          // a detector asks for a count
	urgent      bool          // the numbers are not verified; an alert may wait for the count
	opensSince  time.Duration // since when the model has said that an alert opens; 0: it does not
	requestedAt time.Duration // the newest request; 0: never
	before      int64         // destinationUse.moves at that time
	waitsBefore float64       // TIME_WAITs of the model at that time
	verifiedAt  time.Duration // when the newest count was requested that has come; 0: never

	timeWaits float64 // that the kernel had more than the model, at verifiedAt: see applyTo
	open      float64 // connections that it had more, until settle corrects the model
	lastAck   float64 // connections in LAST_ACK: they keep their ports, and the model has closed them

	settles    time.Duration // when the answer came whose connections settle takes; 0: none
	settleOpen int64         // how many they were
	settleFrom int64         // destinationUse.moves at the time of the request
}

// isVerified reports whether the kernel's table confirms the numbers of the present.
func (v *verification) isVerified(tr *tracker) bool {
	age := tr.now - v.verifiedAt
	return v.verifiedAt > 0 && (age <= freshFor || age <= verifiedFor && tr.lostAt < v.verifiedAt)
}

// isComplete reports whether nothing that was lost is missing from the numbers: they have been
// verified since, and no rate goes back that far.
func (v *verification) isComplete(tr *tracker) bool {
	return v.isVerified(tr) && tr.lostAt < v.verifiedAt && tr.now-tr.lostAt > rate.MaxWindow
}

func (v *verification) source(tr *tracker) Source {
	if v.isVerified(tr) {
		return FromKernel
	}
	return FromEvents
}

// applyTo corrects a model by the newest count. If connect() may take over TIME_WAITs, those
// that only one of both had end evenly within a hold time.
func (v *verification) applyTo(m *rate.TimeWaitModel, now time.Duration) {
	age := now - v.verifiedAt
	if v.verifiedAt == 0 || age >= m.Hold {
		return
	}
	m.Scale = 1 // the count of one destination is better than the mean of its namespace
	m.TimeWaitOffset = v.timeWaits * float64(m.Hold-age) / float64(m.Hold)
	m.OpenOffset = v.open + v.lastAck
}

// suspect asks for a count of the destination if the newest one is too old. alerts means that
// an alert is open or about to open, exhausts that the capacity will be exhausted.
func (tr *tracker) suspect(ns *namespace, v *verification, alerts, exhausts bool) {
	interval, isVerified := activeInterval, v.isVerified(tr)
	switch {
	case !isVerified && (alerts || exhausts):
		interval = suspectedInterval
	case alerts:
		interval = refreshAfter
	}
	if v.verifiedAt == 0 || tr.now-v.verifiedAt >= interval {
		v.wanted, v.urgent, ns.wantCounts = true, v.urgent || !isVerified, true
	}
}

// claimOf returns the claim of a storm. opening means that the model asks for an alert. The
// claim is opens only if convicts agrees, else keeps. verified is added if the kernel has
// confirmed the numbers.
func (tr *tracker) claimOf(opening bool, opensSince *time.Duration, isVerified bool, f rate.Forecast) claim {
	c := keeps
	switch {
	case !opening:
		*opensSince = 0
	case tr.convicts(opensSince, isVerified, f):
		c = opens
	}
	if isVerified {
		c |= verified
	}
	return c
}

// convicts decides whether a storm that the model finds may open its alert: after the kernel
// has confirmed it, or if there is no time or no way to ask. The model has been corrected by
// the kernel's count, so that a count that refutes it leaves no storm to find.
func (tr *tracker) convicts(opensSince *time.Duration, isVerified bool, f rate.Forecast) bool {
	if *opensSince == 0 {
		*opensSince = tr.now
	}
	return isVerified || f.Exhausts && f.ExhaustedIn <= noTimeToAsk || tr.now-*opensSince >= verdictWait
}

// countsDue reports whether counts are to be requested: once a second on average. The second
// request may follow after half a second.
func (tr *tracker) countsDue(ns *namespace) bool {
	return ns.wantCounts && tr.now >= ns.nextCounts-suspectedInterval/2
}

// requestCounts makes the request for what the detectors have asked for, in a namespace.
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
	s := &Suspects{since: tr.now}
	for _, e := range wanted {
		v := &e.Value.kernel
		s.Urgent = s.Urgent || v.urgent
		v.wanted, v.urgent, v.requestedAt, v.before = false, false, tr.now, e.Value.moves()
		v.waitsBefore, _ = tr.modelled(s, e.Key, &e.Value)
		s.list = append(s.list, e.Key)
	}
	return s
}

// takeCounts corrects the model of each destination by the kernel's counts. The counts may or
// may not have what opened or closed since the request. So model and counts may differ by that
// much.
func (tr *tracker) takeCounts(now time.Duration, c *SuspectCounts) {
	tr.now = max(tr.now, now)
	for i, key := range c.of.list {
		e := tr.destinations.Find(key, key.hash())
		if e == nil || e.Value.kernel.requestedAt != c.of.since {
			continue
		}
		tr.takeCount(c.of, key, &e.Value, &c.counts[i])
	}
}

// modelled returns two numbers to compare with the kernel's: the TIME_WAITs of the model, and
// how many timewait sockets have no timestamp of the peer.
func (tr *tracker) modelled(s *Suspects, key destination, u *destinationUse) (timeWaits float64, untimed int) {
	u.Advance(tr.now)
	model := tr.namespace(key.netns).uncorrected(key, u)
	model.Scale = 1
	model.Hold = min(model.Hold, (tr.now-s.comparedFrom()).Truncate(time.Second)+time.Second)
	return u.TimeWaits(model), int(u.UntimedCount(model.Hold))
}

func (tr *tracker) takeCount(s *Suspects, key destination, u *destinationUse, c *suspectCount) {
	v, ns := &u.kernel, tr.namespace(key.netns)
	timeWaits, untimed := tr.modelled(s, key, u)
	occupied, moved := u.Occupancy(ns.modelFor(tr.now, key, u)), float64(max(0, u.moves()-v.before))
	if moved > occupied/2+minConnections {
		return // so much has moved that the count proves nothing
	}
	v.verifiedAt, v.timeWaits, v.open, v.lastAck = v.requestedAt, 0, 0, float64(c.lastAck)
	if v.settles == 0 {
		v.settles, v.settleOpen, v.settleFrom = tr.now, int64(c.open), v.before
	}
	// Some TIME_WAITs that are old enough for connect() have no timestamp of the peer, which
	// the table does not show.
	kept := c.timeWaits + min(c.reusable, untimed)
	ahead := pipelineDelay * u.RecentRate()
	v.timeWaits = difference(float64(kept), timeWaits, moved+math.Abs(timeWaits-v.waitsBefore), ahead)
	if !ns.limits.AllowsReuse(key.local, key.peer) {
		ns.correct(s, key, u, c)
	}
	v.open = difference(float64(c.open), float64(u.OpenCount()), moved, ahead)
	corrected := u.Occupancy(ns.modelFor(tr.now, key, u))
	if occupied-corrected > max(minConnections, float64(ns.ports)/20) {
		u.refutedAt = tr.now
	}
}

// moves is how many connections have opened and ended. A connect() that finds no port moves
// nothing.
func (u *destinationUse) moves() int64 { return int64(u.changes - u.unmoved) }

// correct adds the TIME_WAITs that the kernel has more than the model to the seconds of their
// creation, or takes them off.
func (ns *namespace) correct(s *Suspects, key destination, u *destinationUse, c *suspectCount) {
	model, first := ns.uncorrected(key, u), int64(s.comparedFrom()/time.Second)
	var more [len(c.created)]float64
	total := 0.0
	for i := range more {
		more[i] = float64(c.created[i]) - u.CreatedIn(first+int64(i), model)
		total += more[i]
	}
	if part := u.kernel.timeWaits / total; part > 0 && part <= 1 {
		carry := 0.0
		for i := range more {
			n := math.Round(carry + part*more[i])
			carry += part*more[i] - n
			u.CorrectTimeWaits(first+int64(i), int32(n))
		}
	}
	u.kernel.timeWaits = 0
}

// difference is how much the kernel's number is above the model's, or below it, beyond what
// has moved. The kernel may also be ahead, because some transitions are still on their way.
func difference(kernel, model, moved, ahead float64) float64 {
	return max(kernel-moved-ahead-model, 0) + min(kernel+moved-model, 0)
}

// settle corrects the connections that count as open, once the engine has observed all that
// happened while they were counted.
func (u *destinationUse) settle(now time.Duration) {
	v := &u.kernel
	if v.settles == 0 || now-v.settles < openSettles {
		return
	}
	open, moved := u.OpenCount(), max(0, u.moves()-v.settleFrom)
	if most := v.settleOpen + moved; open > most {
		u.ForgetOpen(now, open-most)
	}
	if least := v.settleOpen - moved; open < least {
		u.AddOpen(now, least-open)
	}
	v.settles, v.open = 0, 0
}
