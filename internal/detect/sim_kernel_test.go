package detect

import (
	"math/rand/v2"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// simStep is the resolution of a simulation: the time between two ticks of the engine.
const simStep = 100 * time.Millisecond

// simKernel is a kernel on a virtual clock. Unlike host, which counts connections, it has every
// socket with its local port and cookie, so it can be asked for its tables, and its truth does not
// depend on any rule of the engine.
type simKernel struct {
	now             time.Duration
	random          *rand.Rand
	limits          tcp.Limits
	destinations    []*simDestination
	sockets         []*simSocket // also timewait sockets
	timeWaits       int          // sockets of both substates
	bound           simBound     // sockets on a port that bind() has taken
	cookie          uint64
	timers          [simTimers][]simTimer // by step
	timeWaitsIn     simCount              // that were created
	timeWaitsOut    simCount              // that have ended
	boundIn         simCount              // ports that bind() has taken
	listeners       []*simListening       // also those that are closed
	listenOverflows uint64                // segments that have found the queue of a listener full
	// emit reports whether the transition has reached the engine, or will.
	emit func(s *simSocket, t *tcp.Transition) bool
	// stalled reports whether the loads get no CPU.
	stalled func() bool
}

// simBound counts by port.
type simBound [1 << 16]int32

// simTimers is the number of steps that timers are kept for. It is more than the longest
// timer takes.
const simTimers = 1 << 12

// noBuckets is a tcp_max_tw_buckets that no simulation reaches.
const noBuckets = 1 << 17

type simTimer struct {
	socket *simSocket
	fire   func(*simKernel, *simSocket)
}

// simProcess has sockets until it dies.
type simProcess struct {
	owner tcp.Owner
	uid   uint32
	dead  bool
}

type simSocket struct {
	cookie uint64
	to     *simDestination
	by     *simProcess
	load   *simLoad
	index  int    // in simKernel.sockets; -1: it is gone
	port   uint16 // the local one of a client, the peer's of a server
	bound  bool   // bind() has taken the port
	state  tcp.State
	seen   bool // its beginning has reached the engine

	closeWaitAt   time.Duration // when the peer closed
	closeWaitSeen bool          // the engine has got that transition
	sends         bool          // the process still sends on it

	// Of a timewait socket:
	createdAt time.Duration
	seenEnd   bool          // the engine has got the transition to TIME_WAIT
	finAt     time.Duration // when the peer closes
	timerAt   time.Duration // when the timer expires, by the kernel's table
	endAt     time.Duration // when the socket ends: timers are late
	untimed   bool          // it has no timestamp of the peer
	// finWait2Timeout is that of its timer when it was created in FIN_WAIT2.
	finWait2Timeout time.Duration
}

func newSimKernel(random *rand.Rand, ports int) *simKernel {
	listening := &tcp.PortSet{}
	listening.Add(80)
	return &simKernel{
		now: time.Hour, random: random, stalled: func() bool { return false },
		limits: tcp.Limits{
			PortLow: 20000, PortHigh: uint16(20000 + ports - 1), Bound: listening, Reuse: 2, ReuseDelay: time.Second, Timestamps: true,
			FinTimeout: time.Minute, MaxTimeWaits: noBuckets,
		},
	}
}

func (k *simKernel) addDestination(local, peer netip.Addr, port uint16, server bool) *simDestination {
	d := &simDestination{
		key:    destination{netns: testNetns, local: local, peer: peer, peerPort: port},
		server: server, ports: make([]*simSocket, int(k.limits.PortHigh)-int(k.limits.PortLow)+1),
	}
	k.destinations = append(k.destinations, d)
	return d
}

// pass advances the clock by one step and lets timers fire.
func (k *simKernel) pass() {
	k.now += simStep
	k.timeWaitsIn.advance()
	k.timeWaitsOut.advance()
	k.boundIn.advance()
	for _, d := range k.destinations {
		for _, c := range d.counts() {
			c.advance()
		}
	}
	slot := k.slot(k.now)
	due := k.timers[slot]
	k.timers[slot] = nil
	for _, t := range due {
		if t.socket.index >= 0 {
			t.fire(k, t.socket)
		}
	}
}

func (k *simKernel) slot(at time.Duration) int { return int(at/simStep) % simTimers }

// after lets something happen to a socket in the next step or later, unless the socket ends first.
func (k *simKernel) after(d time.Duration, s *simSocket, fire func(*simKernel, *simSocket)) {
	at := k.slot(k.now + max(d, simStep))
	k.timers[at] = append(k.timers[at], simTimer{s, fire})
}

func (k *simKernel) add(s *simSocket) {
	s.index = len(k.sockets)
	k.sockets = append(k.sockets, s)
	if !s.to.server {
		s.to.ports[s.port-k.limits.PortLow] = s
	}
}

func (k *simKernel) remove(s *simSocket) {
	last := k.sockets[len(k.sockets)-1]
	k.sockets[s.index], last.index = last, s.index
	k.sockets = k.sockets[:len(k.sockets)-1]
	s.index = -1
	if s.state == tcp.TimeWait || s.state == tcp.FinWait2 {
		k.timeWaits--
		k.timeWaitsOut.add(1)
	}
	if s.bound {
		k.bound[s.port]--
	}
	if !s.to.server {
		s.to.ports[s.port-k.limits.PortLow] = nil
	}
	s.state = tcp.Close
}

// connect returns nil if there is no free port. With bind the process chooses the port.
func (k *simKernel) connect(d *simDestination, by *simProcess, load *simLoad, bind bool) *simSocket {
	k.cookie++
	s := &simSocket{cookie: k.cookie, to: d, by: by, load: load, index: -1, state: tcp.Established}
	if bind {
		port, found := k.unusedPort()
		if !found {
			return nil // bind() has failed, and nothing shows that
		}
		s.port, s.bound = port, true
		k.bound[port]++
		k.boundIn.add(1)
	}
	if d.since == 0 {
		d.since = k.now
	}
	d.opened.add(1)
	s.seen = k.transition(s, tcp.Close, tcp.SynSent, nil)
	if s.seen {
		d.seenOpened.add(1)
	}
	if !bind {
		port, found := k.choosePort(d)
		if !found {
			k.failWithoutPort(s)
			return nil
		}
		s.port = port
	}
	k.add(s)
	return s
}

func (k *simKernel) failWithoutPort(s *simSocket) {
	s.to.failed.add(1)
	s.to.ended.add(1)
	if s.seen {
		s.to.seenEnded.add(1)
	}
	if k.transition(s, tcp.SynSent, tcp.Close, func(t *tcp.Transition) { t.Locked, t.NoPort = true, true }) {
		s.to.seenFailed.add(1)
	}
}

// accept makes a connection of a server.
func (k *simKernel) accept(d *simDestination, by *simProcess, load *simLoad) *simSocket {
	k.cookie++
	s := &simSocket{
		cookie: k.cookie, to: d, by: by, load: load, index: -1, state: tcp.Established, port: uint16(1024 + k.cookie%60000),
		seen: true,
	}
	k.add(s)
	return s
}

// close is close() by the process: this side closes first, or last.
func (k *simKernel) close(s *simSocket) {
	switch s.state {
	case tcp.Established:
		k.closeFirst(s)
	case tcp.CloseWait:
		s.to.ended.add(1)
		s.to.allEnds.add(1)
		if s.seen {
			s.to.seenEnded.add(1)
		}
		k.transition(s, tcp.CloseWait, tcp.LastAck, nil)
		s.state = tcp.LastAck
		k.after(s.load.lastAck, s, (*simKernel).remove)
	}
}

func (k *simKernel) closeFirst(s *simSocket) {
	s.to.allEnds.add(1)
	if k.timeWaits >= k.limits.MaxTimeWaits {
		k.limits.TimeWaitOverflows++
		s.to.ended.add(1)
		if s.seen {
			s.to.seenEnded.add(1)
		}
		k.transition(s, tcp.FinWait2, tcp.Close, func(t *tcp.Transition) { t.PeerFIN, t.NoProcess = true, true })
		k.remove(s)
		return
	}
	k.timeWaits++
	k.timeWaitsIn.add(1)
	s.to.timeWaits.add(1)
	s.state, s.createdAt, s.untimed = tcp.TimeWait, k.now, s.load.untimed
	finAfter := s.load.finAfterAt(k.now)
	if finAfter > 0 {
		s.state = tcp.FinWait2
	}
	s.finAt = k.now + finAfter
	if s.state == tcp.FinWait2 {
		s.finWait2Timeout = s.load.finWait2Timeout(&k.limits)
		s.arm(k, s.finWait2Timeout)
		k.after(finAfter, s, (*simKernel).peerCloses)
	} else {
		s.arm(k, tcp.TimeWaitTimeout)
	}
	d := s.to
	for len(d.recent) > 0 && k.now-d.recent[0].at > 2*16*time.Second {
		d.recent = d.recent[1:]
	}
	d.recent = append(d.recent, simHold{k.now, k.holdOf(s), s.state == tcp.FinWait2})
	if s.seenEnd = k.transition(s, tcp.FinWait2, tcp.TimeWait, func(t *tcp.Transition) {
		t.Substate, t.PeerTimestamp, t.NoProcess, t.FinWait2Timeout = s.state, !s.untimed, true, s.finWait2Timeout
	}); s.seenEnd {
		s.to.seenTimeWait.add(1)
		if !s.seen {
			s.to.seenLate.add(1)
		}
	}
}

// arm sets the timer of a timewait socket. The kernel's timers are up to two seconds late, and an eighth of the timeout.
func (s *simSocket) arm(k *simKernel, timeout time.Duration) {
	s.timerAt = k.now + timeout
	s.endAt = s.timerAt + time.Duration(k.random.Int64N(int64(min(2*time.Second, timeout/8))))
	k.after(s.endAt-k.now, s, func(k *simKernel, s *simSocket) {
		if k.now+simStep > s.endAt { // else the timer was armed again
			if s.state == tcp.FinWait2 && s.to.unclosedAt == 0 {
				s.to.unclosedAt = k.now
			}
			k.remove(s)
		}
	})
}

// peerCloses is the peer's FIN: in FIN_WAIT2 no tracepoint shows it.
func (k *simKernel) peerCloses(s *simSocket) {
	switch s.state {
	case tcp.FinWait2:
		s.state = tcp.TimeWait
		s.arm(k, tcp.TimeWaitTimeout)
	case tcp.Established:
		s.state, s.closeWaitAt = tcp.CloseWait, k.now
		s.closeWaitSeen = k.transition(s, tcp.Established, tcp.CloseWait, nil)
	}
}

// peerResets ends a connection. While it is being opened it is refused.
func (k *simKernel) peerResets(s *simSocket) {
	old, err, count, seen := tcp.Established, unix.ECONNRESET, &s.to.resets, &s.to.seenResets
	if s.load.ends == refusedConnects {
		old, err, count, seen = tcp.SynSent, unix.ECONNREFUSED, &s.to.refused, &s.to.seenRefused
	} else {
		s.to.allEnds.add(1)
	}
	count.add(1)
	s.to.ended.add(1)
	if s.seen {
		s.to.seenEnded.add(1)
	}
	if k.transition(s, old, tcp.Close, func(t *tcp.Transition) { t.Error = tcp.Errno(err) }) {
		seen.add(1)
	}
	k.remove(s)
}

// die ends a process: the kernel closes its sockets.
func (k *simKernel) die(p *simProcess) {
	for _, s := range append([]*simSocket(nil), k.sockets...) {
		if s.by == p {
			k.close(s)
		}
	}
	for _, s := range k.listeners {
		if s.by == p {
			k.stopListening(s)
		}
	}
	p.dead = true
}

// transition reports whether it has reached the engine, or will.
func (k *simKernel) transition(s *simSocket, old, next tcp.State, change func(*tcp.Transition)) bool {
	t := tcp.Transition{
		Monotonic: k.now, Netns: s.to.key.netns, Cookie: s.cookie, Owner: s.by.owner, UID: s.by.uid, Role: tcp.RoleClient, Old: old, New: next,
		NoProcess: s.load.ends == unaccepted,
	}
	t.Local, t.Peer = s.endpoints()
	if s.to.server {
		t.Role = tcp.RoleServer
	}
	if change != nil {
		change(&t)
	}
	return k.emit(s, &t)
}

func (s *simSocket) endpoints() (local, peer tcp.Endpoint) {
	if s.to.server {
		return tcp.Endpoint{Addr: s.to.key.local, Port: s.to.key.peerPort}, tcp.Endpoint{Addr: s.to.key.peer, Port: s.port}
	}
	return tcp.Endpoint{Addr: s.to.key.local, Port: s.port}, tcp.Endpoint{Addr: s.to.key.peer, Port: s.to.key.peerPort}
}
