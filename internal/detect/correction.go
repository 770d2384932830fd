package detect

import (
	"math"
	"time"

	"github.com/tcpshift/tcpshift/internal/detect/rate"
)

// drift finds a lasting difference between the open connections of the model and of the kernel's table
// that no single count proves: while many connections open and end, each count is uncertain by chance.
// Chance differs from count to count, and cancels out in their mean; the difference stays.
type drift struct {
	counts      int     // since the last loss or correction
	difference  float64 // sum over the counts: the kernel's number less the model's
	spread      float64 // sum: by how much the number varied while the kernel counted
	uncertainty float64 // sum: three standard deviations of the number of connections that have opened and ended meanwhile
	lostBefore  uint64  // see verification.lostBefore
}

// minDriftCounts is how many counts must show a drift.
const minDriftCounts = 4

// add takes the difference that a count shows, and returns by how many connections the model is to be
// corrected: 0 while that is not certain. moved is how many connections opened and ended while the
// kernel counted, spread by how much the number of open ones varied.
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

// lacksTimestamps reports whether nearly all timewait sockets that were observed lack a timestamp of the peer: then
// all are assumed to.
func (u *destinationUse) lacksTimestamps() bool {
	timeWaits, finWait2 := u.RecordedTimeWaits()
	observed := timeWaits + finWait2
	return observed >= minReconciled && u.UntimedCount(recordedFor) >= observed-observed/20
}

// onlyInTable is how many of the old timewait sockets the model does not have, although connect() does not take them
// over. Their timers are in the table, so it is known when they end.
func (c *suspectCount) onlyInTable(u *destinationUse) float64 {
	old := c.old
	if u.lacksTimestamps() {
		old += c.oldReusable
	}
	return max(0, float64(int64(old)-u.UntimedCount(recordedFor)+u.UntimedCount(comparedFor-time.Second)))
}

// notTakenOver is how many timewait sockets connect() does not take over, at least and at most. It does not take
// over a TIME_WAIT without a timestamp of the peer, and the kernel's table shows no timestamps. So transitions
// decide about the sockets that are old enough: in each second of creation, at most as many lack a timestamp as
// were observed without one. Some of these are known by a connect() that has failed: see refusedIn.
// The kernel counts a socket that was in FIN_WAIT2 as created when the peer's FIN came, so it may be of
// any second, or gone. If 95 % of those that were observed lack a timestamp, all are assumed to. first is the
// second of reusableIn[0].
func (c *suspectCount) notTakenOver(first int64, u *destinationUse) (least, most int) {
	if u.lacksTimestamps() {
		return c.timeWaits + c.reusable, c.timeWaits + c.reusable
	}
	var closedLate float64
	for i, reusable := range c.reusableIn {
		in, refused := u.UntimedIn(first+int64(i)), float64(c.refusedIn[i])
		least += int(min(float64(reusable), max(0, in.Least-refused)))
		inNext := u.UntimedIn(first + int64(i) + 1).Most // the transition may come in the next second
		most += int(min(float64(reusable), max(0, in.Most+inNext-refused)))
		closedLate += in.FinWait2
	}
	if u.finKnown {
		closedLate *= u.finFraction
	}
	return c.timeWaits + least, c.timeWaits + min(c.reusable, most+int(closedLate))
}

// moves is how many connections have opened, plus how many have ended. A connect() that finds no port
// does not count.
func (u *destinationUse) moves() int64 { return int64(u.changes - u.unmoved) }

// lateTimers is how late the kernel's timers are at most.
const lateTimers = 2 * time.Second

