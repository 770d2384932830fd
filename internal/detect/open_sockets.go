package detect

import (
	"time"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

const (
	// maxOpenKeys bounds the destinations in OpenSockets, which take about 6 MiB then.
	maxOpenKeys = 1 << 16
	// openSettles is how long the kernel's table waits until it is compared with the model: the engine
	// must have observed all that happened while the table was read.
	openSettles = time.Second
)

// OpenSockets counts the connections of one namespace in the kernel's table. The caller leaves out those in
// SYN_RECV and LAST_ACK. It is for one goroutine until it is passed to [Engine.UpdateOpen].
type OpenSockets struct {
	byDestination map[destination]int
	ports         tcp.PortSet // local ports of all of them
	full          bool        // some are missing in byDestination, for lack of room
}

// Add counts a connection of a namespace with the limits l, and ignores timewait sockets. The
// connections of a listener outside the range of ephemeral ports do not count for destinations.
// Other connections of servers do. That does no harm: the engine forgets no more of its open
// connections than a destination has too many.
func (o *OpenSockets) Add(netns uint32, s *tcp.Socket, l *tcp.Limits) {
	port := s.Local.Port
	if s.New == tcp.TimeWait {
		return
	}
	o.ports.Add(port)
	if l.Bound.Has(port) && (port < l.PortLow || port > l.PortHigh) {
		return
	}
	key := destination{local: s.Local.Addr, peer: s.Peer.Addr, netns: netns, peerPort: s.Peer.Port}
	switch {
	case o.byDestination == nil:
		o.byDestination = make(map[destination]int)
	case o.byDestination[key] == 0 && len(o.byDestination) >= maxOpenKeys:
		o.full = true
		return
	}
	o.byDestination[key]++
}

// openAnswer is the kernel's table until applyOpen takes it.
type openAnswer struct {
	sockets *OpenSockets
	at      time.Duration // when the engine got it
}

// openByNamespace is how many connections of each namespace count as open. It is nil before the first
// loss.
func (tr *tracker) openByNamespace() map[uint32]int64 {
	if tr.lostAt == 0 {
		return nil
	}
	open := make(map[uint32]int64)
	for _, e := range tr.destinations.Entries() {
		open[e.Key.netns] += e.Value.OpenCount()
	}
	return open
}

// isStale reports whether ends of connections may have been lost since the connections of
// the namespace were compared with the kernel's table.
func (tr *tracker) isStale(ns *namespace) bool {
	return tr.lostAt > ns.openCheckedAt && ns.open > 0
}

// requestsOpen reports whether the connections of a namespace are to be requested now. If so, it notes
// for each destination how many changes there were before the request.
func (tr *tracker) requestsOpen(netns uint32, ns *namespace) bool {
	if !tr.isStale(ns) || ns.openRequestedAt > 0 && tr.now-ns.openRequestedAt < activeInterval {
		return false
	}
	ns.openRequestedAt, ns.openAnswer = tr.now, openAnswer{}
	for _, e := range tr.destinations.Entries() {
		if e.Key.netns == netns {
			e.Value.changesBefore = e.Value.changes
		}
	}
	return true
}

// takeOpen implements Engine.UpdateOpen. It ignores all but the newest request.
func (tr *tracker) takeOpen(now, requestedAt time.Duration, netns uint32, o *OpenSockets) {
	if ns := tr.ensureNamespace(netns); ns.openRequestedAt == requestedAt && !o.full {
		ns.openAnswer = openAnswer{sockets: o, at: now}
	}
}

// applyOpen corrects the connections of a namespace that count as open. Those of a destination are at
// most as many as the table had, plus as many as have opened and ended since the request: of these the
// table may have any.
func (tr *tracker) applyOpen(netns uint32, ns *namespace) {
	o := ns.openAnswer.sockets
	if o == nil || tr.now-ns.openAnswer.at < openSettles {
		return
	}
	ns.openAnswer = openAnswer{}
	var mostChanges uint64
	for _, e := range tr.destinations.Entries() {
		if e.Key.netns != netns {
			continue
		}
		u, key := &e.Value, e.Key
		key.ownRange = false // the table does not show it
		changes := u.changes - u.changesBefore
		mostChanges = max(mostChanges, changes)
		if most := int64(o.byDestination[key]) + int64(changes); u.OpenCount() > most {
			if u.OpenCount()-most > int64(max(minConnections, ns.ports/20)) {
				u.refutedAt = tr.now
			}
			u.kernel.forgotten += u.OpenCount() - most
			u.ForgetOpen(tr.now, u.OpenCount()-most)
		}
	}
	for port, b := range ns.binds {
		if b.changedAt < ns.openRequestedAt && !o.ports.Has(port) {
			b.open = 0
		}
	}
	if mostChanges <= uint64(max(minConnections, ns.ports/50)) {
		ns.openCheckedAt = ns.openRequestedAt
	}
}
