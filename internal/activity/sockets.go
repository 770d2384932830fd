package activity

import (
	"time"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// maxStates bounds the number of a state. The kernel has 13 states.
const maxStates = 16

// maxSocketServices bounds the services whose sockets are counted one by one.
const maxSocketServices = 4096

// timeWaitSeconds is how long the kernel keeps a TIME_WAIT: TCP_TIMEWAIT_LEN of include/net/tcp.h.
const timeWaitSeconds = 60

// sockets are the sockets of the host by state.
type sockets struct {
	known     bool
	at        time.Time // when the kernel has counted them; zero: they are counted from transitions
	byState   [maxStates]int64
	byService map[Key]*serviceSockets
	others    serviceSockets // of the services for which there is no room, here or in the census

	// Of transitions.
	began     time.Duration          // of the first one
	timeWaits [timeWaitSeconds]int64 // that began, by the second
	second    int64                  // the newest of timeWaits
	endsKnown bool                   // transitions show the ends of TIME_WAITs
}

// serviceSockets are the sockets of one service.
type serviceSockets struct {
	open      int64 // neither in LISTEN nor in TIME_WAIT
	closeWait int64
	cgroup    *tcp.Cgroup
}

// Sockets takes a count of all sockets. cgroupOf returns the cgroup with an id; nil: it is not known.
func (a *Activity) Sockets(c *tcp.SocketCensus, cgroupOf func(id uint64) *tcp.Cgroup) {
	s := &a.sockets
	s.known, s.at, s.byState = true, c.At, [maxStates]int64{}
	s.byService, s.others = make(map[Key]*serviceSockets), serviceSockets{}
	for i := range c.Namespaces {
		for _, g := range c.Namespaces[i].Groups {
			s.byState[stateIndex(g.State)] += int64(g.Count)
			if g.Other {
				s.others.add(g.State, int64(g.Count))
				continue
			}
			key := Key{CgroupID: g.CgroupID, Comm: g.Comm, Known: g.Comm != tcp.Comm{}}
			if !key.Known {
				key = Key{}
			}
			of := s.of(key)
			of.add(g.State, int64(g.Count))
			if key.Known && of != &s.others && of.cgroup == nil {
				of.cgroup = cgroupOf(g.CgroupID)
			}
		}
	}
}

// of returns the sockets of a service, or those of others if there is no room.
func (s *sockets) of(key Key) *serviceSockets {
	of := s.byService[key]
	switch {
	case of != nil:
		return of
	case len(s.byService) >= maxSocketServices:
		return &s.others
	}
	of = new(serviceSockets)
	s.byService[key] = of
	return of
}

func (s *serviceSockets) add(state tcp.State, n int64) {
	switch state {
	case tcp.Listen, tcp.TimeWait, tcp.Close, tcp.BoundInactive:
		return
	case tcp.CloseWait:
		s.closeWait += n
	}
	s.open += n
}

func stateIndex(s tcp.State) int {
	switch {
	case s == tcp.NewSynRecv: // as ss(8) shows it
		return int(tcp.SynRecv)
	case s < maxStates:
		return int(s)
	}
	return 0
}

// observe counts the sockets of a transition. What a socket did before the first transition is not known, so a state that
// was entered before it does not count.
func (s *sockets) observe(t *tcp.Transition) {
	if !s.known {
		s.known, s.began = true, t.Monotonic
	}
	s.advance(t.Monotonic)
	if t.IsSelfTransition() {
		return
	}
	if t.IsTimeWaitEnd() {
		s.endsKnown = true
	}
	isChild := t.Old == tcp.Listen && t.New == tcp.SynRecv // the listener stays
	if !isChild && t.InState > 0 && t.Monotonic-t.InState >= s.began {
		s.change(t, t.Old, -1)
	}
	s.change(t, t.New, 1)
}

func (s *sockets) change(t *tcp.Transition, state tcp.State, n int64) {
	if state == tcp.Close {
		return
	}
	s.byState[stateIndex(state)] += n
	if state == tcp.TimeWait {
		if n > 0 {
			s.timeWaits[s.second%timeWaitSeconds]++
		}
		return
	}
	of := s.of(keyOf(t))
	of.add(state, n)
	if t.Cgroup != nil && of != &s.others {
		of.cgroup = t.Cgroup
	}
}

// advance forgets the TIME_WAITs that are over, unless transitions show their ends.
func (s *sockets) advance(now time.Duration) {
	second := int64(now / time.Second)
	if second-s.second > timeWaitSeconds {
		s.second = max(s.second, second-timeWaitSeconds)
	}
	for s.second < second {
		s.second++
		over := &s.timeWaits[s.second%timeWaitSeconds]
		if !s.endsKnown {
			s.byState[tcp.TimeWait] -= *over
		}
		*over = 0
	}
}
