package detect

import (
	"time"

	"github.com/tcpshift/tcpshift/internal/detect/rate"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// maxSeedObserved bounds the sockets that are remembered during seeding: those of ten seconds with
// 25,000 connections a second.
const maxSeedObserved = 1 << 18

// jiffy is the longest time between two ticks of the kernel's timers, at HZ=100. A timewait socket may be
// younger than its timer shows, by that time at most.
const jiffy = 10 * time.Millisecond

// seeding distinguishes the sockets that existed before the first transition from those
// that Observe has counted already, or has seen to end.
type seeding struct {
	began    time.Duration   // time of New: the programs are attached by then
	since    time.Duration   // every transition from here on is observed: began, or that of the oldest transition in the ring buffer
	observed map[uint64]bool // by seedKeyOf: sockets of transitions, true if they count as open now; nil: seeding is over
	full     bool            // some sockets are not in observed, for lack of room
	took     time.Duration   // how long seeding took; 0: it is not over
	netns    uint32          // of the newest Seed: its sockets are being read; 0: there was none
}

// seedKeyOf identifies a socket by its cookie. Where transitions have no cookies, nothing shows which
// socket of the kernel's table a transition belongs to. So there one key, of the destination, stands for
// all its sockets.
func seedKeyOf(cookie uint64, d *destination) uint64 {
	if cookie != 0 {
		return cookie
	}
	return d.hash()<<1 ^ uint64(d.netns) | 1<<63 // no cookie: these are counted from 1
}

// Seed counts a connection or timewait socket that is older than the engine. The kernel's table had it at
// the time now, from which s.ExpiresIn counts, and which must not be before New. Seed ignores a socket of
// which Observe has had a transition. The limits of the namespace must have been set by [Engine.Update].
// Seed keeps no reference to s.
func (e *Engine) Seed(now time.Duration, netns uint32, s *tcp.Socket) {
	e.tracker.seed(now, netns, s)
}

// SeedingDone ends seeding at the time now. Seed must not be called after it.
func (e *Engine) SeedingDone(now time.Duration) {
	s := &e.tracker.seeding
	s.observed, s.took = nil, max(1, now-s.began)
}

// SeededAfter is how long after New seeding was done; 0: it is not yet.
func (e *Engine) SeededAfter() time.Duration { return e.tracker.seeding.took }

// isActive reports whether sockets of before the start are still to come.
func (s *seeding) isActive() bool { return s.observed != nil }

// isReading reports whether Seed has had only a part of the sockets of a namespace.
func (s *seeding) isReading(netns uint32) bool { return s.isActive() && s.netns == netns }

// observe takes the time of a transition. One from before New was still in the ring buffer then.
func (s *seeding) observe(at time.Duration) {
	if s.observed != nil {
		s.since = min(s.since, at)
	}
}

// record remembers the socket of a transition. counted means that it counts as open now.
func (s *seeding) record(cookie uint64, d *destination, counted bool) {
	switch {
	case s.observed == nil:
	case len(s.observed) >= maxSeedObserved:
		s.full = true
	default:
		s.observed[seedKeyOf(cookie, d)] = counted
	}
}

// isUncounted reports whether a connection that ends does not count as open, because it is older than the tracer and
// was not passed to Seed yet: its end must not count as the end of another connection.
func (s *seeding) isUncounted(t *tcp.Transition) bool {
	return s.observed != nil && !s.full && t.Cookie != 0 && !s.observed[t.Cookie]
}

// has reports whether the socket may have been counted: a transition of it was passed to Observe, or the socket to
// Seed. If there was no room to remember them all, it is true for every socket: a socket that is not counted does
// less harm than one that is counted for ever.
func (s *seeding) has(cookie uint64, d *destination) bool {
	if s.full {
		return true
	}
	if _, found := s.observed[cookie]; found {
		return true
	}
	_, found := s.observed[seedKeyOf(0, d)]
	return found
}

func (tr *tracker) seed(now time.Duration, netns uint32, s *tcp.Socket) {
	tr.now, tr.seeding.netns = max(tr.now, now), netns
	ns := tr.activeNamespace(netns, userIn(s.UID, netns))
	client := ns.known && ns.connectChooses(s.Local.Port)
	key := destination{local: s.Local.Addr, peer: s.Peer.Addr, netns: netns, peerPort: s.Peer.Port}
	if s.New == tcp.TimeWait {
		tr.seedTimeWait(now, ns, key, client, s)
		return
	}
	if tr.seeding.has(s.Cookie, &key) {
		if tr.seeding.full {
			tr.leftOut.Seeds++
		}
		return
	}
	if s.New == tcp.FinWait2 && !s.NoProcess {
		tr.seedAttached(netns, client, s)
	}
	if s.New == tcp.CloseWait {
		tr.seedCloseWait(netns, ns.known && ns.limits.Bound.Has(s.Local.Port), s)
	}
	if client {
		use := tr.destinations.GetOrInsert(key, key.hash(), userIn(s.UID, key.netns))
		if !use.Value.isCounted() {
			use.Value.OpenedEarlier(now)
			use.Value.earlier++
			tr.destinations.Add(use, 1)
		}
		tr.seeding.record(s.Cookie, &key, true)
	}
}

func (tr *tracker) seedTimeWait(now time.Duration, ns *namespace, key destination, client bool, s *tcp.Socket) {
	// The table does not show whether the peer has sent a timestamp. Most do.
	kind := rate.Kind{FinWait2: s.Substate == tcp.FinWait2, Timestamp: ns.limits.Timestamps}
	lifetime := tcp.TimeWaitTimeout
	if kind.FinWait2 {
		lifetime = ns.limits.FinWait2TimewaitTimeout()
	}
	created := now - (lifetime - s.ExpiresIn)
	if created >= tr.seeding.since-jiffy {
		return // Observe counts it; or it has a longer timeout of its own, and the table does not show how old it is
	}
	ns.notReusable.Advance(now)
	ns.reusable.Advance(now)
	if client && kind.Timestamp && ns.limits.AllowsReuse(s.Local.Addr, s.Peer.Addr) {
		ns.reusable.TimeWaitCreated(created, kind)
	} else {
		ns.notReusable.TimeWaitCreated(created, kind)
		if ns.countedAt > 0 {
			ns.kernelExcess-- // the kernel's count has it
		}
	}
	var r *rate.Estimator
	if client {
		use := tr.destinations.GetOrInsert(key, key.hash(), userIn(s.UID, key.netns))
		if use.Value.isCounted() {
			return
		}
		tr.destinations.Add(use, 1)
		r = &use.Value.Estimator
	} else {
		key := server{local: s.Local.Addr, netns: key.netns, port: s.Local.Port}
		use := tr.servers.GetOrInsert(key, key.hash(), userIn(s.UID, key.netns))
		tr.servers.Add(use, 1)
		r = &use.Value.Estimator
	}
	r.Advance(now)
	r.TimeWaitCreated(created, kind)
}

// isCounted reports whether the model has a count of the kernel's table, which also has the sockets of before the start.
func (u *destinationUse) isCounted() bool { return u.kernel.verifiedAt > 0 }
