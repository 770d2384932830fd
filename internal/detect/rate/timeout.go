package rate

import "time"

// maxOwn bounds the timeouts that an Estimator distinguishes besides that of the model. The sockets of a further one
// count with the nearest of these, which becomes the mean of both.
const maxOwn = 6

// ownTimeout has the timewait sockets that were created in FIN_WAIT2 with a timeout of their own, such as that of
// TCP_LINGER2.
type ownTimeout struct {
	timeout time.Duration
	count   Counter // by the second of their creation
}

// addOwn counts a socket with a timeout of its own that was created in a second; 0: it has none.
func (e *Estimator) addOwn(second int64, timeout time.Duration) {
	if timeout == 0 {
		return
	}
	of := e.ownOf(timeout)
	of.count.AddAt(second, 1)
}

// ownOf returns the entry of own for a socket with the timeout: the one that has it, a new one if there is none, or the
// nearest if there is no room. That one gets the mean timeout of its sockets, so that a few sockets with many timeouts
// do not take the room of a timeout that many sockets have.
func (e *Estimator) ownOf(timeout time.Duration) (nearest *ownTimeout) {
	for i := range e.own {
		o := &e.own[i]
		if o.timeout == timeout {
			return o
		}
		if nearest == nil || (o.timeout-timeout).Abs() < (nearest.timeout-timeout).Abs() {
			nearest = o
		}
	}
	added := ownTimeout{timeout: timeout}
	added.count.Advance(e.finWait2.newest)
	for i := range e.own {
		if e.own[i].count.Total() == 0 {
			e.own[i] = added
			return &e.own[i]
		}
	}
	if len(e.own) >= maxOwn {
		nearest.timeout += (timeout - nearest.timeout) / time.Duration(nearest.count.Total()+1)
		return nearest
	}
	e.own = append(e.own, added)
	return &e.own[len(e.own)-1]
}

// limitOwn takes sockets of a second off own until these are no more than finWait2 has.
func (e *Estimator) limitOwn(second int64) {
	left := e.finWait2.at(second)
	for i := range e.own {
		count := e.own[i].count.at(second)
		if count > left {
			e.own[i].count.AddAt(second, int32(max(0, left)-count))
		}
		left -= min(left, count)
	}
}

// shortTimeout is below which a second more or less matters: then a part of the oldest second counts, and the mean
// delay of the kernel's timers, which are late by up to an eighth.
const shortTimeout = 20 * time.Second

// TimeoutHold is how long a socket with a timeout occupies its unit on average.
func TimeoutHold(timeout time.Duration) time.Duration {
	if timeout < shortTimeout {
		return timeout + timeout/16
	}
	return timeout
}

// edge is where the end of a hold time lies between the seconds of creation: of those that were created second seconds ago, part
// have not timed out, and all that were created later.
type edge struct {
	second int
	part   float64
}

func (e *Estimator) edgeOf(hold time.Duration) edge {
	if hold >= shortTimeout {
		return edge{second: slotsOf(hold)}
	}
	later := hold - e.now%time.Second
	return edge{int(later/time.Second) + 1, (later % time.Second).Seconds()}
}

// waits is the fraction of the sockets that were created n seconds ago that have not timed out.
func (x edge) waits(n int) float64 {
	switch {
	case n < x.second:
		return 1
	case n == x.second:
		return x.part
	}
	return 0
}

// within adds up what count gives for those that time out in one second of the future: 0 is the next one.
func (x edge) within(second int, count func(n int) float64) float64 {
	n := x.second - second
	return (1-x.part)*count(n-1) + x.part*count(n)
}

// Below, i is the index of an entry of own, or -1: the sockets without a timeout of their own.

// holdOf is how long a socket of i occupies its unit if its peer never closes.
func (e *Estimator) holdOf(i int, m TimeWaitModel) time.Duration {
	if i < 0 {
		return min(m.FinWait2Hold, m.Hold)
	}
	return min(TimeoutHold(e.own[i].timeout), m.Hold)
}

