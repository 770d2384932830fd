package monitor

import (
	"time"

	"github.com/tcpshift/tcpshift/internal/boottime"
	"github.com/tcpshift/tcpshift/internal/detect"
	"github.com/tcpshift/tcpshift/internal/limits"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// maxListeners bounds the listeners in one update.
const maxListeners = 1 << 16

// readListeners reads the listeners that match the filter, of the namespace that the calling
// thread is in, and the connections that wait for accept() on some ports.
func (r *hostReader) readListeners(unaccepted []uint16) (*detect.ListenTable, error) {
	t := &detect.ListenTable{ReadAt: boottime.Now(), KnownOnly: r.filter.NeedsOwnerRoleOrCgroup()}
	busy := false // the counters matter
	err := limits.EachListener(func(l *tcp.Listener) {
		busy = busy || l.Queued > 0 || l.Drops > 0
		switch {
		case !r.filter.MatchesListener(l):
		case len(t.Listeners) < maxListeners:
			t.Listeners = append(t.Listeners, *l)
		default:
			t.LeftOut++
		}
	})
	if err != nil {
		return nil, err
	}
	if busy && len(t.Listeners) > 0 {
		drops, err := limits.ReadListenDrops()
		if err != nil {
			return nil, err
		}
		t.Overflows = drops.Overflows
	}
	if len(unaccepted) > 0 {
		err := limits.EachUnaccepted(unaccepted, func(s tcp.UnacceptedSocket) {
			if len(t.Unaccepted) < maxUnaccepted {
				t.Unaccepted = append(t.Unaccepted, s)
			}
		})
		if err != nil {
			return nil, err
		}
		t.HasUnaccepted = true
	}
	return t, nil
}

// seedListeners sends the listeners of the namespace that the calling thread is in, unless it
// has none. It reports false after Close.
func (s *seeder) seedListeners(netns uint32) (sent bool, err error) {
	t, err := s.readListeners(nil)
	if err != nil || len(t.Listeners) == 0 {
		return true, err
	}
	return s.send(func(e *detect.Engine, now time.Duration) { e.UpdateListeners(now, netns, t) }), nil
}
