package trace

import (
	"time"

	"github.com/tcpshift/tcpshift/internal/probe"
	"github.com/tcpshift/tcpshift/internal/record"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// ledger keeps the accounts: every firing of the tracepoint ends up in exactly
// one of record.Counts' terms.
type ledger struct {
	read, dropped, written, connections, ends  uint64
	lostTransitions, lostConnections, lostEnds uint64 // to a full queue

	kernel      probe.Counters
	firedBefore uint64 // at firedAt
	firedAt     time.Time
	lostReentry uint64 // as far as it is certain
	kernelLost  uint64 // at the update before
	told        lost
}

// lost is what is missing from the stream, by cause.
type lost struct {
	ringFull, ringBusy, reentry, queueFull, connections, ends uint64
}

// fate is what becomes of what was read from the ring.
type fate int

const (
	unwanted fate = iota
	queueFull
	written
)

// took enters one that was read from the ring. The end of a TIME_WAIT is no firing
// of the tracepoint, and so has an account of its own.
func (l *ledger) took(t *tcp.Transition, f fate) {
	if t.TimeWaitEnd() {
		switch f {
		case written:
			l.ends++
		case queueFull:
			l.lostEnds++
		}
		return
	}
	l.read++
	switch f {
	case written:
		l.written++
	case queueFull:
		l.lostTransitions++
	case unwanted:
		l.dropped++
	}
}

// underWay is how long an event is held to be on its way from one counter to another.
// It takes a microsecond, but a CPU may be taken from the program meanwhile.
const underWay = 2 * tick

// update takes over the kernel's counters and gives how many have been lost in the
// kernel since the last update. While programs run, an event may have entered and not yet come
// out, so that only firings which are underWay old are held to have come out
// by now; once they are detached, final, the sum is exact, and takes back what a
// program that was preempted for longer had made look lost.
func (l *ledger) update(c *probe.Counters, at time.Time, final bool) uint64 {
	switch {
	case final:
		l.lostReentry = c.Primary.Fired() - min(c.Primary.Fired(), settled(c))
	case at.Sub(l.firedAt) >= underWay:
		l.lostReentry = max(l.lostReentry, l.firedBefore-min(l.firedBefore, settled(c)))
		l.firedBefore, l.firedAt = c.Primary.Fired(), at
	}
	l.kernel = *c

	all := l.ringFull() + l.ringBusy() + l.lostReentry
	fresh := all - min(all, l.kernelLost)
	l.kernelLost = max(all, l.kernelLost)
	return fresh
}

// untold gives what has been lost since it was asked before. It does so once.
func (l *ledger) untold() []record.Loss {
	now, told := l.lost(), &l.told
	if now == *told {
		return nil
	}
	var losses []record.Loss
	for _, cause := range []struct {
		name      record.LossCause
		now, told uint64
	}{
		{record.CauseRingFull, now.ringFull, told.ringFull},
		{record.CauseRingBusy, now.ringBusy, told.ringBusy},
		{record.CauseReentry, now.reentry, told.reentry},
	} {
		if cause.now > cause.told {
			losses = append(losses, record.Loss{Lost: cause.now - cause.told, Cause: cause.name})
		}
	}
	queue := record.Loss{
		Cause: record.CauseQueueFull, Lost: now.queueFull - told.queueFull,
		LostConnections: now.connections - told.connections, LostTimeWaitEnds: now.ends - told.ends,
	}
	if queue.Lost+queue.LostConnections+queue.LostTimeWaitEnds > 0 {
		losses = append(losses, queue)
	}
	now.reentry = max(now.reentry, told.reentry) // which the final account may take back
	*told = now
	return losses
}

func (l *ledger) lost() lost {
	return lost{l.ringFull(), l.ringBusy(), l.lostReentry, l.lostTransitions, l.lostConnections, l.lostEnds}
}

func (l *ledger) ringFull() uint64 { return l.kernel.Primary.RingFull + l.kernel.Backup.RingFull }
func (l *ledger) ringBusy() uint64 { return l.kernel.Primary.RingBusy + l.kernel.Backup.RingBusy }

// settled is how many firings have come to an end in one of the two programs.
func settled(c *probe.Counters) uint64 {
	var sum uint64
	for _, p := range [...]*probe.ProgramCounters{&c.Primary, &c.Backup} {
		sum += p.OtherProtocol + p.Filtered + p.Emitted + p.RingFull + p.RingBusy
	}
	return sum + held(c)
}

// held may be released by the other program than the one that held, and while
// programs run its release may have been counted before it was.
func held(c *probe.Counters) uint64 {
	all, released := c.Primary.Deferred+c.Backup.Deferred, c.Primary.Resumed+c.Backup.Resumed
	return all - min(all, released)
}

func (l *ledger) counts() record.Counts {
	first, second := &l.kernel.Primary, &l.kernel.Backup
	return record.Counts{
		Fired:         first.Fired(),
		Entered:       first.Entered,
		Missed:        first.Missed,
		OtherProtocol: first.OtherProtocol + second.OtherProtocol,
		Filtered:      first.Filtered + second.Filtered,
		LostRingFull:  l.ringFull(),
		LostRingBusy:  l.ringBusy(),
		LostReentry:   l.lostReentry,
		LostQueueFull: l.lostTransitions,
		Deferred:      held(&l.kernel),
		Read:          l.read,
		Dropped:       l.dropped,
		Written:       l.written,

		Connections:     l.connections,
		LostConnections: l.lostConnections,
		TimeWaitUnknown: first.TimeWaitUnknown + second.TimeWaitUnknown,

		TimeWaitEnds:     l.ends,
		LostTimeWaitEnds: l.lostEnds,
		TimeWaitEndsLost: first.TimeWaitEndsLost + second.TimeWaitEndsLost,
	}
}