// timeoutOf is the timeout of i, where timeout is that of the sockets that have none of their own.
func (e *Estimator) timeoutOf(i int, timeout time.Duration) time.Duration {
	if i < 0 {
		return timeout
	}
	return e.own[i].timeout
}

// createdAgo is how many sockets of i were created n seconds ago.
func (e *Estimator) createdAgo(i, n int) float64 {
	if i >= 0 {
		return e.own[i].count.ago(n)
	}
	count := e.finWait2.ago(n)
	for i := range e.own {
		count -= e.own[i].count.ago(n)
	}
	return max(0, count)
}

// countOf is how many sockets of i were created within the newest seconds.
func (e *Estimator) countOf(i, seconds int) (count float64) {
	for n := range seconds {
		count += e.createdAgo(i, n)
	}
	return count
}

// closes is the fraction of the sockets of i, with a timeout, whose peers close before it.
func (m *TimeWaitModel) closes(timeout time.Duration, i int) float64 {
	if i >= 0 && m.FinDelay >= timeout {
		return 0
	}
	return m.FinFraction
}

// shortest is the shortest hold time of a socket in FIN_WAIT2.
func (e *Estimator) shortest(m TimeWaitModel) time.Duration {
	least := m.FinWait2Hold
	for i := range e.own {
		least = min(least, e.holdOf(i, m))
	}
	return least
}

// finWait2Left is how many of the sockets that were created in FIN_WAIT2 n seconds ago have not timed out.
func (e *Estimator) finWait2Left(n int, m TimeWaitModel) (count float64) {
	for i := -1; i < len(e.own); i++ {
		timeout, created := e.holdOf(i, m), e.createdAgo(i, n)
		waits := e.edgeOf(timeout).waits(n)
		count += created * (waits + (1-waits)*m.closes(timeout, i))
	}
	return count
}

// finWait2Closed is how many of the sockets that were created in FIN_WAIT2 n seconds ago have peers that close in time.
func (e *Estimator) finWait2Closed(n int, m TimeWaitModel) (count float64) {
	for i := -1; i < len(e.own); i++ {
		count += m.closes(e.holdOf(i, m), i) * e.createdAgo(i, n)
	}
	return count
}

// running is the fraction of the sockets that were created in FIN_WAIT2 n seconds ago whose timeout is longer.
func (e *Estimator) running(n int, m TimeWaitModel) float64 {
	all, count := e.finWait2.ago(n), 0.0
	for i := -1; i < len(e.own); i++ {
		count += e.edgeOf(e.holdOf(i, m)).waits(n) * e.createdAgo(i, n)
	}
	if all <= 0 {
		return 1
	}
	return min(1, count/all)
}

// notTimedOut is how many of the sockets that were created in FIN_WAIT2 n seconds ago have no timeout of their own, or
// one that is longer.
func (e *Estimator) notTimedOut(n int) float64 {
	count := e.finWait2.ago(n)
	for i := range e.own {
		count -= (1 - e.edgeOf(TimeoutHold(e.own[i].timeout)).waits(n)) * e.own[i].count.ago(n)
	}
	return max(0, count)
}

// FinWait2Running is how many timewait sockets were created in FIN_WAIT2 no longer ago than their timeout, which is
// timeout if they have none of their own, and late.
func (e *Estimator) FinWait2Running(timeout, late time.Duration) (count int64) {
	for i := -1; i < len(e.own); i++ {
		count += int64(e.countOf(i, slotsOf(e.timeoutOf(i, timeout)+late)))
	}
	return count
}

// FinWait2TimedOut is how many timewait sockets were created in FIN_WAIT2 within a time, and longer ago than their
// timeout (see FinWait2Running) and late.
func (e *Estimator) FinWait2TimedOut(within, timeout, late time.Duration) (count int64) {
	for i := -1; i < len(e.own); i++ {
		count += int64(max(0, e.countOf(i, slotsOf(within))-e.countOf(i, slotsOf(e.timeoutOf(i, timeout)+late))))
	}
	return count
}

