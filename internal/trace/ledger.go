package trace

import (
	"github.com/tcpshift/tcpshift/internal/probe"
	"github.com/tcpshift/tcpshift/internal/record"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// ledger keeps the accounts: every firing of the tracepoint ends up in exactly
// one of record.Counts' terms.
type ledger struct {
	read, dropped, written, connections, ends, writtenBytes uint64

	kernel      probe.Counters
	firedBefore uint64 // at the update before
	lostReentry uint64 // as far as it is certain
	reported    map[record.LossCause]uint64
}

// took enters one that was read from the ring. The end of a TIME_WAIT is no firing
// of the tracepoint, and so has an account of its own.
func (l *ledger) took(t *tcp.Transition, written bool) {
	switch {
	case t.TimeWaitEnd() && written:
		l.ends++
	case t.TimeWaitEnd():
	case written:
		l.read++
		l.written++
	default:
		l.read++
		l.dropped++
	}
}

// update takes over the kernel's counters and gives what has been lost since the
// last update. While programs run, an event may have entered and not yet come
// out, so that only firings which are one update old are held to have come out
// by now; once they are detached, final, the sum is exact, and takes back what a
// program that was preempted for longer had made look lost.
func (l *ledger) update(c *probe.Counters, final bool) []record.Loss {
	fired := l.firedBefore
	if final {
		fired = c.First.Fired()
	}
	lost := fired - min(fired, settled(c))
	if !final {
		lost = max(lost, l.lostReentry)
	}
	l.lostReentry = lost
	l.firedBefore = c.First.Fired()
	l.kernel = *c

	var losses []record.Loss
	counts := l.counts()
	for _, cause := range []struct {
		name record.LossCause
		lost uint64
	}{
		{record.CauseRingFull, counts.LostRingFull},
		{record.CauseRingBusy, counts.LostRingBusy},
		{record.CauseReentry, counts.LostReentry},
	} {
		if before := l.reported[cause.name]; cause.lost > before {
			losses = append(losses, record.Loss{Lost: cause.lost - before, Cause: cause.name})
			l.report(cause.name, cause.lost)
		}
	}
	return losses
}

func (l *ledger) report(cause record.LossCause, lost uint64) {
	if l.reported == nil {
		l.reported = make(map[record.LossCause]uint64)
	}
	l.reported[cause] = lost
}

// settled is how many firings have come to an end in one of the two programs.
func settled(c *probe.Counters) uint64 {
	var sum uint64
	for _, p := range [...]*probe.ProgramCounters{&c.First, &c.Second} {
		sum += p.OtherProtocol + p.Filtered + p.Emitted + p.RingFull + p.RingBusy
	}
	return sum + held(c)
}

// held may be released by the other program than the one that held, and while
// programs run its release may have been counted before it was.
func held(c *probe.Counters) uint64 {
	all, released := c.First.Held+c.Second.Held, c.First.Released+c.Second.Released
	return all - min(all, released)
}

func (l *ledger) counts() record.Counts {
	first, second := &l.kernel.First, &l.kernel.Second
	return record.Counts{
		Fired:         first.Fired(),
		Entered:       first.Entered,
		Missed:        first.Missed,
		OtherProtocol: first.OtherProtocol + second.OtherProtocol,
		Filtered:      first.Filtered + second.Filtered,
		LostRingFull:  first.RingFull + second.RingFull,
		LostRingBusy:  first.RingBusy + second.RingBusy,
		LostReentry:   l.lostReentry,
		Held:          held(&l.kernel),
		Read:          l.read,
		Dropped:       l.dropped,
		Written:       l.written,
		WrittenBytes:  l.writtenBytes,

		Connections:     l.connections,
		TimeWaitUnknown: first.WalkBound + second.WalkBound,

		TimeWaitEnds:       l.ends,
		TimeWaitEndsUntold: first.EndUntold + second.EndUntold,
	}
}
