package detect

import (
	"time"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// Suspects are the destinations of one namespace that the engine wants to have counted in
// the kernel's table of sockets.
type Suspects struct {
	// Urgent means that the numbers of at least one suspect are not verified: an alert may
	// wait for them. Otherwise the counts verify them again.
	Urgent bool
	since  time.Duration // time of the request, which identifies it
	list   []suspect
	skip   *tcp.PortSet // ports that bind() has taken, and that connect() does not choose: namespace.otherBinds

	lostBefore uint64 // tracker.lostTotal at that time
}

// suspect is a destination with what the engine counted at the time of the request.
type suspect struct {
	key       destination
	atRequest mark
	// refusedAt is when connect() last found no port; 0: never. A TIME_WAIT that was old enough then
	// to be taken over has no timestamp of the peer, or connect() would have taken its port.
	refusedAt time.Duration
	// ownTimeouts are the timeouts of its sockets in FIN_WAIT2 that are not that of the namespace.
	ownTimeouts []time.Duration
}

// comparedFor is the age up to which the TIME_WAITs of model and kernel are compared. Older ones are
// about to end, and do not count: the kernel's timers are up to 2 s late.
const comparedFor = 57 * time.Second

// comparedFrom is the creation time from which on TIME_WAITs are compared. It is a full second, because the model
// counts by seconds.
func (s *Suspects) comparedFrom() time.Duration { return s.since.Truncate(time.Second) - comparedFor }

// Newest returns s or o, the one with the later request. Both may be nil.
func (s *Suspects) Newest(o *Suspects) *Suspects {
	if s == nil || o != nil && o.since > s.since {
		return o
	}
	return s
}

// Peers returns the peers of the suspects, some of them more than once.
func (s *Suspects) Peers() []tcp.Endpoint {
	peers := make([]tcp.Endpoint, len(s.list))
	for i := range s.list {
		peers[i] = tcp.Endpoint{Addr: s.list[i].key.peer, Port: s.list[i].key.peerPort}
	}
	return peers
}

// SuspectCounts counts the sockets of suspects. It keeps none of them. It is for one
// goroutine until it is passed to [Engine.UpdateSuspects].
type SuspectCounts struct {
	of     *Suspects
	limits *tcp.Limits

	readAt, readUntil time.Duration // the table was read in this time
	index             map[destination]int
	counts            []suspectCount // by index of of.list

	last    destination // that of the socket before: sockets of one destination often come together
	lastHas bool        // it is a suspect
	lastAt  int         // its index
}

// suspectCount is what the kernel's table has for one destination, on ports that connect()
// could choose.
type suspectCount struct {
	ports     tcp.PortSet
	open      int // connections, except those in LAST_ACK
	lastAck   int
	timeWaits int           // timewait sockets that connect() does not take over
	finWait2  int           // timewait sockets in FIN_WAIT2
	oldest    time.Duration // how long the oldest of finWait2 has waited
	young     int           // of timeWaits: they are too young for connect() to take them over
	reusable  int           // TIME_WAITs that connect() takes over if they have a timestamp of the peer, which the table does not show
	// reusableIn are those of reusable by second of creation, in the same order as created.
	reusableIn [comparedFor/time.Second + 4]int32
	// refusedIn are those of timeWaits that connect() would have taken over at refusedAt if they had a timestamp, in
	// the same order.
	refusedIn [comparedFor/time.Second + 4]int32
	// expires are the timewait sockets that are not young, by the whole seconds that are left on their timers.
	expires [tcp.TimeWaitTimeout/time.Second + 1]int32
	// old are the timewait sockets from before comparedFrom that connect() does not take over, and oldReusable those
	// that it takes over if they have a timestamp. They are counted where it takes over TIME_WAITs.
	old, oldReusable int
	// created are the timewait sockets by second of creation, from comparedFrom on. For one
	// that was in FIN_WAIT2 it is the second of the peer's FIN.
	created [comparedFor/time.Second + 4]int32
	// waitingIn are those of created that are in FIN_WAIT2, in the same order.
	waitingIn [comparedFor/time.Second + 4]int32
	// ends are the sockets in FIN_WAIT2 of a suspect whose sockets have several timeouts. They are in created and
	// waitingIn once resolveTimeouts has found out how old they are.
	ends *waitingEnds
}

// NewCounts begins a count at the time readAt. l are the limits of the namespace.
func (s *Suspects) NewCounts(readAt time.Duration, l *tcp.Limits) *SuspectCounts {
	c := &SuspectCounts{
		of: s, limits: l, readAt: readAt, readUntil: readAt, index: make(map[destination]int, len(s.list)), counts: make([]suspectCount, len(s.list)),
	}
	for i := range s.list {
		c.index[s.list[i].key] = i
	}
	return c
}

// Done ends the count at the time readUntil: the whole table has been read.
func (c *SuspectCounts) Done(readUntil time.Duration) { c.readUntil = max(c.readUntil, readUntil) }

// Add counts a socket of the namespace if its destination is a suspect, and connect() could choose its port. The
// table may list a socket twice that has become a timewait socket meanwhile: each port counts once.
func (c *SuspectCounts) Add(netns uint32, s *tcp.Socket) {
	key := destination{local: s.Local.Addr, peer: s.Peer.Addr, netns: netns, peerPort: s.Peer.Port}
	if key != c.last {
		c.last = key
		c.lastAt, c.lastHas = c.index[key]
	}
	if !c.lastHas || !c.limits.IsEphemeral(s.Local.Port) || c.of.skip.Has(s.Local.Port) {
		return
	}
	n := &c.counts[c.lastAt]
	if n.ports.Has(s.Local.Port) {
		return
	}
	n.ports.Add(s.Local.Port)
	switch s.New {
	case tcp.TimeWait:
		n.classifyTimeWait(c, s, &c.of.list[c.lastAt])
	case tcp.LastAck:
		n.lastAck++
	default:
		n.open++
	}
}

// hasUnknownAge reports whether the timer of a timewait socket does not show how old the socket is, and its age decides
// about nothing but the second of its creation.
func (of *suspect) hasUnknownAge(c *SuspectCounts, s *tcp.Socket) bool {
	takesOver := c.limits.ReusesFinWait2 && c.limits.AllowsReuse(of.key.local, of.key.peer)
	return s.Substate == tcp.FinWait2 && len(of.ownTimeouts) > 0 && !takesOver
}

// ageOf is the age of a timewait socket, by its timer.
func (c *SuspectCounts) ageOf(s *tcp.Socket) time.Duration {
	if s.Substate == tcp.FinWait2 {
		return c.limits.FinWait2TimewaitTimeout() - s.ExpiresIn
	}
	return tcp.TimeWaitTimeout - s.ExpiresIn
}

// classifyTimeWait counts a timewait socket of a suspect.
func (n *suspectCount) classifyTimeWait(c *SuspectCounts, s *tcp.Socket, of *suspect) {
	if of.hasUnknownAge(c, s) {
		n.ends = n.ends.add(c.readAt, s.ExpiresIn)
		n.timeWaits++
		n.finWait2++
		n.expires[min(len(n.expires)-1, int(max(0, s.ExpiresIn)/time.Second))]++
		return
	}
	age := c.ageOf(s)
	createdAt := c.readAt - max(0, age)
	second := int64(createdAt/time.Second) - int64(c.of.comparedFrom()/time.Second)
	if s.Substate == tcp.FinWait2 && second >= 0 {
		n.finWait2++
		n.oldest = max(n.oldest, age)
	}
	switch reuses := c.limits.AllowsReuse(of.key.local, of.key.peer); {
	case second < 0: // it is about to end: see comparedFor
		n.classifyOld(c, s, of, createdAt)
	case !reuses || s.Substate == tcp.FinWait2 && !c.limits.ReusesFinWait2:
		n.timeWaits++
	default:
		n.classifyReusable(c, of, age, second)
	}
	if second >= 0 && (s.Substate == tcp.FinWait2 || age >= c.limits.ReuseDelay) {
		n.expires[min(len(n.expires)-1, int(max(0, s.ExpiresIn)/time.Second))]++
	}
	if second >= 0 && second < int64(len(n.created)) {
		n.created[second]++
		if s.Substate == tcp.FinWait2 {
			n.waitingIn[second]++
		}
	}
}

// classifyOld counts a timewait socket that is about to end, where connect() takes over TIME_WAITs. It does not take
// over one that was old enough at refusedAt: that has no timestamp.
func (n *suspectCount) classifyOld(c *SuspectCounts, s *tcp.Socket, of *suspect, createdAt time.Duration) {
	if s.ExpiresIn <= 0 || !c.limits.AllowsReuse(of.key.local, of.key.peer) {
		return
	}
	isRefused := createdAt+c.limits.ReuseDelay+jiffy <= of.refusedAt
	if isRefused || s.Substate == tcp.FinWait2 && !c.limits.ReusesFinWait2 {
		n.old++
	} else {
		n.oldReusable++
	}
	n.expires[min(len(n.expires)-1, int(s.ExpiresIn/time.Second))]++
}

// classifyReusable counts a timewait socket that connect() takes over once it is old enough, if it has a
// timestamp of the peer. second is its index in created.
func (n *suspectCount) classifyReusable(c *SuspectCounts, of *suspect, age time.Duration, second int64) {
	switch createdAt := c.readAt - max(0, age); {
	case age < c.limits.ReuseDelay:
		n.timeWaits++
		n.young++
	case createdAt+c.limits.ReuseDelay+jiffy <= of.refusedAt:
		n.timeWaits++
		if second < int64(len(n.refusedIn)) {
			n.refusedIn[second]++
		}
	default:
		n.reusable++
		if second < int64(len(n.reusableIn)) {
			n.reusableIn[second]++
		}
	}
}
