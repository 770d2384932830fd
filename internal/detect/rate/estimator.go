// Package rate estimates how much of a resource connections occupy, how fast they
// take more of it, and when it is exhausted. It must not know which resource that
// is, decide whether to alert, or read clocks.
//
// counter.go counts per slot of time. estimator.go is the model of what is occupied, finwait2.go the part of it about
// sockets that wait for the peer's FIN. recent.go finds the rate at which more is taken. forecast.go predicts when a
// capacity is exhausted, and tests how far the prediction can be trusted.
package rate

import (
	"math"
	"time"
)

const (
	// TimeWaitHold is how long a TIME_WAIT occupies its port: TCP_TIMEWAIT_LEN, which is
	// 60 s (include/net/tcp.h), and the mean delay of the kernel's coarse timers: 1 s,
	// between 0 and 2 s with 250 ticks a second.
	TimeWaitHold = 61 * time.Second
	// Step is the resolution of rates.
	Step = 250 * time.Millisecond
	// MaxWindow and minWindow bound the windows that a rate is taken over.
	MaxWindow = 16 * time.Second
	minWindow = Step

	maxWindowSteps = int(MaxWindow / Step)
)

// Estimator models one resource that connections occupy, such as the local ports for
// one destination: a connection occupies one unit while it is open, and its TIME_WAIT
// occupies the unit for a further while. The zero value is ready for use. Times are
// CLOCK_BOOTTIME. An event may come up to 16 s late: it counts at its own time. An Estimator is
// for one goroutine.
type Estimator struct {
	since time.Duration // the first present
	now   time.Duration // the present

	open      int64   // connections that are open or being opened
	step      int64   // number of the present step
	taken     Counter // units taken less units given back without a TIME_WAIT, by steps
	timed     Counter // timewait sockets with a timestamp of the peer, by the step of their creation
	timeWaits Counter // timewait sockets that were created in TIME_WAIT, by the second
	finWait2  Counter // timewait sockets that were created in FIN_WAIT2, because the peer had not closed yet, by the second
	untimed   Counter // timewait sockets of both substates without a timestamp of the peer, by the second

	own []ownTimeout // those of finWait2 that have a timeout of their own, by the timeout
}

// Kind is what distinguishes timewait sockets.
type Kind struct {
	FinWait2  bool // the substate at its creation is FIN_WAIT2: the peer has not closed yet
	Timestamp bool // the peer has sent a TCP timestamp
	// Timeout is after which time a socket in FIN_WAIT2 ends if the peer does not close; 0: after
	// TimeWaitModel.FinWait2Hold.
	Timeout time.Duration
}

// TimeWaitModel is how long a TIME_WAIT occupies its unit: its hold time.
type TimeWaitModel struct {
	Hold         time.Duration // of the substate TIME_WAIT
	FinWait2Hold time.Duration // of the substate FIN_WAIT2, if the peer never closes; see also Kind.Timeout
	// FinFraction is the fraction, 0 to 1, of the timewait sockets created in FIN_WAIT2 that get
	// the peer's FIN after all. Then their substate is TIME_WAIT, and Hold applies.
	FinFraction float64
	// ReuseAfter is when connect() takes over a TIME_WAIT that has a timestamp of the peer;
	// 0: never. It does not take over one without a timestamp, nor, without ReusesFinWait2, one in
	// FIN_WAIT2.
	ReuseAfter time.Duration
	// ReusesFinWait2 means that connect() also takes over those in FIN_WAIT2.
	ReusesFinWait2 bool
	// FinDelay is how long the peers take to close those that are created in FIN_WAIT2: connect()
	// takes them over that much later, or they end that much later.
	FinDelay time.Duration
	// Waiting has the timewait sockets that still are in FIN_WAIT2, by the second of their creation, where connect()
	// takes over the others; nil: none is known. It has those from before its newest second, and FinFraction
	// applies to the others.
	Waiting *Counter
	// Scale corrects the number of TIME_WAITs: what the kernel counts, divided by what
	// the model gives.
	Scale float64
	// TimeWaitOffset and OpenOffset are how many more TIME_WAITs and connections the kernel
	// has than the model gives, less than 0 if it has fewer. These TIME_WAITs are of unknown
	// age: they are released evenly within Hold.
	TimeWaitOffset, OpenOffset float64
}

