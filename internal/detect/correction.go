package detect

import (
	"math"
	"time"

	"github.com/tcpshift/tcpshift/internal/detect/rate"
)

// drift finds a difference between the open connections of the model and of the kernel's table
// that every count shows, and that no count proves: while many open and end, each is uncertain by
// as many as chance makes of them. Chance differs from count to count, and the difference does not.
type drift struct {
	counts      int     // since the last loss or correction
	difference  float64 // sum over the counts: the kernel's number less the model's
	spread      float64 // sum: by how much the number varied while the kernel counted
	uncertainty float64 // sum: three standard deviations of what has moved meanwhile
	lostBefore  uint64  // see verification.lostBefore
}

// minDriftCounts is how many counts must show a drift.
const minDriftCounts = 4

// add takes a count, and returns by how many connections the model is to be corrected.
func (d *drift) add(difference float64, moved, spread int64, lostBefore uint64) int64 {
	if d.lostBefore != lostBefore {
		*d = drift{lostBefore: lostBefore}
	}
	d.counts++
	d.difference += difference
	d.spread += float64(spread)
	d.uncertainty += 3 * math.Sqrt(float64(moved))
	if n := float64(d.counts); d.counts < minDriftCounts || math.Abs(d.difference) <= d.spread+d.uncertainty/math.Sqrt(n) {
		return 0
	}
	mean := int64(math.Round(d.difference / float64(d.counts)))
	*d = drift{lostBefore: lostBefore}
	return mean
}

// keptFrom is how many timewait sockets connect() does not take over. Some that are old enough
// have no timestamp of the peer, which the table does not show, and no connect() that found no port
// has proven. They are no more than were observed without one, by the second of their creation;
// those that were in FIN_WAIT2 may have been created again in any second, or may be gone. If all that
// were observed have none, so do the others.
func (c *suspectCount) keptFrom(first int64, u *destinationUse) (least, most int) {
	timeWaits, finWait2 := u.RecordedTimeWaits()
	if observed := timeWaits + finWait2; observed >= minReconciled && u.UntimedCount(recordedFor) >= observed-observed/20 {
		return c.timeWaits + c.reusable, c.timeWaits + c.reusable
	}
	var closedLate float64
	for i, reusable := range c.reusableIn {
		in := u.UntimedIn(first + int64(i))
		least += int(min(float64(reusable), in.Least))
		most += int(min(float64(reusable), in.Most+u.UntimedIn(first+int64(i)+1).Most)) // which is observed a moment later
		closedLate += in.FinWait2
	}
	if u.finKnown {
		closedLate *= u.finFraction
	}
	return c.timeWaits + least, c.timeWaits + min(c.reusable, most+int(closedLate))
}

// moves is how many connections have opened and ended. A connect() that finds no port moves
// nothing.
func (u *destinationUse) moves() int64 { return int64(u.changes - u.unmoved) }

// lateTimers is how late the kernel's timers are at most.
const lateTimers = 2 * time.Second

// learnFinFraction finds out how many peers have closed of the timewait sockets that were created
// in FIN_WAIT2 and are older than the timeout of that substate: the others are gone.
func (u *destinationUse) learnFinFraction(c *suspectCount, timeout time.Duration) {
	young, known := u.FinWait2Count(timeout), u.FinWait2Count(timeout+lateTimers)
	old := u.FinWait2Count(comparedFor) - known
	if old < minReconciled {
		return
	}
	immediate := u.ClosedByPeerCount(comparedFor)
	closed := int64(c.timeWaits-c.finWait2) - immediate - max(0, young-int64(c.finWait2))
	u.finFraction, u.finKnown = min(1, max(0, float64(closed)/float64(old))), true
}

// learnFinDelay finds out how long the peers take to close of the timewait sockets that are created in
// FIN_WAIT2, if those that wait are the newest: all others are closed then.
func (u *destinationUse) learnFinDelay(c *suspectCount, timeout time.Duration) {
	created := u.FinWait2Count(timeout)
	if created < minReconciled {
		return
	}
	u.waiting, u.waitingOldest = int64(c.finWait2), c.oldest
	u.learnWaiting()
	u.finDelay = 0
	if u.waiting < created-created/20 && u.newestWait() {
		u.finDelay = u.waitingDelay
	}
}

