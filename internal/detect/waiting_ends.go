package detect

import (
	"math"
	"time"

	"github.com/tcpshift/tcpshift/internal/detect/rate"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// waitingEnds are the sockets in FIN_WAIT2 that the kernel's table has for one destination, by the second in which
// their timers expire: 0 is the second of the reading. The table does not show how long a timeout is, so where the
// sockets have several, it does not show how old a socket is either: the transitions decide, see resolve.
type waitingEnds [tcp.TimeWaitTimeout/time.Second + 4]int32

// add counts one more socket of a table that was read at readAt, and returns e, a new one if it is nil.
func (e *waitingEnds) add(readAt, expiresIn time.Duration) *waitingEnds {
	if e == nil {
		e = &waitingEnds{}
	}
	second := int((readAt+max(0, expiresIn))/time.Second) - int(readAt/time.Second)
	e[min(second, len(e)-1)]++
	return e
}

// seconds returns the counts, nil if e is.
func (e *waitingEnds) seconds() []int32 {
	if e == nil {
		return nil
	}
	return e[:]
}

// resolve calls take with the number of sockets that were created in each second. Of those that expire in one second,
// each timeout has a part in proportion to the sockets that were created so long before. timeout is that of the sockets
// that have none of their own.
func (e *waitingEnds) resolve(r *rate.Estimator, readAt, timeout time.Duration, take func(second int64, count int32)) {
	read := int64(readAt / time.Second)
	all := make([]possibleTimeout, 0, 8)
	for _, own := range append(r.OwnTimeouts(), 0) {
		p := possibleTimeout{own: own, timeout: own}
		if own == 0 {
			p.timeout = timeout
		}
		all = append(all, p)
	}
	for i, count := range e {
		if count > 0 {
			divide(all, r, read, int64(i), count, take)
		}
	}
}

// possibleTimeout is a timeout that a socket of the table may have.
type possibleTimeout struct {
	own, timeout time.Duration // own is 0 for the sockets that have none of their own
	created      float64       // sockets that were created so long before
}

// divide is resolve for the sockets whose timers expire in one second after that of the reading.
func divide(all []possibleTimeout, r *rate.Estimator, read, after int64, count int32, take func(second int64, count int32)) {
	total, oldest := 0.0, read
	for i := range all {
		p := &all[i]
		second := read + after - int64(p.timeout/time.Second)
		p.created = 0
		if second > read {
			continue // it would be of the future
		}
		oldest = min(oldest, second)
		for late := int64(0); late <= latest(p.timeout, after); late++ {
			p.created += r.FinWait2CreatedIn(second-late, p.own)
		}
		total += p.created
	}
	if total == 0 {
		take(oldest, count) // no transition shows them
		return
	}
	carry := 0.0
	for i := range all {
		part := all[i].created / total * float64(count)
		n := math.Round(carry + part)
		carry += part - n
		if n > 0 {
			take(read+after-int64(all[i].timeout/time.Second), int32(n))
		}
	}
}

// latest is how many seconds a timer may be overdue: the table shows all timers that are as if they expired now.
func latest(timeout time.Duration, after int64) int64 {
	if after > 0 {
		return 0
	}
	return int64((min(lateTimers, timeout/8) + time.Second - 1) / time.Second)
}

// resolveTimeouts finds out how old the sockets of ends are, and counts those that are about to end as that.
func (n *suspectCount) resolveTimeouts(all *SuspectCounts, r *rate.Estimator, timeout time.Duration) {
	if n.ends == nil {
		return
	}
	first := int64(all.of.comparedFrom() / time.Second)
	n.ends.resolve(r, all.readAt, timeout, func(second int64, count int32) {
		i := second - first
		if i < 0 {
			n.timeWaits -= int(count)
			n.finWait2 -= int(count)
			return
		}
		if i < int64(len(n.created)) {
			n.created[i] += count
			n.waitingIn[i] += count
			n.oldest = max(n.oldest, all.readAt-time.Duration(second)*time.Second-time.Second/2)
		}
	})
	n.ends = nil
}

// timeWaitKind is the kind of a timewait socket. In FIN_WAIT2 it has a timeout of its own if that is not the one of
// the namespace.
func (ns *namespace) timeWaitKind(t *tcp.Transition) rate.Kind {
	kind := rate.Kind{FinWait2: t.Substate == tcp.FinWait2, Timestamp: t.PeerTimestamp}
	if timeout := max(0, min(t.FinWait2Timeout, rate.TimeWaitHold)); kind.FinWait2 && timeout != ns.finWait2Timeout() {
		kind.Timeout = timeout
	}
	return kind
}

// finWait2Timeout is how long a socket in FIN_WAIT2 that has no timeout of its own waits. While the limits are not
// known it is the kernel's default.
func (ns *namespace) finWait2Timeout() time.Duration {
	if !ns.known {
		return tcp.TimeWaitTimeout
	}
	return min(max(time.Second, ns.limits.FinWait2TimewaitTimeout()), rate.TimeWaitHold)
}
