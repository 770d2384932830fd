package detect

import (
	"net/netip"
	"time"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// world is what all detectors look at: the use of ports and timewait sockets, and
// what is known of the namespaces.
type world struct {
	Config
	now    time.Duration
	swept  int64 // second of the last sweep
	losses losses

	seeding seeding

	// whoIsHalfClosed hands an answer to the detector that has asked.
	whoIsHalfClosed func(now time.Duration, netns uint32, sockets []tcp.Socket)

	ports      *heavy[portKey, portUse]
	servers    *heavy[serverKey, serverUse]
	namespaces *heavy[uint32, namespace]
}

// portKey is what local ports are spent for: each of them once.
type portKey struct {
	netns    uint32
	local    netip.Addr
	peer     netip.Addr
	peerPort uint16
}

func (k *portKey) spread() uint32 { return spread(k.peer, k.peerPort) + spread(k.local, 0) }

type portUse struct {
	meter
	culprits
	noPort   uint64        // connects that failed for want of a port
	noPortAt time.Duration // the last of them
}

type serverKey struct {
	netns uint32
	local netip.Addr
	port  uint16
}

func (k *serverKey) spread() uint32 { return spread(k.local, k.port) }

type serverUse struct {
	meter
	culprits
}

func newWorld(c Config) *world {
	return &world{
		Config:     c,
		ports:      newHeavy[portKey, portUse](c.Keys),
		servers:    newHeavy[serverKey, serverUse](c.Keys / 4),
		namespaces: newHeavy[uint32, namespace](c.Keys / 4),
	}
}

func (w *world) observe(t *tcp.Transition) {
	w.now = max(w.now, t.Monotonic)
	switch {
	case t.New == tcp.SynSent:
		w.seeding.note(t)
		w.opens(t)
	case leaves(t):
		w.closes(t)
	}
}

// needs are what opens and leaves let through.
func (*world) needs() tcp.Transitions {
	s := between(tcp.States(), []tcp.State{tcp.SynSent})
	s.Join(endings())
	return s
}

// endings are the transitions that leaves is true of.
func endings() (s tcp.Transitions) {
	for _, old := range tcp.States() {
		for _, next := range tcp.States() {
			if leaves(&tcp.Transition{Old: old, New: next}) {
				s.Add([]tcp.State{old}, []tcp.State{next})
			}
		}
	}
	return s
}

// leaves says that the connection gives its port back, now or as a TIME_WAIT. One
// that the peer closed first does so at LAST_ACK, a round trip early, so that its
// last transition need not be asked for.
func leaves(t *tcp.Transition) bool {
	switch t.New {
	case tcp.TimeWait, tcp.LastAck:
		return true
	case tcp.Close:
		return t.Old != tcp.LastAck && t.Old != tcp.Listen && t.Old != tcp.Close
	}
	return false
}

func keyOf(t *tcp.Transition) portKey {
	return portKey{netns: t.Netns, local: t.Local.Addr, peer: t.Peer.Addr, peerPort: t.Peer.Port}
}

func (w *world) opens(t *tcp.Transition) {
	ns := w.namespace(t.Netns)
	if t.Local.Port != 0 && ns.known && !ns.limits.chooses(t.Local.Port) {
		return // bound to a port that connect() would not have chosen
	}
	key := keyOf(t)
	e := w.ports.keep(key.spread(), &key)
	e.value.opened(t.Monotonic)
	e.value.add(t)
	w.ports.weigh(e, e.weight+1)
}

func (w *world) closes(t *tcp.Transition) {
	ns := w.namespace(t.Netns)
	lingers := t.New == tcp.TimeWait
	switch {
	case w.isClient(t, ns):
		w.clientCloses(t, ns, lingers)
	case lingers && t.Role != tcp.RoleClient:
		key := serverKey{t.Netns, t.Local.Addr, t.Local.Port}
		e := w.servers.keep(key.spread(), &key)
		e.value.lingers(t.Monotonic, t.Substate == tcp.FinWait2)
		e.value.add(t)
		w.servers.weigh(e, e.weight+1)
		ns.total.lingers(t.Monotonic, t.Substate == tcp.FinWait2)
	case lingers: // a client on a port of its own choice
		ns.total.lingers(t.Monotonic, t.Substate == tcp.FinWait2)
	}
}

// isClient: it spends a port that connect() chose. A socket older than the tracer
// is told by its port.
func (w *world) isClient(t *tcp.Transition, ns *namespace) bool {
	if t.Role == tcp.RoleServer {
		return false
	}
	if t.Local.Port == 0 {
		return t.Role == tcp.RoleClient
	}
	if ns.known {
		return ns.limits.chooses(t.Local.Port)
	}
	return t.Role == tcp.RoleClient
}

func (w *world) clientCloses(t *tcp.Transition, ns *namespace, lingers bool) {
	key := keyOf(t)
	if !lingers {
		if e := w.ports.find(key.spread(), &key); e != nil {
			e.value.gone(t.Monotonic)
			if tcp.EndOf(t) == tcp.ClosedByNoPort {
				e.value.noPort++
				e.value.noPortAt = t.Monotonic
			}
		}
		return
	}
	half := t.Substate == tcp.FinWait2
	if ns.limits.reuses(t.Local.Addr, t.Peer.Addr) {
		ns.reusable.lingers(t.Monotonic, half)
	} else {
		ns.total.lingers(t.Monotonic, half)
	}
	e := w.ports.keep(key.spread(), &key)
	if e.value.live == 0 {
		e.value.add(t)
		w.ports.weigh(e, e.weight+1)
	}
	e.value.lingers(t.Monotonic, half)
}

// tick moves on what is kept by the second.
func (w *world) tick(now time.Duration) {
	w.now = max(w.now, now)
	second := int64(w.now / time.Second)
	if second == w.swept {
		return
	}
	w.swept = second
	fade := second%16 == 0
	w.ports.sweep(func(e *entry[portKey, portUse]) bool {
		u := &e.value
		age(&u.meter, &u.culprits, &e.missed, w.now, fade)
		e.weight = uint64(u.live + u.closed.sum(0, seconds) + u.half.sum(0, seconds))
		return !u.idle()
	})
	w.servers.sweep(func(e *entry[serverKey, serverUse]) bool {
		u := &e.value
		age(&u.meter, &u.culprits, &e.missed, w.now, fade)
		e.weight = uint64(u.closed.sum(0, seconds) + u.half.sum(0, seconds))
		return !u.idle()
	})
	w.namespaces.sweep(func(e *entry[uint32, namespace]) bool {
		e.value.total.at(w.now)
		e.value.reusable.at(w.now)
		e.weight = uint64(e.value.total.closed.sum(0, seconds)) + 1
		return w.now-e.value.seen < 2*timeWait
	})
}

func age(m *meter, c *culprits, missed *uint64, now time.Duration, fade bool) {
	m.at(now)
	if fade {
		c.fade()
	}
	if *missed > 0 && now-m.began > timeWait {
		*missed = 0 // whatever was missed is over by now
	}
}

// losses are of the last minute.
type losses struct {
	ring ring[uint32]
}

func (l *losses) add(now time.Duration, count uint64) {
	l.ring.advance(int64(now / time.Second))
	l.ring.slots[l.ring.newest%seconds] += uint32(min(count, 1<<30))
}

func (l *losses) recent(now time.Duration) uint64 {
	l.ring.advance(int64(now / time.Second))
	return uint64(l.ring.sum(0, slotsOf(timeWait)))
}