// learnUntimedFraction finds out how many peers have closed of the timewait sockets that were created in
// FIN_WAIT2, if connect() takes over those in FIN_WAIT2, too: of the others, which have no timestamp.
// most is how many timewait sockets connect() does not take over, at most. Before any could end
// without the peer's FIN, the others are those that do not wait any more.
func (ns *namespace) learnUntimedFraction(key destination, u *destinationUse, c *suspectCount, most float64) {
	model := ns.uncorrected(key, u)
	before := u.TimeWaits(model)
	model.FinWait2Hold += lateTimers // until then the kernel has them in any case
	model.FinFraction = 1
	all := u.TimeWaits(model)
	model.FinFraction = 0
	none := u.TimeWaits(model)
	created := 0.0
	for n := range int64(ns.limits.FinWait2TimewaitTimeout() / time.Second) {
		created += u.UntimedIn(int64(u.kernel.verifiedAt/time.Second) - n).FinWait2
	}
	switch {
	case all-none >= minReconciled:
		u.finFraction = (most - none) / (all - none)
	case created >= minReconciled:
		u.finFraction = 1 - float64(c.finWait2)/created
	default:
		return
	}
	u.finFraction, u.finKnown = min(1, max(0, u.finFraction)), true
	u.kernel.timeWaits += before - u.TimeWaits(ns.uncorrected(key, u)) // a better model does not change a count
}

// correct adds the TIME_WAITs that the kernel has more than the model to the seconds of their
// creation, or takes them off.
func (ns *namespace) correct(all *SuspectCounts, key destination, u *destinationUse, c *suspectCount) {
	model, first := ns.uncorrected(key, u), int64(all.of.comparedFrom()/time.Second)
	last := int64(all.readAt/time.Second) - first // what was created later is not in the table
	var more [len(c.created)]float64
	total := 0.0
	for i := range min(len(more), int(last)+1) {
		more[i] = float64(c.created[i]) - u.CreatedIn(first+int64(i), model)
		total += more[i]
	}
	if part := u.kernel.timeWaits / total; part > 0 && part <= 1 {
		carry := 0.0
		for i := range more {
			n := math.Round(carry + part*more[i])
			carry += part*more[i] - n
			u.kernel.addTimeWaits(&u.Estimator, first+int64(i), int32(n))
		}
	}
	u.kernel.timeWaits = 0
}

// addTimeWaits adds n TIME_WAITs, which may be negative, to those that were created in a second.
func (v *verification) addTimeWaits(e *rate.Estimator, second int64, n int32) {
	if n == 0 {
		return
	}
	e.CorrectTimeWaits(second, n)
	if v.corrected == nil {
		v.corrected = &rate.Counter{}
	}
	v.corrected.Advance(max(second, v.corrected.Newest()))
	v.corrected.AddAt(second, n)
}

// difference is how much the kernel's number, least to most, is above the model's, or below it,
// beyond what has moved. The kernel may also be ahead, because some transitions are still on
// their way.
func difference(least, most, model, moved, ahead float64) float64 {
	return max(least-moved-ahead-model, 0) + min(most+moved-model, 0)
}

// settle corrects the connections that count as open, once the engine has observed all that
// happened while they were counted, and how many have come since it was done before.
func (u *destinationUse) settle(now time.Duration) {
	v := &u.kernel
	if v.settlesAt == 0 || now < v.settlesAt {
		return
	}
	open := u.OpenCount()
	_, after, spread := v.around(0, v.settlesAt, v.settleFrom, mark{moves: u.moves(), open: open})
	moved := int64(uncertainty(max(0, after.moves-v.settleFrom.moves), spread))
	if most := v.settleOpen + moved; after.open > most {
		u.ForgetOpen(now, after.open-most)
	}
	if least := v.settleOpen - moved; after.open < least {
		u.AddOpen(now, least-after.open)
	}
	added := u.OpenCount() - open
	if added != 0 {
		v.drift = drift{}
	}
	v.open -= float64(added) // the sum stays as the newest count has it
	if !v.reuses {           // else connect() may have taken over the TIME_WAITs of those that are gone
		u.correctTaken(now, added)
	}
	v.settledLost = v.lostBefore
	v.settlesAt, v.settledAt, v.corrected, v.forgotten = 0, now, nil, 0
}

// correctTaken corrects the rate by what the kernel's tables have shown since it was done before:
// added connections that are open, TIME_WAITs, and connections that are gone. A connection that
// opened, and that was lost when it became a TIME_WAIT, is gone and a TIME_WAIT: together they
// change nothing. What remains was taken when the TIME_WAITs were created; without these, nobody
// knows when. Without a loss the rate has all that filters pass.
func (u *destinationUse) correctTaken(now time.Duration, added int64) {
	v, more := &u.kernel, -u.kernel.forgotten
	corrected := int64(0)
	if v.lostBefore != v.settledLost {
		more += added
		if v.corrected != nil {
			corrected = v.corrected.Total()
		}
	}
	if more += corrected; more <= 0 || corrected <= 0 {
		u.CorrectTaken(max(v.settledAt, now-u.Age()), more)
		return
	}
	u.CorrectTakenAs(v.corrected, float64(more)/float64(corrected))
}
