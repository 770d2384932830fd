package detect

import (
	"time"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// seedLimit bounds what is remembered while the sockets of the start are awaited.
const seedLimit = 1 << 16

// seeding tells the sockets that were there before the first transition from those
// that the stream has told of already.
type seeding struct {
	since time.Duration // the hooks are attached from then on
	fresh map[uint64]struct{}
}

// Seed tells of a connection or timewait socket that was there at this moment, in
// a namespace whose limits have been learnt. What the stream has told is left out.
func (e *Engine) Seed(now time.Duration, netns uint32, s *tcp.Socket) {
	e.world.seed(now, netns, s)
}

// Seeded says that no Seed is to come any more.
func (e *Engine) Seeded() {
	e.world.seeding.fresh = nil
}

// note remembers what has opened since the start.
func (s *seeding) note(t *tcp.Transition) {
	if s.fresh != nil && t.Cookie != 0 && len(s.fresh) < seedLimit {
		s.fresh[t.Cookie] = struct{}{}
	}
}

func (w *world) seed(now time.Duration, netns uint32, s *tcp.Socket) {
	w.now = max(w.now, now)
	ns := w.namespace(netns)
	client := ns.known && ns.limits.chooses(s.Local.Port)
	key := portKey{netns: netns, local: s.Local.Addr, peer: s.Peer.Addr, peerPort: s.Peer.Port}
	if s.New != tcp.TimeWait {
		if _, known := w.seeding.fresh[s.Cookie]; !known && client {
			use := w.ports.keep(key.spread(), &key)
			use.value.at(now)
			use.value.live++
			w.ports.weigh(use, use.weight+1)
		}
		return
	}
	hold := time.Minute
	if s.Substate == tcp.FinWait2 {
		hold = ns.limits.FinTimeout
	}
	born := now - (hold - s.ExpiresIn)
	if born >= w.seeding.since {
		return
	}
	half := s.Substate == tcp.FinWait2
	ns.total.at(now)
	ns.reusable.at(now)
	if client && ns.limits.reuses(s.Local.Addr, s.Peer.Addr) {
		ns.reusable.born(born, half)
	} else {
		ns.total.born(born, half)
	}
	if client {
		use := w.ports.keep(key.spread(), &key)
		use.value.at(now)
		use.value.born(born, half)
		w.ports.weigh(use, use.weight+1)
		return
	}
	server := serverKey{netns, s.Local.Addr, s.Local.Port}
	use := w.servers.keep(server.spread(), &server)
	use.value.at(now)
	use.value.born(born, half)
	w.servers.weigh(use, use.weight+1)
}
