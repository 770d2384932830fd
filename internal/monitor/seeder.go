package monitor

import (
	"time"

	"github.com/tcpshift/tcpshift/internal/boottime"
	"github.com/tcpshift/tcpshift/internal/limits"
	"github.com/tcpshift/tcpshift/internal/netns"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// seeder reads the sockets that exist at the start. The worker need not wait for that: a host
// may have thousands of namespaces, and one with millions of sockets.
type seeder struct {
	hostReader
	namespaces chan<- netns.Namespace // for the worker
}

// run reads the sockets that match the filter, one namespace after the other: none if the filter
// is on owners, roles or cgroups, which the tables do not show. It passes each namespace to the worker. It
// ends then, or after Close.
func (s *seeder) run() {
	for n := range netns.All {
		select {
		case s.namespaces <- n:
		case <-s.done:
			return
		}
		if s.filter.NeedsOwnerRoleOrCgroup() || !s.filter.MatchesNetns(n.Inode) {
			continue
		}
		if !s.seedFrom(n) {
			return
		}
	}
	s.send(func(e Engine, now time.Duration) { e.SeedingDone(now) })
}

// seedFrom sends what one namespace has: its connections and timewait sockets, and then its
// listeners. It walks the kernel's table of connections only if the kernel's counts say that there
// are any: most namespaces share one table, so with many of them each walk passes the sockets of all.
// It reports false if Close was called meanwhile, true otherwise, also if the namespace could not
// be read.
func (s *seeder) seedFrom(n netns.Namespace) (sent bool) {
	sent = true
	s.report(enter(n, func() (err error) {
		counts, unknown := limits.ReadCounts()
		if unknown == nil && counts.OnlyListeners(0) {
			return nil
		}
		listeners, all, err := s.readListeners(nil)
		if err != nil || unknown != nil || !counts.OnlyListeners(all) || hasChanged(counts) {
			if sent, err = s.seedConnections(n.Inode); err != nil || !sent {
				return err
			}
			if listeners, _, err = s.readListeners(nil); err != nil { // the connections may have taken long
				return err
			}
		}
		if len(listeners.Listeners) > 0 {
			sent = s.send(func(e Engine, now time.Duration) { e.UpdateListeners(now, n.Inode, listeners) })
		}
		return nil
	}))
	return sent
}

// hasChanged reports whether the calling thread's namespace no longer has these counts: a listener that
// was opened or closed meanwhile must not hide a connection.
func hasChanged(before limits.Counts) bool {
	now, err := limits.ReadCounts()
	return err != nil || now != before
}

// seedConnections sends the connections and timewait sockets that match the filter, of the namespace
// that the calling thread is in, batch by batch, and its limits with the first batch. Without such a
// socket it sends neither. It reports false after Close.
func (s *seeder) seedConnections(netns uint32) (sent bool, err error) {
	sent = true
	l, err := s.readLimits(netns) // until they are sent with the first batch
	if err != nil {
		return true, err
	}
	limitsAt := boottime.Now()
	var sockets []tcp.Socket
	flush := func() {
		newLimits, batch := l, sockets
		l, sockets = nil, nil
		if !sent || len(batch) == 0 {
			return
		}
		sent = s.send(func(e Engine, _ time.Duration) {
			if newLimits != nil {
				e.Update(limitsAt, netns, newLimits)
			}
			for i := range batch {
				e.Seed(batch[i].Monotonic, netns, &batch[i])
			}
		})
	}
	err = limits.EachConnectionOrTimeWait(func(socket *tcp.Socket) {
		if !s.filter.MatchesSocket(socket) {
			return
		}
		if sockets == nil {
			sockets = make([]tcp.Socket, 0, batchSize)
		}
		if sockets = append(sockets, *socket); len(sockets) == batchSize {
			flush()
		}
	})
	flush() // after an error, too: the sockets that were read before it
	return sent, err
}
