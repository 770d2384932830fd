package detect

import (
	"time"

	"github.com/tcpshift/tcpshift/internal/detect/rate"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// maxSeedCookies bounds the cookies that are remembered during seeding.
const maxSeedCookies = 1 << 16

// seeding distinguishes the sockets that existed before the first transition from those
// that Observe has counted already.
type seeding struct {
	since  time.Duration       // time of New; the hooks are attached
	opened map[uint64]struct{} // cookies of connections opened since; nil: seeding is over
}

// Seed counts a connection or timewait socket that existed at the time now, which must
// not be before New. It ignores a socket that Observe has counted. The limits of the
// namespace must have been set by [Engine.Update]. It keeps no reference to s.
func (e *Engine) Seed(now time.Duration, netns uint32, s *tcp.Socket) {
	e.tracker.seed(now, netns, s)
}

// SeedingDone ends seeding: Seed must not be called after it.
func (e *Engine) SeedingDone() {
	e.tracker.seeding.opened = nil
}

func (s *seeding) recordOpened(t *tcp.Transition) {
	if s.opened != nil && t.Cookie != 0 && len(s.opened) < maxSeedCookies {
		s.opened[t.Cookie] = struct{}{}
	}
}

func (tr *tracker) seed(now time.Duration, netns uint32, s *tcp.Socket) {
	tr.now = max(tr.now, now)
	ns := tr.activeNamespace(netns)
	client := ns.known && ns.limits.IsEphemeral(s.Local.Port)
	key := destination{local: s.Local.Addr, peer: s.Peer.Addr, netns: netns, peerPort: s.Peer.Port}
	if s.New == tcp.TimeWait {
		tr.seedTimeWait(now, ns, key, client, s)
		return
	}
	if _, reported := tr.seeding.opened[s.Cookie]; !reported && client {
		use := tr.destinations.Get(key, key.hash())
		use.Value.OpenedEarlier(now)
		tr.destinations.Add(use, 1)
	}
}

func (tr *tracker) seedTimeWait(now time.Duration, ns *namespace, key destination, client bool, s *tcp.Socket) {
	finWait2 := s.Substate == tcp.FinWait2
	lifetime := time.Minute // TCP_TIMEWAIT_LEN
	if finWait2 {
		lifetime = ns.limits.FinTimeout
	}
	created := now - (lifetime - s.ExpiresIn)
	if created >= tr.seeding.since {
		return
	}
	ns.total.Advance(now)
	ns.reusable.Advance(now)
	if client && ns.limits.MayReuse(s.Local.Addr, s.Peer.Addr) {
		ns.reusable.TimeWaitCreated(created, finWait2)
	} else {
		ns.total.TimeWaitCreated(created, finWait2)
	}
	var r *rate.Estimator
	if client {
		use := tr.destinations.Get(key, key.hash())
		tr.destinations.Add(use, 1)
		r = &use.Value.Estimator
	} else {
		key := server{local: s.Local.Addr, netns: key.netns, port: s.Local.Port}
		use := tr.servers.Get(key, key.hash())
		tr.servers.Add(use, 1)
		r = &use.Value.Estimator
	}
	r.Advance(now)
	r.TimeWaitCreated(created, finWait2)
}
