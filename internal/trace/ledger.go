package trace

import (
	"time"

	"github.com/tcpshift/tcpshift/internal/probe"
)

// settleTime is how long an event may take from one of the kernel's counters to the
// next. It takes a microsecond, but the program may lose its CPU meanwhile.
const settleTime = 2 * maxWait

// kernelLedger accounts for the firings of the tracepoint. Each of them ends in
// exactly one of the terms of record.Counts.
type kernelLedger struct {
	counters    probe.Counters
	firedBefore uint64 // at firedAt
	firedAt     time.Time
	lostReentry uint64 // only what is certain
	lostBefore  uint64 // in the kernel, at the last update
}

// update takes over the kernel's counters and returns how many events have been lost
// in the kernel since the last update. While the programs run, an event may have been
// counted as entered and not yet under what became of it, so that a firing counts as
// lost only once it is settleTime old. With the programs detached (final) the sum is
// exact: it takes back events that only looked lost because their program was
// preempted for longer.
func (l *kernelLedger) update(c *probe.Counters, at time.Time, final bool) uint64 {
	switch {
	case final:
		l.lostReentry = c.Primary.Fired() - min(c.Primary.Fired(), settled(c))
	case at.Sub(l.firedAt) >= settleTime:
		l.lostReentry = max(l.lostReentry, l.firedBefore-min(l.firedBefore, settled(c)))
		l.firedBefore, l.firedAt = c.Primary.Fired(), at
	}
	l.counters = *c

	lost := l.ringFull() + l.ringBusy() + l.lostReentry
	fresh := lost - min(lost, l.lostBefore)
	l.lostBefore = max(lost, l.lostBefore)
	return fresh
}

func (l *kernelLedger) ringFull() uint64 {
	return l.counters.Primary.RingFull + l.counters.Backup.RingFull
}
func (l *kernelLedger) ringBusy() uint64 {
	return l.counters.Primary.RingBusy + l.counters.Backup.RingBusy
}

// settled is how many firings one of the two programs has handled to the end.
func settled(c *probe.Counters) uint64 {
	var sum uint64
	for _, p := range [...]*probe.ProgramCounters{&c.Primary, &c.Backup} {
		sum += p.OtherProtocol + p.Filtered + p.Emitted + p.RingFull + p.RingBusy
	}
	return sum + deferred(c)
}

// deferred is how many events are deferred and not yet resumed. Either program may
// resume an event that the other has deferred, so that while they run the resumption may
// be counted before the deferral.
func deferred(c *probe.Counters) uint64 {
	all, resumed := c.Primary.Deferred+c.Backup.Deferred, c.Primary.Resumed+c.Backup.Resumed
	return all - min(all, resumed)
}
