package detect

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// simListening is a listening socket of a simKernel. Its connections are apart from those of simKernel: of them
// detection gets only what the tables of listeners have.
type simListening struct {
	tcp.Listener
	to     *simDestination // its endpoint, which other listeners may have, too
	by     *simProcess
	queue  []simQueued   // the oldest first
	seen   bool          // the transition to LISTEN has reached the engine
	known  time.Duration // since when the engine can know that there are listeners; 0: it cannot
	closed bool

	overflows  simCount      // segments that found the queue full
	lengths    simCount      // by step: the sum of all changes of the queue's length
	fullAt     time.Duration // when its queue overflowed or was full at the end of a step last; 0: never
	chainFrom  time.Duration // since when that has been so with gaps of at most longestGap
	droppedAt  time.Duration // when it overflowed last; 0: never
	steadyFrom time.Duration // since when it has overflowed with gaps of at most a second
	filledFrom time.Duration // since when its queue is full at the end of each step; 0: it is not
}

// simQueued is a connection that waits for accept().
type simQueued struct {
	cookie uint64
	at     time.Duration
}

// longestGap is how long a queue may not have overflowed while two successive readings show an overflow.
const longestGap = 2 * overloadGap

// simArrivals opens a listener, makes connections to it, and accepts them.
type simArrivals struct {
	on          *simListening // nil: it is not open yet
	opensAt     time.Duration
	port        uint16
	backlog     int
	by          *simProcess
	from, until time.Duration // when connections come
	perSecond   float64
	bursts      int // how many come at once
	// The process accepts that many a second, and leaves some in the queue. It accepts none while it is stuck.
	accepts               float64
	leaves                int
	stuckFrom, stuckUntil time.Duration

	due, room float64
}

func (a *simArrivals) String() string {
	return fmt.Sprintf("%d listens on %d from %v on, backlog %d: %.1f/s, %d at once, from %v to %v; accepts %.1f/s, leaves %d, stuck from %v to %v",
		a.by.owner.PID, a.port, a.opensAt-time.Hour, a.backlog, a.perSecond, a.bursts, a.from-time.Hour, a.until-time.Hour, a.accepts, a.leaves,
		a.stuckFrom-time.Hour, a.stuckUntil-time.Hour)
}

// listen opens a listener of a process. Several may have one port.
func (k *simKernel) listen(port uint16, backlog uint32, by *simProcess) *simListening {
	k.cookie++
	s := &simListening{
		Listener: tcp.Listener{Cookie: k.cookie, Local: tcp.Endpoint{Addr: here, Port: port}, Backlog: backlog, Inode: 1, UID: by.uid}, by: by,
	}
	for _, other := range k.listeners {
		if other.Local == s.Local {
			s.to = other.to
		}
	}
	if s.to == nil {
		s.to = &simDestination{key: destination{netns: testNetns, local: here, peerPort: port}, server: true}
	}
	s.overflows.advance()
	s.lengths.advance()
	k.listeners = append(k.listeners, s)
	if s.seen = k.listenerTransition(s, tcp.Close, tcp.Listen); s.seen {
		s.known = k.now
	}
	return s
}

// asSocket is a listener for what decides about sockets: the filter and the losses.
func (s *simListening) asSocket() *simSocket {
	return &simSocket{cookie: s.Cookie, to: s.to, by: s.by, load: &simLoad{}}
}

func (k *simKernel) listenerTransition(s *simListening, old, next tcp.State) bool {
	return k.emit(s.asSocket(), &tcp.Transition{
		Monotonic: k.now, Netns: testNetns, Cookie: s.Cookie, Owner: s.by.owner, UID: s.by.uid, Role: tcp.RoleListener, Old: old, New: next, Local: s.Local,
	})
}

// stopListening closes a listener, and resets its connections.
func (k *simKernel) stopListening(s *simListening) {
	if s.closed {
		return
	}
	s.closed = true
	s.take(len(s.queue))
	k.listenerTransition(s, tcp.Listen, tcp.Close)
}

// arrive is a SYN: sk_acceptq_is_full() decides.
func (k *simKernel) arrive(s *simListening) {
	if s.IsFull() {
		s.Drops++
		k.listenOverflows++
		s.overflows.add(1)
		return
	}
	k.cookie++
	s.queue = append(s.queue, simQueued{k.cookie, k.now})
	s.lengths.add(1)
	s.Queued = uint32(len(s.queue))
}

// take is count times accept().
func (s *simListening) take(count int) {
	count = min(count, len(s.queue))
	s.queue = s.queue[count:]
	s.lengths.add(-count)
	s.Queued = uint32(len(s.queue))
}

