package rate

import "time"

// FinWait2Count is how many timewait sockets were created in FIN_WAIT2 within a time, up
// to 64 s.
func (e *Estimator) FinWait2Count(within time.Duration) int64 {
	return e.finWait2.Sum(0, slotsOf(within))
}

// FinWait2In is how many timewait sockets were created in FIN_WAIT2 in a second, which counts from the zero of the times
// that Advance takes.
func (e *Estimator) FinWait2In(second int64) float64 { return e.finWait2.at(second) }

// TimeForFinWait2 is the shortest time, up to ago before now, within which count timewait sockets were created in
// FIN_WAIT2, without those that a timeout of their own has ended; about 64 s if fewer were. In each second they count as
// created evenly.
func (e *Estimator) TimeForFinWait2(count int64, ago time.Duration) time.Duration {
	seconds, left, later := 0.0, float64(count), max(0, ago).Seconds()
	length := (e.now % time.Second).Seconds() // of the newest slot; then a second
	for n := 0; n < slots && left > 0; n++ {
		part := min(length, later) // of this second, which comes after that time
		later -= part
		created := e.notTimedOut(n) * (length - part) / max(length, 1e-9)
		seconds += (length - part) * min(1, left/max(1, created))
		left -= created
		length = 1
	}
	return time.Duration(seconds * float64(time.Second))
}

// unexpired is how many of the timewait sockets that were created n seconds ago are left, where connect() takes over
// none, after the first timeout and before Hold. If more were taken off than were created in TIME_WAIT, the others of
// these were in FIN_WAIT2.
func (e *Estimator) unexpired(n int, m TimeWaitModel) float64 {
	return max(0, e.timeWaits.ago(n)+e.finWait2Left(n, m))
}

// waiting is how many of the sockets with a timestamp that were created in FIN_WAIT2, n
// seconds ago, still wait for the peer's FIN and have not timed out. It is 0 if connect() takes them over.
func (e *Estimator) waiting(n int, m TimeWaitModel) float64 {
	created := max(0, e.finWait2.ago(n)-e.untimed.ago(n))
	second := e.finWait2.newest - int64(n)
	switch {
	case m.ReusesFinWait2 || created == 0:
		return 0
	case m.Waiting != nil && second < m.Waiting.newest: // it has those without a timestamp as well
		return min(e.running(n, m), m.Waiting.at(second)/e.finWait2.ago(n)) * created
	}
	return e.running(n, m) * (1 - m.FinFraction) * created
}

// untimedUnclosed is how many of the sockets without a timestamp that were created n seconds ago
// were in FIN_WAIT2, and have peers that never close.
func (e *Estimator) untimedUnclosed(n int, m TimeWaitModel) float64 {
	return (1 - m.FinFraction) * min(e.finWait2.ago(n), e.untimed.ago(n))
}

// delayedWithin is how many more timewait sockets with a timestamp occupy a unit than those that
// were created within a time, because their peers take FinDelay to close.
func (e *Estimator) delayedWithin(d time.Duration, m TimeWaitModel) float64 {
	if m.FinDelay == 0 {
		return 0
	}
	return e.timedFinWait2Within(d+m.FinDelay) - e.timedFinWait2Within(d)
}

// timedFinWait2Within is how many timewait sockets with a timestamp were created in FIN_WAIT2
// within a time, up to 64 s, without those that a timeout of their own has ended. It counts whole seconds and a part of
// the oldest one.
func (e *Estimator) timedFinWait2Within(d time.Duration) float64 {
	return e.within(d, func(n int) float64 { return min(e.notTimedOut(n), max(0, e.finWait2.ago(n)-e.untimed.ago(n))) })
}

// FinWait2Within is FinWait2Count with a part of the oldest second, and without the sockets that a timeout of their own
// has ended.
func (e *Estimator) FinWait2Within(d time.Duration) float64 { return e.within(d, e.notTimedOut) }

// within adds up what happened n seconds ago, for the seconds within a time and a part of the oldest one.
func (e *Estimator) within(d time.Duration, ago func(n int) float64) (count float64) {
	length := e.now % time.Second // of the newest slot; then a second
	for n := 0; n < slots && d > 0; n++ {
		part := 1.0
		if d < length {
			part = float64(d) / float64(length)
		}
		count += part * ago(n)
		d -= length
		length = time.Second
	}
	return count
}
