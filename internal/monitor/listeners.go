package monitor

import (
	"github.com/tcpshift/tcpshift/internal/boottime"
	"github.com/tcpshift/tcpshift/internal/detect"
	"github.com/tcpshift/tcpshift/internal/limits"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// maxListeners bounds the listeners in one update.
const maxListeners = 1 << 16

// readListeners reads the listeners that match the filter, of the namespace that the calling
// thread is in, and the connections that wait for accept() on some ports. all is the number of
// listeners there, whether they match or not.
func (r *hostReader) readListeners(unaccepted []uint16) (t *detect.ListenTable, all int, err error) {
	t = &detect.ListenTable{ReadAt: boottime.Now(), KnownOnly: r.filter.NeedsOwnerRoleOrCgroup()}
	busy := false // the counters matter
	err = limits.EachListener(func(l *tcp.Listener) {
		all++
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
		return nil, 0, err
	}
	if busy && len(t.Listeners) > 0 {
		drops, err := limits.ReadListenDrops()
		if err != nil {
			return nil, 0, err
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
			return nil, 0, err
		}
		t.HasUnaccepted = true
	}
	return t, all, nil
}
