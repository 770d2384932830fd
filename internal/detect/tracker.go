package detect

import (
	"encoding/binary"
	"math"
	"net/netip"
	"time"

	"github.com/tcpshift/tcpshift/internal/detect/rate"
	"github.com/tcpshift/tcpshift/internal/detect/topk"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// tracker is the state that all detectors share: the use of ports and timewait sockets
// by destination, server and namespace, and the limits of the namespaces.
type tracker struct {
	Config
	now       time.Duration
	swept     int64 // second of the last tick that did something
	losses    losses
	lostAt    time.Duration // when a loss was noticed last; 0: never
	lostTotal uint64        // transitions that were lost since the start

	seeding   seeding
	exhausted exhaustions
	binds     quota   // of namespace.binds, all namespaces together
	leftOut   LeftOut // without what LeftOut adds

	// These are set by detectors, and called where the tracker or the engine gets what only one detector
	// uses. seedAttached and forgetAttached are set by finWait2Pileup, which also sets takeHalfClosed.
	seedAttached   func(netns uint32, client bool, s *tcp.Socket)
	forgetAttached func(netns uint32)
	takeHalfClosed func(now, readAt time.Duration, netns uint32, sockets []tcp.Socket)
	// seedCloseWait and takeCloseWait are set by closeWaitLeak.
	seedCloseWait func(netns uint32, server bool, s *tcp.Socket)
	takeCloseWait func(readAt time.Duration, netns uint32, sockets []tcp.CloseWaitSocket)
	// takeListeners, addListenRequests and addListenUsage are set by listenQueue.
	takeListeners     func(netns uint32, t *ListenTable)
	addListenRequests func(list []Request) []Request
	addListenUsage    func(of func(netns uint32) *Usage)

	destinations *topk.Table[destination, destinationUse]
	servers      *topk.Table[server, serverUse]
	namespaces   *topk.Table[uint32, namespace] // by inode number
	missing      []uint32                       // namespaces that addMissing is to add: see namespaceInTick
	netnsGone    netnsGone
}

// destination is the scope of a local port: connect() can choose each port once for each
// destination. The order of the fields leaves no padding between them, so that the key is
// hashed in one piece.
type destination struct {
	local    netip.Addr
	peer     netip.Addr
	netns    uint32
	peerPort uint16
	ownRange bool // the sockets have IP_LOCAL_PORT_RANGE: they may use other ports, and are counted apart
}

func (d destination) netnsInode() uint32 { return d.netns }

func (d *destination) hash() uint64 {
	return 31*addrHash(d.local) + addrHash(d.peer) + uint64(d.peerPort)
}

// destinationUse is the ports that one destination uses, and which services use them.
type destinationUse struct {
	rate.Estimator
	topServices
	stormAt time.Duration // when its portStorm was last raised while an alert about it was open; 0: never

	binds   int // its ports that were bound before connect()
	earlier int // connections that Seed has counted, less those that countedUnder has found to have an own range

	changes       uint64        // how many connections have opened, plus how many have ended
	unmoved       uint64        // of changes: those of a connect() that found no port
	changesBefore uint64        // changes when the connections were requested: see requestsOpen
	refutedAt     time.Duration // when the kernel's table last had clearly fewer sockets than the model; 0: never
	kernel        verification

	waiting       int64         // timewait sockets in FIN_WAIT2, by the kernel's table
	waitingOldest time.Duration // how long the oldest of them has waited
	waitingSpan   time.Duration // in which time, up to the reading of that table, as many as wait were created
	waitingDelay  time.Duration // how long the peers take to close, if those that wait are the newest: see learnWaiting
	waitingAt     time.Duration // when the table was read; 0: never, or long ago
	waitingIn     *rate.Counter // by the second of their creation; nil: the table had none
	waitingReadAt time.Duration // as waitingAt, and by the time of the reading
	waitingSince  time.Duration // when the oldest of them was created
	waitingClosed float64       // the fraction of those created since then that does not wait any more
	delayKnown    bool          // two tables have shown waitingDelay: see learnDelay
	knownDelay    time.Duration // waitingDelay when they did

	finFraction float64       // see [rate.TimeWaitModel]: by the kernel's tables
	finKnown    bool          // the tables have shown finFraction
	finLearned  time.Duration // when learnFinFraction has found out finFraction last; 0: never
	finDelay    time.Duration // see [rate.TimeWaitModel], where connect() takes over no TIME_WAIT
}

// server is the endpoint that a server listens on.
type server struct {
	local netip.Addr
	netns uint32
	port  uint16
}

func (s *server) hash() uint64 { return addrHash(s.local) + uint64(s.port) }

// addrHash returns the bits in which addresses differ most: those of an IPv4 address, or
// the interface identifier of an IPv6 address.
func addrHash(a netip.Addr) uint64 {
	if a.Is4() {
		b := a.As4()
		return uint64(binary.BigEndian.Uint32(b[:]))
	}
	b := a.As16()
	return binary.BigEndian.Uint64(b[8:])
}

// serverUse is the TIME_WAITs of one server, and which services leave them.
type serverUse struct {
	rate.Estimator
	topServices
}

func newTracker(c Config) *tracker {
	return &tracker{
		Config:       c,
		exhausted:    newExhaustions(c.MaxDestinations),
		binds:        newQuota(2 * maxBinds),
		destinations: topk.New[destination, destinationUse](c.MaxDestinations),
		servers:      topk.New[server, serverUse](c.MaxDestinations / 4),
		namespaces:   topk.New[uint32, namespace](c.MaxDestinations / 4),
		netnsGone:    make(netnsGone),
	}
}

// observe counts a connection that opens or releases its port, and ignores the rest.
func (tr *tracker) observe(t *tcp.Transition) {
	tr.now = max(tr.now, t.Monotonic)
	tr.seeding.observe(t.Monotonic)
	switch {
	case t.New == tcp.SynSent:
		tr.open(t)
	case releasesPort(t):
		tr.close(t)
	}
}

// needs are the transitions that observe does not ignore.
func (*tracker) needs() tcp.Transitions {
	s := between(tcp.States(), []tcp.State{tcp.SynSent})
	s.Join(portReleases())
	return s
}

// portReleases are the transitions for which releasesPort is true.
func portReleases() (s tcp.Transitions) {
	for _, old := range tcp.States() {
		for _, next := range tcp.States() {
			if releasesPort(&tcp.Transition{Old: old, New: next}) {
				s.Add([]tcp.State{old}, []tcp.State{next})
			}
		}
	}
	return s
}

// releasesPort reports whether the connection gives its port back, now or after a
// TIME_WAIT. Where the peer closed first, LAST_ACK counts: that is a round trip early,
// and saves the kernel from emitting the last transition.
func releasesPort(t *tcp.Transition) bool {
	switch t.New {
	case tcp.TimeWait, tcp.LastAck:
		return true
	case tcp.Close:
		return t.Old != tcp.LastAck && t.Old != tcp.Listen && t.Old != tcp.Close
	}
	return false
}

// destinationOf is the destination of a client's transition.
func destinationOf(t *tcp.Transition) destination {
	return destination{local: t.Local.Addr, peer: t.Peer.Addr, netns: t.Netns, peerPort: t.Peer.Port, ownRange: t.OwnPortRange}
}

// open counts a connection that is being opened.
func (tr *tracker) open(t *tcp.Transition) {
	ns := tr.activeNamespace(t.Netns, userOf(t))
	key := destinationOf(t)
	if t.Local.Port != 0 {
		counted := !ns.known || ns.limits.IsEphemeral(t.Local.Port)
		tr.bindOpened(t, ns, key, counted)
		if !counted {
			return // connect() would not have chosen this port
		}
	}
	tr.seeding.record(t.Cookie, &key, true)
	use := tr.destinations.GetOrInsert(key, key.hash(), userOf(t))
	use.Value.Opened(t.Monotonic)
	use.Value.changes++
	use.Value.count(t)
	tr.destinations.Add(use, 1)
}

// close counts a connection that gives its port back, now or after a TIME_WAIT.
func (tr *tracker) close(t *tcp.Transition) {
	ns := tr.activeNamespace(t.Netns, userOf(t))
	timeWait, client := t.New == tcp.TimeWait, tr.isClient(t, ns)
	if !client && tr.seeding.observed != nil {
		key := destinationOf(t)
		tr.seeding.record(t.Cookie, &key, false)
	}
	switch {
	case client:
		tr.closeClient(t, ns)
	case timeWait && t.Role != tcp.RoleClient:
		key := server{local: t.Local.Addr, netns: t.Netns, port: t.Local.Port}
		use := tr.servers.GetOrInsert(key, key.hash(), userOf(t))
		use.Value.ClosedToTimeWait(t.Monotonic, ns.timeWaitKind(t))
		use.Value.count(t)
		tr.servers.Add(use, 1)
		ns.notReusable.ClosedToTimeWait(t.Monotonic, ns.timeWaitKind(t))
	case timeWait: // a client on a port that it has bound itself
		ns.notReusable.ClosedToTimeWait(t.Monotonic, ns.timeWaitKind(t))
	}
	if len(ns.binds) > 0 && t.Role != tcp.RoleServer {
		ns.bindClosed(t)
	}
}

// isClient reports whether the connection uses a port that connect() chose or could have chosen. The rule is the
// same when a connection opens and when it ends, whatever was bound meanwhile. For a socket that is older than
// the tracer its port decides.
func (tr *tracker) isClient(t *tcp.Transition, ns *namespace) bool {
	switch {
	case t.Role == tcp.RoleServer:
		return false
	case t.Role == tcp.RoleClient:
		if len(ns.binds) == 0 {
			return true
		}
		b := ns.binds[t.Local.Port]
		return b == nil || b.counted
	case t.Local.Port == 0 || !ns.known:
		return false
	}
	return ns.connectChooses(t.Local.Port)
}

// closeClient is close for a connection that isClient.
func (tr *tracker) closeClient(t *tcp.Transition, ns *namespace) {
	key := tr.countedUnder(t)
	uncounted := tr.seeding.isUncounted(t)
	tr.seeding.record(t.Cookie, &key, false)
	if t.New != tcp.TimeWait {
		use := tr.destinations.Find(key, key.hash())
		switch {
		case use == nil:
		case uncounted:
			use.Value.GaveBack(t.Monotonic)
		default:
			use.Value.Closed(t.Monotonic)
			use.Value.changes++
			if tcp.ClosedByOf(t) == tcp.ClosedByNoPort {
				use.Value.unmoved += 2
			}
		}
		return
	}
	kind := ns.timeWaitKind(t)
	if ns.isBound(t.Local.Port) {
		kind.Timestamp = false // connect() skips the port, and so takes over no TIME_WAIT on it
	}
	if kind.Timestamp && ns.limits.AllowsReuse(t.Local.Addr, t.Peer.Addr) {
		ns.reusable.ClosedToTimeWait(t.Monotonic, kind)
	} else {
		ns.notReusable.ClosedToTimeWait(t.Monotonic, kind)
	}
	use := tr.destinations.GetOrInsert(key, key.hash(), userOf(t))
	use.Value.changes++
	if use.Value.OpenCount() == 0 { // it was not counted when it opened
		use.Value.count(t)
		tr.destinations.Add(use, 1)
	}
	if uncounted {
		use.Value.Advance(t.Monotonic)
		use.Value.TimeWaitCreated(t.Monotonic, kind)
		return
	}
	use.Value.ClosedToTimeWait(t.Monotonic, kind)
}

// countedUnder is the destination for which a connection that ends was counted when it opened. A socket with its
// own range that is older than the tracer was counted with those without: the kernel's table does not show the
// range. countedUnder takes such a socket off destinationUse.earlier.
func (tr *tracker) countedUnder(t *tcp.Transition) destination {
	key := destinationOf(t)
	if !key.ownRange {
		return key
	}
	if own := tr.destinations.Find(key, key.hash()); own != nil && own.Value.OpenCount() > 0 {
		return key
	}
	shared := key
	shared.ownRange = false
	if e := tr.destinations.Find(shared, shared.hash()); e != nil && e.Value.earlier > 0 {
		e.Value.earlier--
		return shared
	}
	return key
}

// decayEvery is how often the counts of processes are halved.
const decayEvery = 16 * time.Second

// tick sets the time. Once a second it also updates the weights of all entries, and drops idle ones.
func (tr *tracker) tick(now time.Duration) {
	tr.now = max(tr.now, now)
	second := int64(tr.now / time.Second)
	if second == tr.swept {
		return
	}
	tr.swept = second
	decay := second%int64(decayEvery/time.Second) == 0
	open := tr.openByNamespace()
	tr.destinations.Unpin() // the detectors pin again what has an open alert
	tr.namespaces.Unpin()
	tr.destinations.Sweep(func(e *topk.Entry[destination, destinationUse]) bool {
		u := &e.Value
		u.binds = 0 // sweepBinds counts them again
		refresh(&u.Estimator, &u.topServices, &e.Missed, tr.now, decay)
		u.settle(tr.now)
		timeWait, finWait2 := u.RecordedTimeWaits()
		e.Weight = uint64(u.OpenCount() + timeWait + finWait2)
		return !u.Idle()
	})
	tr.servers.Sweep(func(e *topk.Entry[server, serverUse]) bool {
		u := &e.Value
		refresh(&u.Estimator, &u.topServices, &e.Missed, tr.now, decay)
		timeWait, finWait2 := u.RecordedTimeWaits()
		e.Weight = uint64(timeWait + finWait2)
		return !u.Idle()
	})
	tr.binds = newQuota(2 * maxBinds) // sweepBinds counts them again
	tr.namespaces.Sweep(func(e *topk.Entry[uint32, namespace]) bool {
		e.Value.notReusable.Advance(tr.now)
		e.Value.reusable.Advance(tr.now)
		tr.sweepBinds(&e.Value)
		e.Value.open = open[e.Key]
		tr.applyOpen(e.Key, &e.Value)
		if decay {
			e.Value.bindServices.decay()
		}
		timeWait, _ := e.Value.notReusable.RecordedTimeWaits()
		e.Weight = uint64(timeWait) + 1
		// While it is suspected, an alert about it may be open: bind() makes no transition.
		return tr.now-max(e.Value.activeAt, e.Value.suspectedAt) < 2*rate.TimeWaitHold || len(e.Value.binds) > 0
	})
}

// pin keeps the entry that an open alert is about: a flood of new destinations would
// otherwise evict it.
func (tr *tracker) pin(c cause) {
	switch key := c.(type) {
	case destination:
		tr.destinations.Pin(key, key.hash())
	case bucketCause:
		tr.namespaces.Pin(key.netns, uint64(key.netns))
	}
}

// refresh advances an entry of a table to now. With decay it halves the counts of its services.
func refresh(r *rate.Estimator, p *topServices, missed *uint64, now time.Duration, decay bool) {
	r.Advance(now)
	if decay {
		p.decay()
	}
	if r.Age() > rate.TimeWaitHold {
		*missed = 0 // connections from before the entry existed have released their ports by now
	}
}

// losses counts lost transitions by the second.
type losses struct {
	counter rate.Counter
}

func (l *losses) add(now time.Duration, count uint64) {
	l.counter.Advance(int64(now / time.Second))
	already := uint64(l.counter.Sum(0, 1))
	l.counter.Add(int32(min(count, math.MaxInt32-already)))
}

// lastMinute is how many transitions were lost within the last 61 s ([rate.TimeWaitHold]).
func (l *losses) lastMinute(now time.Duration) uint64 {
	l.counter.Advance(int64(now / time.Second))
	return uint64(l.counter.Sum(0, int(rate.TimeWaitHold/time.Second)))
}