// Advance moves the model on to the present. Every method with a parameter now calls it. All other methods
// work on the model as the last call of Advance has left it.
func (e *Estimator) Advance(now time.Duration) {
	if e.since == 0 {
		e.since = now
	}
	e.now = max(e.now, now)
	step := int64(e.now / Step)
	if step == e.step {
		return
	}
	e.step = step
	e.taken.Advance(step)
	e.timed.Advance(step)
	second := int64(e.now / time.Second)
	e.timeWaits.Advance(second)
	e.finWait2.Advance(second)
	e.untimed.Advance(second)
	for i := range e.own {
		e.own[i].count.Advance(second)
	}
}

// Opened counts one more connection.
func (e *Estimator) Opened(now time.Duration) {
	e.Advance(now)
	e.open++
	e.take(now, 1)
}

// take counts n units taken at a time, which may be before the present: an event may come late.
func (e *Estimator) take(at time.Duration, n int32) {
	if at >= e.now {
		e.taken.Add(n)
	} else {
		e.taken.AddAt(int64(at/Step), n)
	}
}

// OpenedEarlier counts one more connection that was opened before the estimator
// began: it occupies a unit, and does not count for the rate.
func (e *Estimator) OpenedEarlier(now time.Duration) {
	e.Advance(now)
	e.open++
}

// Closed counts one connection less, which left no TIME_WAIT. If no open connection is counted, it was opened
// before the estimator began, and Closed ignores it: see GaveBack.
func (e *Estimator) Closed(now time.Duration) {
	e.Advance(now)
	if e.open > 0 { // else it was opened before the estimator began
		e.open--
		e.take(now, -1)
	}
}

// GaveBack counts a unit that was given back without a TIME_WAIT, by a connection that does not count
// as open because it was opened before the estimator began.
func (e *Estimator) GaveBack(now time.Duration) {
	e.Advance(now)
	e.take(now, -1)
}

// AddOpen counts n more open connections, n >= 0, which opened at an unknown time. They do not count for the
// rate. See ForgetOpen for the contrary.
func (e *Estimator) AddOpen(now time.Duration, n int64) {
	e.Advance(now)
	e.open += n
}

// CreatedIn is how many of the TIME_WAITs that began in a second still occupy a unit now, by the model. A timewait
// socket that was created in FIN_WAIT2 begins its TIME_WAIT when its peer closes. CreatedIn assumes that connect()
// takes over none. The second must be less than m.Hold ago: CreatedIn counts older ones, too.
func (e *Estimator) CreatedIn(second int64, m TimeWaitModel) float64 {
	n, delay := int(e.timeWaits.newest-second), slotsOf(m.FinDelay)
	finWait2 := e.finWait2.ago(n)
	switch {
	case delay > 0 && n < delay:
		finWait2 = e.finWait2Left(n, m) + e.finWait2Closed(n+delay, m) // the peers of the latter have closed in that second
	case delay > 0:
		finWait2 = e.finWait2Closed(n+delay, m)
	case n >= e.edgeOf(min(e.shortest(m), m.Hold)).second:
		return e.unexpired(n, m)
	}
	return e.timeWaits.ago(n) + finWait2
}

// CorrectTimeWaits adds n timewait sockets, which may be negative, to those that were created in a second, within the
// last 64 s. finWait2 of them, 0 to n, were created in FIN_WAIT2. If they are untimed, they have no timestamp of the peer.
func (e *Estimator) CorrectTimeWaits(second int64, n, finWait2 int32, untimed bool) {
	e.timeWaits.AddAt(second, n-finWait2)
	e.finWait2.AddAt(second, finWait2)
	if untimed {
		e.untimed.AddAt(second, n)
	}
}

// RemoveUntimed takes off n timewait sockets, n >= 0, of those without a timestamp of the peer that were created in
// a second: first those that were certainly created in the substate TIME_WAIT.
func (e *Estimator) RemoveUntimed(second int64, n int32) {
	in := e.UntimedIn(second)
	closed := min(n, int32(in.Least))
	finWait2 := min(n-closed, int32(e.finWait2.at(second)))
	e.untimed.AddAt(second, -n)
	e.finWait2.AddAt(second, -finWait2)
	e.limitOwn(second)
	e.timeWaits.AddAt(second, finWait2-n)
}