// learnFinFraction finds out from the kernel's table, for timewait sockets that are created in FIN_WAIT2, which
// fraction of their peers closes. It looks at sockets that are older than the timeout of that substate: they are
// gone if the peer has not closed. With fewer than minReconciled of these it decides only if the table has many that the
// model lacks, because they are older than the tracer, and showsUnclosed is true: then no peer closes, and it returns
// true. If every peer closes after a while, older ones that are gone were killed.
func (u *destinationUse) learnFinFraction(all *SuspectCounts, c *suspectCount, timeout time.Duration) (unclosed bool) {
	if u.finDelay > 0 {
		u.finFraction, u.finKnown, u.finLearned = 1, true, u.kernel.verifiedAt
		return false
	}
	young, old := u.FinWait2Running(timeout, 0), u.FinWait2TimedOut(comparedFor, timeout, lateTimers)
	closed := int64(c.timeWaits+c.reusable-c.finWait2) - u.closedAtOnce() // as many as the peers have closed
	if old < minReconciled {
		unclosed = int64(c.finWait2)-young >= minReconciled && all.showsUnclosed(c, closed+int64(u.kernel.moved), timeout)
		if unclosed {
			u.finFraction, u.finKnown, u.finLearned = 0, true, u.kernel.verifiedAt
		}
		return unclosed
	}
	closed -= max(0, young-int64(c.finWait2))
	u.finFraction, u.finKnown, u.finLearned = min(1, max(0, float64(closed)/float64(old))), true, u.kernel.verifiedAt
	return false
}

// showsUnclosed reports whether the table alone shows that no peer closes in time: the oldest socket in FIN_WAIT2 is
// about to time out, others have waited nearly as long, and at most closed of all peers have closed, which are hardly any.
func (all *SuspectCounts) showsUnclosed(c *suspectCount, closed int64, timeout time.Duration) bool {
	long := timeout * 3 / 4
	waited := 0 // as long as that
	for second := range int((all.readAt-long)/time.Second - all.of.comparedFrom()/time.Second) {
		if second < len(c.waitingIn) {
			waited += int(c.waitingIn[second])
		}
	}
	return c.finWait2 >= minReconciled && waited >= minReconciled/2 && c.oldest >= max(long, timeout-lateTimers) &&
		20*closed <= int64(c.finWait2)
}

// learnFinDelay finds out from the kernel's table, for timewait sockets that are created in FIN_WAIT2, how long their
// peers take to close. The delay is known only if the sockets that wait are the newest, because the peers of all
// others have closed then, and those are in TIME_WAIT; else it is set to 0. Sockets that an administrator kills are
// gone, too. readAgo is the age of the table.
func (u *destinationUse) learnFinDelay(c *suspectCount, timeout, readAgo time.Duration) {
	created := u.FinWait2Running(timeout, 0)
	if created < minReconciled {
		return
	}
	u.waiting, u.waitingOldest = int64(c.finWait2), c.oldest
	u.learnWaiting(readAgo)
	u.finDelay = 0
	closed := int64(c.timeWaits+c.reusable-c.finWait2) - u.closedAtOnce() // as many as the peers have closed of them
	if gone := created - u.waiting; gone > created/20 && 2*closed >= gone && u.newestWait() {
		u.finDelay = u.waitingDelay
	}
}

// learnUntimedFraction is learnFinFraction where connect() takes over timewait sockets in FIN_WAIT2, too.
// So it looks at those without a timestamp, which connect() does not take over. most is how many timewait
// sockets connect() does not take over, at most. If too few are old enough to have ended without the
// peer's FIN, the sockets that still wait in the table decide.
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

// correct adds to the model the TIME_WAITs that only the kernel has, or removes those that only the model has, in
// the seconds of their creation. If unclosed (see learnFinFraction), it adds them as sockets in FIN_WAIT2, up to the number
// that the kernel has more than the model in that second.
func (ns *namespace) correct(all *SuspectCounts, key destination, u *destinationUse, c *suspectCount, unclosed bool) {
	model, first := ns.uncorrected(key, u), int64(all.of.comparedFrom()/time.Second)
	last := int64(all.readAt/time.Second) - first // what was created later is not in the table
	var more [len(c.created)]float64
	total := 0.0
	for i := range min(len(more), int(last)+1) {
		more[i] = float64(c.created[i]) - u.CreatedIn(first+int64(i), model)
		total += more[i]
	}
	if part := min(1, u.kernel.timeWaits/total); part > 0 {
		carry, untimed := 0.0, u.lacksTimestamps()
		for i := range more {
			n := math.Round(carry + part*more[i])
			carry += part*more[i] - n
			var finWait2 int32
			if unclosed {
				finWait2 = min(max(0, int32(n)), max(0, c.waitingIn[i]-int32(u.FinWait2In(first+int64(i)))))
			}
			u.kernel.addTimeWaits(&u.Estimator, first+int64(i), int32(n), finWait2, untimed)
		}
	}
	u.kernel.timeWaits = 0
}