// HasOwnTimeouts reports whether some of the sockets that were created in FIN_WAIT2 have a timeout of their own.
func (e *Estimator) HasOwnTimeouts() bool { return len(e.own) > 0 }

// OwnTimeouts returns the timeouts that sockets have of their own.
func (e *Estimator) OwnTimeouts() []time.Duration {
	timeouts := make([]time.Duration, len(e.own))
	for i := range e.own {
		timeouts[i] = e.own[i].timeout
	}
	return timeouts
}

// FinWait2CreatedIn is how many sockets were created in FIN_WAIT2 in a second with a timeout of their own; 0: with none.
func (e *Estimator) FinWait2CreatedIn(second int64, timeout time.Duration) float64 {
	n := int(e.finWait2.newest - second)
	if timeout == 0 {
		return e.createdAgo(-1, n)
	}
	for i := range e.own {
		if e.own[i].timeout == timeout {
			return e.createdAgo(i, n)
		}
	}
	return 0
}

// ending is a fraction of the sockets that are created, and when they time out.
type ending struct {
	share float64
	after time.Duration
}

type endings [maxOwn + 1]ending

// passed is what fraction of the units that are taken from now on is released in one second of the future by timeouts:
// see passed.
func (all *endings) passed(second int) (sum float64) {
	for i := range all {
		if x := &all[i]; x.share > 0 {
			sum += x.share * passed(second, x.after)
		}
	}
	return sum
}

// total is the sum of the shares, and that of the seconds that they occupy a unit.
func (all *endings) total() (share, seconds float64) {
	for i := range all {
		share += all[i].share
		seconds += all[i].share * all[i].after.Seconds()
	}
	return share, seconds
}

// releasedByTimers is released where connect() takes over no TIME_WAIT.
func (e *Estimator) releasedByTimers(second int, m TimeWaitModel) (count float64) {
	// What was created hold-1-second slots ago is released in this second.
	hold, last := slotsOf(m.Hold), slotsOf(m.Hold)+slotsOf(m.FinDelay)-1-second
	for i := range e.own {
		timeout := e.holdOf(i, m)
		closes := m.closes(timeout, i)
		count += (1-closes)*e.edgeOf(timeout).within(second, func(n int) float64 { return e.createdAgo(i, n) }) + closes*e.createdAgo(i, last)
	}
	timeout := e.edgeOf(min(m.FinWait2Hold, m.Hold))
	if m.FinDelay > 0 || timeout.second == hold {
		// Those whose peers have not closed yet are released later than within one hold time.
		unclosed := timeout.within(second, func(n int) float64 { return e.createdAgo(-1, n) })
		return count + e.timeWaits.ago(hold-1-second) + m.FinFraction*e.createdAgo(-1, last) + (1-m.FinFraction)*unclosed
	}
	left := func(n int) float64 { return max(0, e.timeWaits.ago(n)+m.FinFraction*e.createdAgo(-1, n)) } // see unexpired
	return count + left(hold-1-second) + timeout.within(second, func(n int) float64 {
		return e.timeWaits.ago(n) + e.createdAgo(-1, n) - left(n)
	})
}

// releasedUnclosed is how many more units are released in one second of the future by the timeouts of sockets in
// FIN_WAIT2, where connect() takes over TIME_WAITs, than if those without a timestamp all ended after Hold.
func (e *Estimator) releasedUnclosed(i, second int, m TimeWaitModel) (count float64) {
	hold, timeout := slotsOf(m.Hold), e.edgeOf(e.holdOf(i, m))
	part := func(n int) float64 { return e.createdAgo(i, n) / max(1, e.finWait2.ago(n)) }
	if n := hold - 1 - second; timeout.second < hold && n >= 0 {
		count -= part(n) * e.untimedUnclosed(n, m) // they are gone already, or go with the next
	}
	return count + timeout.within(second, func(n int) (ends float64) {
		if running := e.running(n, m); running > 0 && n >= 0 {
			ends = part(n) / running * e.waiting(n, m)
		}
		if timeout.second < hold {
			ends += part(n) * e.untimedUnclosed(n, m)
		}
		return ends
	})
}
