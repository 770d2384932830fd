package trace

import "github.com/tcpshift/tcpshift/internal/decode"

// handleUpdate writes what a connection that lives has done so far. Observers and the summary do not get it: they
// count the connection at its end. The socket may have had another connection before, whose end is pending: it
// comes first.
func (l *loop) handleUpdate(e *decode.Event) error {
	l.idle = 0
	t := &e.Transition
	if l.OwnSockets != nil && l.OwnSockets.Has(t.Cookie) {
		return nil
	}
	t.Time = l.clock.wall(t.Monotonic)
	l.findCgroup(t)
	if e.Connection.OpenedAt != 0 {
		e.Connection.Opened = l.clock.wall(e.Connection.OpenedAt)
	}
	if l.pending.count > 0 {
		if end := l.pending.take(keyOf(t)); end != nil {
			if err := l.writeEnd(end); err != nil {
				return err
			}
		}
	}
	return l.outs.update(e)
}