// step makes the connections of one step, and accepts some.
func (a *simArrivals) step(k *simKernel) {
	if a.on == nil && k.now >= a.opensAt && !a.by.dead {
		a.on = k.listen(a.port, uint32(a.backlog), a.by)
	}
	s := a.on
	if s == nil {
		return
	}
	s.overflows.advance()
	s.lengths.advance()
	if s.closed {
		return
	}
	if k.now >= a.from && k.now < a.until {
		for a.due += a.perSecond * simStep.Seconds(); a.due >= float64(a.bursts); a.due -= float64(a.bursts) {
			for range a.bursts {
				k.arrive(s)
			}
		}
	}
	if k.now < a.stuckFrom || k.now >= a.stuckUntil {
		a.room += a.accepts * simStep.Seconds()
		s.take(min(int(a.room), max(0, len(s.queue)-a.leaves)))
		a.room -= float64(int(a.room))
	}
	s.note(k.now)
}

// note notes whether the queue has overflowed in this step, or is full at its end.
func (s *simListening) note(now time.Duration) {
	switch {
	case !s.IsFull():
		s.filledFrom = 0
	case s.filledFrom == 0:
		s.filledFrom = now
	}
	overflowed := s.overflows.within(simStep) > 0
	if overflowed {
		if s.droppedAt == 0 || now-s.droppedAt > time.Second {
			s.steadyFrom = now
		}
		s.droppedAt = now
	}
	if overflowed || s.IsFull() {
		if s.fullAt == 0 || now-s.fullAt > longestGap {
			s.chainFrom = now
		}
		s.fullAt = now
	}
}

// listenTable is the kernel's table of listeners, with the connections that wait on some ports.
func (tr *simTracer) listenTable(unaccepted []uint16) *ListenTable {
	t := &ListenTable{ReadAt: tr.k.now, Overflows: tr.k.listenOverflows, KnownOnly: tr.byOwner, HasUnaccepted: unaccepted != nil}
	for _, s := range tr.k.listeners {
		if s.closed || !tr.byOwner && tr.passes != nil && !tr.passes(s.asSocket()) {
			continue
		}
		t.Listeners = append(t.Listeners, s.Listener)
		if !slices.Contains(unaccepted, s.Local.Port) {
			continue
		}
		for _, c := range s.queue {
			t.Unaccepted = append(t.Unaccepted, tcp.UnacceptedSocket{Cookie: c.cookie, Local: s.Local})
		}
	}
	return t
}

// addListeners draws from a source of its own, as addKills does.
func (r *simRun) addListeners() {
	random := rand.New(rand.NewPCG(r.seed, 17))
	if random.IntN(3) > 0 {
		return
	}
	seconds := func(from, to int) time.Duration { return simStep * time.Duration(10*from+random.IntN(10*(to-from))) }
	for port := range uint16(1 + random.IntN(2)) {
		backlog := []int{0, 4, 16, 64, 128}[random.IntN(5)]
		members := 1
		if random.IntN(4) == 0 {
			members = 2 + random.IntN(2)
		}
		stuck := random.IntN(members) // of several at most one is
		perSecond, sort := 0.5+float64(backlog)*random.Float64()/2, random.IntN(6)
		for i := range members {
			a := &simArrivals{
				opensAt: r.k.now, port: 81 + port, backlog: backlog, by: r.processes[random.IntN(4)],
				from: r.k.now + seconds(1, 40), until: r.end, perSecond: perSecond, bursts: 1, accepts: 1e4,
			}
			if random.IntN(2) == 0 {
				a.opensAt += seconds(1, 40)
			} else { // it is older than the tracer
				a.on = r.k.listen(a.port, uint32(a.backlog), a.by)
			}
			if i == stuck {
				a.misbehave(random, sort, seconds)
			}
			r.arrivals = append(r.arrivals, a)
		}
	}
}

// misbehave makes of a load one of the sorts that there are.
func (a *simArrivals) misbehave(random *rand.Rand, sort int, seconds func(from, to int) time.Duration) {
	backlog := a.backlog
	switch sort {
	case 0, 1: // a process that is stuck for a while, or for ever
		a.stuckFrom = a.from + seconds(5, 50)
		if a.stuckUntil = a.stuckFrom + seconds(5, 90); random.IntN(3) == 0 {
			a.stuckUntil = a.until
		}
		if random.IntN(3) == 0 { // few clients come
			a.perSecond = 0.2 + random.Float64()
		}
	case 2: // it is too slow
		a.perSecond = max(a.perSecond, 2)
		a.accepts = a.perSecond * (0.2 + 0.7*random.Float64())
		a.until = min(a.until, a.from+seconds(5, 90))
	case 3: // bursts
		a.bursts = 1 + random.IntN(2*backlog+4)
		a.perSecond = float64(a.bursts) / (5 + 15*random.Float64())
	case 4: // it is busy, and its queue is never empty
		a.leaves = random.IntN(backlog + 2)
		a.perSecond = 1 + 10*random.Float64()
	}
}