// CorrectTaken adds n units, which may be negative, to those that were taken since a time. It spreads them
// evenly, because their connections were not observed, and leaves out those from before MaxWindow.
func (e *Estimator) CorrectTaken(since time.Duration, n int64) {
	steps := max(1, int64((e.now-since)/Step))
	used := min(steps, int64(maxWindowSteps))
	n = n * used / steps
	for i := range used {
		e.taken.AddAt(e.step-i, int32(n*(i+1)/used-n*i/used))
	}
}

// CorrectTakenAs adds units to those that were taken, in each second within MaxWindow: part times the
// count that seconds, a Counter with a slot for each second, has of that second.
func (e *Estimator) CorrectTakenAs(seconds *Counter, part float64) {
	const steps = int64(time.Second / Step)
	carry := 0.0
	for step := e.step - int64(maxWindowSteps) + 1; step <= e.step; step++ {
		second := step / steps
		share := part * seconds.at(second) / float64(min(steps, e.step-second*steps+1)) // the present second is not over
		n := math.Round(carry + share)
		carry += share - n
		e.taken.AddAt(step, int32(n))
	}
}

// ForgetOpen counts n open connections less, n >= 0, or all if there are fewer. They ended at an unknown time, so
// the rate stays as it is.
func (e *Estimator) ForgetOpen(now time.Duration, n int64) {
	e.Advance(now)
	e.open = max(0, e.open-n)
}

// ClosedToTimeWait counts one connection less, which left a TIME_WAIT. If no open
// connection is counted, it was opened before the estimator began: its unit then counts
// as newly taken.
func (e *Estimator) ClosedToTimeWait(now time.Duration, kind Kind) {
	e.Advance(now)
	if e.open > 0 {
		e.open--
	} else {
		e.take(now, 1)
	}
	if now < e.now {
		e.TimeWaitCreated(now, kind)
		return
	}
	// This is TimeWaitCreated at the present, without its divisions.
	if kind.FinWait2 {
		e.finWait2.Add(1)
		e.addOwn(e.finWait2.newest, kind.Timeout)
	} else {
		e.timeWaits.Add(1)
	}
	if kind.Timestamp {
		e.timed.Add(1)
	} else {
		e.untimed.Add(1)
	}
}

// TimeWaitCreated counts a timewait socket that was created at a time up to 64 s ago. It ignores an older
// one, which has ended. It does not advance the model, and counts nothing for the rate.
func (e *Estimator) TimeWaitCreated(at time.Duration, kind Kind) {
	second := int64(at / time.Second)
	if kind.FinWait2 {
		e.finWait2.AddAt(second, 1)
		e.addOwn(second, kind.Timeout)
	} else {
		e.timeWaits.AddAt(second, 1)
	}
	if kind.Timestamp {
		e.timed.AddAt(int64(at/Step), 1)
	} else {
		e.untimed.AddAt(second, 1)
	}
}

// Age is the time from the first call of Advance to the last one.
func (e *Estimator) Age() time.Duration { return e.now - e.since }

// OpenCount is the number of connections that are open or being opened.
func (e *Estimator) OpenCount() int64 { return e.open }

// RecordedTimeWaits is the number of timewait sockets that were created within the last 64 s,
// by their substate at creation. Some may have ended.
func (e *Estimator) RecordedTimeWaits() (timeWait, finWait2 int64) {
	return e.timeWaits.Total(), e.finWait2.Total()
}

// Idle reports whether nothing is left to estimate: no connection is open, no timewait socket was created
// within the last 64 s, the units taken and given back within MaxWindow cancel out, and Age is more than
// MaxWindow.
func (e *Estimator) Idle() bool {
	return e.open == 0 && e.timeWaits.Total() == 0 && e.finWait2.Total() == 0 &&
		e.Age() > MaxWindow && e.taken.Sum(0, maxWindowSteps) == 0
}

// ClosedTimeWaitCount is how many timewait sockets were created in the substate TIME_WAIT within a
// time, up to 64 s: the peer's FIN had come already, whichever side closed first. It is 0 if
// CorrectTimeWaits has taken off more than were created.
func (e *Estimator) ClosedTimeWaitCount(within time.Duration) int64 {
	return max(0, e.timeWaits.Sum(0, slotsOf(within)))
}