// addTimeWaits calls rate.Estimator.CorrectTimeWaits, and notes what that has added or removed.
func (v *verification) addTimeWaits(e *rate.Estimator, second int64, n, finWait2 int32, untimed bool) {
	if n == 0 {
		return
	}
	e.CorrectTimeWaits(second, n, finWait2, untimed)
	if v.corrected == nil {
		v.corrected = &rate.Counter{}
	}
	v.corrected.Advance(max(second, v.corrected.Newest()))
	v.corrected.AddAt(second, n)
	v.noteRemoved(second, n-finWait2)
}

// noteRemoved notes the TIME_WAITs that addTimeWaits removes. Those that it adds take back earlier ones.
func (v *verification) noteRemoved(second int64, n int32) {
	if v.removed == nil {
		if n >= 0 {
			return
		}
		v.removed = &rate.Counter{}
	}
	v.removed.Advance(max(second, v.removed.Newest()))
	v.removed.AddAt(second, -min(n, int32(v.removed.Sum(int(v.removed.Newest()-second), 1))))
}

// closedAtOnce is how many timewait sockets were created in the substate TIME_WAIT within comparedFor. Corrections
// for killed ones do not count: these may have been in FIN_WAIT2, and count in a slot of their own.
func (u *destinationUse) closedAtOnce() int64 {
	closed := u.ClosedTimeWaitCount(comparedFor)
	if removed := u.kernel.removed; removed != nil {
		removed.Advance(int64(u.kernel.verifiedAt / time.Second))
		closed += removed.Sum(0, int(comparedFor/time.Second))
	}
	return closed
}

// removeUntimed takes off the model the timewait sockets without a timestamp of the peer that the table does not have:
// they were killed, because connect() does not take them over. One that was created in FIN_WAIT2 is in the table in the
// second in which its peer closed, or a later one than that of its creation, or it is gone after a timeout. So of those
// that were created from a second on there are at most as many as the table has from that second on. All of them are
// older than a second, and do not move while the table is read.
func (u *destinationUse) removeUntimed(all *SuspectCounts, c *suspectCount, timeout time.Duration) {
	first := int64(all.of.comparedFrom() / time.Second)
	last := int64((all.readAt-pipelineTime)/time.Second) - 1 // the transitions of later seconds may be on their way
	young := int64((all.readAt - timeout) / time.Second)
	left := 0.0 // of the table, for older seconds
	for i := len(c.created) - 1; i >= 0; i-- {
		second := first + int64(i)
		left += float64(c.created[i])
		if second > last {
			continue
		}
		in, before := u.UntimedIn(second), 0.0
		if i > 0 {
			before = float64(c.created[i-1]) // the transition may come in the next second
		}
		untimed, removable := in.Least, in.Least
		untimed += in.FinWait2
		if second > young {
			removable += in.FinWait2
		}
		surplus := max(0, min(untimed-left-before, removable))
		left = max(left-(untimed-surplus), -before)
		if surplus > 0 {
			u.RemoveUntimed(second, int32(surplus))
		}
	}
}

// difference is by how much the kernel's number, which is least to most, is certainly above the model's; negative:
// below it. A difference of up to moved proves nothing. ahead is how many the kernel may have more because their
// transitions are still on their way.
func difference(least, most, model, moved, ahead float64) float64 {
	return max(least-moved-ahead-model, 0) + min(most+moved-model, 0)
}

// settle corrects the number of open connections by the kernel's count, once the engine has observed all
// that happened while the kernel counted. It corrects the rate accordingly.
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

// correctTaken corrects the rate by what the kernel's tables have shown since the last such correction:
// added open connections (negative: taken off), added TIME_WAITs, and forgotten connections. A connection
// whose step to TIME_WAIT was lost counts as one that is gone and as one more TIME_WAIT: the two cancel
// out. What remains was taken when the added TIME_WAITs were created; if there are none, it is not
// known when. Without a loss the rate already has all connections that pass the filters.
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
