package monitor

import (
	"time"

	"github.com/tcpshift/tcpshift/internal/boottime"
	"github.com/tcpshift/tcpshift/internal/detect"
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
	s.send(func(e *detect.Engine, now time.Duration) { e.SeedingDone(now) })
}

// seedFrom sends the sockets of one namespace that match the filter, batch by batch, and its limits with
// the first batch. Without such a socket it sends neither. Then it sends the listeners, if there are any.
// It reports false if Close was called meanwhile, true otherwise, also if the namespace could not be read.
func (s *seeder) seedFrom(n netns.Namespace) (sent bool) {
	sent = true
	var l *tcp.Limits          // until they are sent with the first batch
	var limitsAt time.Duration // when they were read
	var sockets []tcp.Socket
	flush := func() {
		newLimits, batch := l, sockets
		l, sockets = nil, nil
		if !sent || len(batch) == 0 {
			return
		}
		sent = s.send(func(e *detect.Engine, _ time.Duration) {
			if newLimits != nil {
				e.Update(limitsAt, n.Inode, newLimits)
			}
			for i := range batch {
				e.Seed(batch[i].Monotonic, n.Inode, &batch[i])
			}
		})
	}
	// After an error the sockets that were read before it are sent.
	s.report(enter(n, func() (err error) {
		if l, err = s.readLimits(n.Inode); err != nil {
			return err
		}
		limitsAt = boottime.Now()
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
		flush()
		if err == nil && sent {
			sent, err = s.seedListeners(n.Inode)
		}
		return err
	}))
	return sent
}