// CreatedWithin is how many timewait sockets were created within a time, up to 64 s.
func (e *Estimator) CreatedWithin(d time.Duration) int64 {
	return e.timeWaits.Sum(0, slotsOf(d)) + e.finWait2.Sum(0, slotsOf(d))
}

// UntimedCount is how many timewait sockets without a timestamp of the peer were created
// within a time, up to 64 s.
func (e *Estimator) UntimedCount(within time.Duration) int64 {
	return e.untimed.Sum(0, slotsOf(within))
}

// Untimed counts the timewait sockets without a timestamp of the peer that were created in one second.
type Untimed struct {
	Least, Most float64 // how many were not created in FIN_WAIT2, at least and at most
	FinWait2    float64 // how many were created in FIN_WAIT2, at most
}

// UntimedIn gives bounds for how many timewait sockets without a timestamp of the peer were created in
// one second, by their substate at creation: the counters have the number without a timestamp and the
// number of each substate, but not both together. second counts from the zero of the times that Advance
// takes. All bounds are 0 for a second that the counters do not keep: one more than 64 s ago, or to come.
func (e *Estimator) UntimedIn(second int64) Untimed {
	untimed, finWait2 := e.untimed.at(second), e.finWait2.at(second)
	closed := max(0, e.timeWaits.at(second)) // less than 0 after a correction for sockets that were created in FIN_WAIT2
	return Untimed{Least: max(0, untimed-finWait2), Most: min(untimed, closed), FinWait2: min(untimed, finWait2)}
}

// TimeWaits is how many units TIME_WAITs occupy by the model.
func (e *Estimator) TimeWaits(m TimeWaitModel) float64 {
	return max(0, e.modelledTimeWaits(m)+m.TimeWaitOffset)
}

func (e *Estimator) modelledTimeWaits(m TimeWaitModel) float64 {
	hold, timeout := slotsOf(m.Hold), e.edgeOf(min(e.shortest(m), m.Hold)).second
	if m.reuses() {
		count := e.TimedWithin(m.ReuseAfter) + e.delayedWithin(m.ReuseAfter, m) + float64(e.untimed.Sum(0, hold))
		for n := slotsOf(m.ReuseAfter); n < hold && m.FinFraction < 1; n++ {
			count += e.waiting(n, m)
		}
		for n := timeout; n < hold && m.FinFraction < 1; n++ {
			count -= (1 - e.running(n, m)) * e.untimedUnclosed(n, m)
		}
		return count * m.Scale
	}
	count := float64(e.timeWaits.Sum(0, timeout) + e.finWait2.Sum(0, timeout))
	for n := timeout; n < hold; n++ {
		count += e.unexpired(n, m)
	}
	for n := hold; n < min(slots, hold+slotsOf(m.FinDelay)); n++ {
		count += e.finWait2Closed(n, m)
	}
	return count * m.Scale
}

// TimedWithin is how many timewait sockets with a timestamp were created within a time, up to 64 s.
// Up to 15 s it counts whole steps and a part of the oldest one; beyond that, whole seconds.
func (e *Estimator) TimedWithin(d time.Duration) float64 {
	if steps := int(d / Step); steps < slots-1 {
		span := time.Duration(steps)*Step + e.now%Step // of the newest steps+1
		return float64(e.timed.Sum(0, steps+1)) - e.timed.ago(steps)*float64(min(span-d, Step))/float64(Step)
	}
	n := slotsOf(d)
	return max(0, float64(e.timeWaits.Sum(0, n)+e.finWait2.Sum(0, n)-e.untimed.Sum(0, n)))
}

// Occupancy is how many units open connections and TIME_WAITs occupy now, by the model.
func (e *Estimator) Occupancy(m TimeWaitModel) float64 {
	return e.Connections(m) + e.TimeWaits(m)
}

// Connections is how many connections are open or being opened, by the model.
func (e *Estimator) Connections(m TimeWaitModel) float64 {
	return max(0, float64(e.open)+m.OpenOffset)
}

// slotsOf rounds a duration to seconds, at most those that a Counter keeps.
func slotsOf(d time.Duration) int {
	return min(slots, int((d+time.Second/2)/time.Second))
}
