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
	first       probe.ProgramCounters // of the primary program; its Fired is that of the tracepoint
	total       probe.ProgramCounters // of all programs
	firedBefore uint64                // at firedAt
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
	l.first, l.total = c[0], c.Sum()
	fired, done := l.first.Fired(), settled(&l.total)
	switch {
	case final:
		l.lostReentry = fired - min(fired, done)
	case at.Sub(l.firedAt) >= settleTime:
		l.lostReentry = max(l.lostReentry, l.firedBefore-min(l.firedBefore, done))
		l.firedBefore, l.firedAt = fired, at
	}

	lost := l.ringFull() + l.ringBusy() + l.lostReentry
	fresh := lost - min(lost, l.lostBefore)
	l.lostBefore = max(lost, l.lostBefore)
	return fresh
}

func (l *kernelLedger) ringFull() uint64 { return l.total.RingFull }
func (l *kernelLedger) ringBusy() uint64 { return l.total.RingBusy }

// settled is how many firings a program of the chain has handled to the end.
func settled(total *probe.ProgramCounters) uint64 {
	return total.OtherProtocol + total.Filtered + total.Unsampled + total.Emitted + total.RingFull + total.RingBusy + deferred(total)
}

// deferred is how many events are deferred and not yet resumed. Each program may resume
// an event that another has deferred, so that while they run the resumption may be
// counted before the deferral.
func deferred(total *probe.ProgramCounters) uint64 {
	return total.Deferred - min(total.Deferred, total.Resumed)
}
