package monitor

import (
	"time"

	"github.com/tcpshift/tcpshift/internal/detect"
	"github.com/tcpshift/tcpshift/internal/limits"
	"github.com/tcpshift/tcpshift/internal/monotonic"
	"github.com/tcpshift/tcpshift/internal/netns"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// seeder reads the sockets that exist at the start. The worker need not wait for that: a host
// may have thousands of namespaces, and one with millions of sockets.
type seeder struct {
	host
	namespaces chan<- netns.Namespace // for the worker
}

// run reads the sockets that match the filter, one namespace after the other, and ends then, or
// after Close.
func (w *seeder) run() {
	for n := range netns.All {
		select {
		case w.namespaces <- n:
		case <-w.done:
			return
		}
		if w.filter.ByOwner() || !w.filter.MatchesNetns(n.Inode) {
			continue
		}
		if !w.seedFrom(n) {
			return
		}
	}
	w.send(func(e *detect.Engine, now time.Duration) { e.SeedingDone(now) })
}

// seedFrom sends the limits and the sockets of one namespace, batch by batch. It
// reports false after Close.
func (w *seeder) seedFrom(n netns.Namespace) (sent bool) {
	sent = true
	var l *tcp.Limits // until they are sent with the first batch
	var readAt time.Duration
	var sockets []tcp.Socket
	flush := func() {
		newLimits, batch := l, sockets
		l, sockets = nil, nil
		if !sent || len(batch) == 0 {
			return
		}
		sent = w.send(func(e *detect.Engine, _ time.Duration) {
			if newLimits != nil {
				e.Update(readAt, n.Inode, newLimits)
			}
			for i := range batch {
				e.Seed(readAt, n.Inode, &batch[i])
			}
		})
	}
	// After an error the sockets that were read before it are sent.
	w.report(enter(n, func() (err error) {
		if l, err = w.limits(n.Inode); err != nil {
			return err
		}
		readAt = monotonic.Now()
		err = limits.EachSocket(func(s *tcp.Socket) {
			if !w.filter.MatchesEndpoints(s.Local, s.Peer) {
				return
			}
			if sockets == nil {
				sockets = make([]tcp.Socket, 0, batchSize)
			}
			if sockets = append(sockets, *s); len(sockets) == batchSize {
				flush()
			}
		})
		flush()
		return err
	}))
	return sent
}
