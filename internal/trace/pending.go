package trace

import (
	"time"

	"github.com/tcpshift/tcpshift/internal/decode"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

const (
	// maxPending bounds the memory for pending ends, to 2 MiB. Further ends do not wait, and
	// count as lost resets.
	maxPending = 4096
	// pendingWait shortens the turn after an end became pending, so that its records are
	// not late.
	pendingWait = 10 * time.Millisecond
)

// pendingEnds are transitions to CLOSE that the event of a reset may follow, which shows
// that this side reset the connection (bpf/reset.h). The kernel sends the reset microseconds
// later. An end is pending until that event, the next event of its socket, or the end
// of the turn after the one in which it was read.
type pendingEnds struct {
	count        int // of both lists, without released ones
	older, newer []*pendingEnd
	bySocket     map[uint64]*pendingEnd // by socketKey
	free         []*pendingEnd
}

type pendingEnd struct {
	event    decode.Event
	key      uint64
	released bool
}

// socketKey is the cookie, or, on a kernel without cookies, a number that seldom is
// another socket's: an end is then released early, or tcp.LateReset.Follows fails.
func socketKey(cookie uint64, netns uint32, local, peer uint16) uint64 {
	if cookie != 0 {
		return cookie
	}
	return uint64(netns)<<32 | uint64(local)<<16 | uint64(peer)
}

func keyOf(t *tcp.Transition) uint64 {
	return socketKey(t.Cookie, t.Netns, t.Local.Port, t.Peer.Port)
}

// add copies e, and reports false if there is no room.
func (p *pendingEnds) add(e *decode.Event) bool {
	if len(p.older)+len(p.newer) >= maxPending {
		return false
	}
	if p.bySocket == nil {
		p.bySocket = make(map[uint64]*pendingEnd)
	}
	end := new(pendingEnd)
	if last := len(p.free) - 1; last >= 0 {
		end, p.free = p.free[last], p.free[:last]
	}
	*end = pendingEnd{event: *e, key: keyOf(&e.Transition)}
	p.newer = append(p.newer, end)
	p.bySocket[end.key] = end
	p.count++
	return true
}

// take releases the end of a socket; nil: none is pending. The event is valid until
// the next call of a method.
func (p *pendingEnds) take(key uint64) *decode.Event {
	end := p.bySocket[key]
	if end == nil {
		return nil
	}
	p.release(end)
	if last := len(p.newer) - 1; last >= 0 && p.newer[last] == end {
		p.newer, p.free = p.newer[:last], append(p.free, end)
	}
	return &end.event
}

func (p *pendingEnds) release(end *pendingEnd) {
	end.released = true
	p.count--
	delete(p.bySocket, end.key)
}

// endTurn writes the ends that were pending when the turn began. It returns the first
// error of write, after which it continues.
func (p *pendingEnds) endTurn(write func(e *decode.Event) error) (first error) {
	for _, end := range p.older {
		if !end.released {
			p.release(end)
			if err := write(&end.event); first == nil {
				first = err
			}
		}
		p.free = append(p.free, end)
	}
	p.older, p.newer = p.newer, p.older[:0]
	return first
}

// writeInOrder writes the event after the end of its socket that is pending, and makes
// the event pending if a reset may follow.
func (l *loop) writeInOrder(e *decode.Event) error {
	t := &e.Transition
	if end := l.pending.take(keyOf(t)); end != nil {
		if err := l.writeEnd(end); err != nil {
			return err
		}
	}
	if !t.ResetAwaited {
		return l.outs.event(e)
	}
	if t.ResetCode != 0 {
		t.ResetReason = l.ResetReasons[t.ResetCode]
	}
	if !t.ResetSentBefore {
		if l.pending.add(e) {
			return nil
		}
		l.outs.totals.earlyEnds++
	}
	return l.writeEnd(e)
}

// writeEnd passes a transition to CLOSE with ResetAwaited to ResetDecided of the observers, and writes it.
func (l *loop) writeEnd(e *decode.Event) error {
	for _, o := range l.observers {
		o.ResetDecided(&e.Transition)
	}
	return l.outs.event(e)
}

// handleReset writes the pending end of the socket, with the reset if that follows it. If no end is pending,
// it was filtered, or is written already.
func (l *loop) handleReset(r *tcp.LateReset) error {
	end := l.pending.take(socketKey(r.Cookie, r.Netns, r.Local.Port, r.Peer.Port))
	if end == nil {
		return nil
	}
	t := &end.Transition
	if r.Follows(t) {
		t.ResetSent, t.ResetCode, t.ResetReason = true, r.Code, l.ResetReasons[r.Code]
		end.Connection.ClosedBy = tcp.ClosedByOf(t)
	}
	return l.writeEnd(end)
}

// writePending writes all ends that are pending.
func (l *loop) writePending() error {
	err := l.pending.endTurn(l.writeEnd)
	if other := l.pending.endTurn(l.writeEnd); err == nil {
		err = other
	}
	return err
}
