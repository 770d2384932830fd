package detect

import (
	"time"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

const (
	// The listeners of a namespace are read every listenInterval, and more often while
	// connections stay in a queue (queuedInterval) or a queue has overflowed (suspectedInterval).
	listenInterval = activeInterval
	queuedInterval = 5 * time.Second
	// unacceptedInterval is how often the connections that wait for accept() are read. That
	// walks the table of connections.
	unacceptedInterval = 10 * time.Second
	// listenForgetAfter is how long the listeners of a namespace must have been unreadable for
	// it to be forgotten.
	listenForgetAfter = time.Minute
	// listenFailedFor is how long its readings must have failed for its alerts to lapse: the third failed reading in a
	// row, because they come every listenInterval. Without any answer, as on a starved machine, it takes listenForgetAfter.
	listenFailedFor = 2*listenInterval - 2*time.Second
	// maxListeners bounds the listeners that are remembered of one user, over all namespaces; of
	// all users there are at most twice as many (see quota). They take at most about 40 MiB.
	// maxUnaccepted bounds the connections of one namespace that wait for accept().
	maxListeners  = 1 << 16
	maxUnaccepted = 1 << 14
	// maxChildren bounds the endpoints of one namespace whose children are remembered.
	maxChildren = 256
)

// ListenRequest asks for the listeners of a namespace, which takes a walk through the kernel's
// table of listeners.
type ListenRequest struct {
	// Urgent means that a queue overflowed at the reading before. Otherwise nothing is known to be wrong.
	Urgent bool
	// Unaccepted asks for the connections that wait for accept() on these local ports as well,
	// which takes a walk through the table of connections.
	Unaccepted []uint16
}

// ListenTable is the listeners of one namespace at one moment.
type ListenTable struct {
	ReadAt    time.Duration // when the reading began
	Listeners []tcp.Listener
	// Overflows is ListenOverflows of the namespace: how many segments have found the queue of a
	// listener full; 0 if no listener has a queue or drops.
	Overflows uint64
	// KnownOnly means that only listeners whose transition to LISTEN the engine has observed
	// may raise an alert: a filter is on what the table does not show.
	KnownOnly bool

	// LeftOut is how many more listeners there were than Listeners may have.
	LeftOut int

	HasUnaccepted bool // Unaccepted was asked for and read
	Unaccepted    []tcp.UnacceptedSocket
}

// user is on whose account the namespace is kept: that of its first listener. See quotaOf.
func (t *ListenTable) user() uint32 {
	if len(t.Listeners) == 0 {
		return unknownUser
	}
	return quotaOf(t.Listeners[0].UID)
}

// UpdateListeners sets the listeners of a namespace, requested or not; nil if they could not
// be read. It keeps no reference to t.
func (e *Engine) UpdateListeners(now time.Duration, netns uint32, t *ListenTable) {
	e.tracker.now = max(e.tracker.now, now)
	e.tracker.takeListeners(netns, t)
}

// listenNetns is a namespace that has listeners.
type listenNetns struct {
	user      uint32               // on whose account it is kept: see quotaOf
	left      excess               // of the newest reading: listeners that are not in listeners, for lack of room
	count     int                  // its listeners: those of the newest reading, plus those that have opened since, less those that have closed
	listeners map[uint64]*listener // by cookie: those whose owner is known, or that have or had a queue or drops
	// owners are the owners of listeners where transitions have no cookie, by local endpoint.
	owners map[tcp.Endpoint]listenOwner
	// children are the owners of connections that no process had accepted when the peer closed,
	// by local endpoint. They are the processes of the listeners, which may be older than the tracer.
	children map[tcp.Endpoint]listenOwner
	groups   map[listenCause]*listenGroup // made anew at each reading: see listenGroup

	dueAt     time.Duration // when its listeners are to be read again
	awaited   bool          // they were requested, and no answer has come
	readAt    time.Duration // when they were read last; 0: never
	failedAt  time.Duration // since when they could not be read; 0: they were
	failedFor time.Duration // from then until the newest failed reading
	overflows uint64        // ListenOverflows at readAt

	wantUnaccepted   []uint16             // local ports whose connections that wait for accept() are to be read
	unaccepted       map[uint64]waitingAt // connections that wait for accept(), by cookie
	unacceptedReadAt time.Duration        // when these were read; 0: they were not
}

// waitingAt is since when a connection is known to wait for accept(), and where.
type waitingAt struct {
	since time.Duration
	local tcp.Endpoint
}

// listenOwner is the process that called listen(), or had the listener when the tracer started.
type listenOwner struct {
	tcp.Owner
	cgroupID uint64
	cgroup   *tcp.Cgroup
	at       time.Duration // of the transition that showed it; 0: none did
}

func listenOwnerOf(t *tcp.Transition) listenOwner {
	return listenOwner{Owner: t.Owner, cgroupID: t.CgroupID, cgroup: t.Cgroup, at: t.Monotonic}
}

// listener is one listening socket.
type listener struct {
	owner    listenOwner
	user     uint32        // see quotaOf
	seenAt   time.Duration // the transition that showed it, or the newest reading that had it
	read     bool          // last has what it had dropped before the newest reading: it is new, or an earlier reading had it
	last     tcp.Listener  // what the newest reading had
	overload overload
	queuedAt time.Duration // since then each reading has found connections in its queue; 0: the newest has not
}

// netnsOf returns the entry of a namespace. If there is none it makes one on the account of user, or
// returns nil if there is no room.
func (d *listenQueue) netnsOf(netns, user uint32) *listenNetns {
	n := d.netns[netns]
	if n == nil && d.spaces.take(user) {
		n = &listenNetns{user: user, listeners: make(map[uint64]*listener), dueAt: d.now + listenInterval}
		d.netns[netns] = n
		d.nextDue = min(d.nextDue, n.dueAt)
	}
	return n
}

func (d *listenQueue) forget(netns uint32) {
	if n := d.netns[netns]; n != nil {
		for _, s := range n.listeners {
			d.room.release(s.user)
		}
		d.spaces.release(n.user)
		delete(d.netns, netns)
		delete(d.queued, netns)
	}
}

// listenerAt returns the entry of a listener. If there is none it makes one on the account of user, or
// returns nil if there is no room.
func (d *listenQueue) listenerAt(n *listenNetns, cookie uint64, user uint32) *listener {
	s := n.listeners[cookie]
	if s == nil && d.room.take(user) {
		s = &listener{user: user}
		n.listeners[cookie] = s
	}
	return s
}

func (d *listenQueue) remove(n *listenNetns, cookie uint64) {
	if s := n.listeners[cookie]; s != nil {
		delete(n.listeners, cookie)
		d.room.release(s.user)
	}
}

// seekAfterLoss makes the listeners of each namespace due that has had a transition, and that has no known listener: the
// transition of one may have been lost.
func (d *listenQueue) seekAfterLoss() {
	if d.lostAt == 0 || d.now-d.soughtAt < time.Second {
		return
	}
	d.soughtAt = d.now
	for _, e := range d.namespaces.Entries() {
		if ns := &e.Value; ns.listenersSoughtAt < d.lostAt {
			ns.listenersSoughtAt = d.now
			d.netnsOf(e.Key, e.User().Quota)
		}
	}
}

// addRequests adds the listeners that are to be read now to the requests of their namespaces.
func (d *listenQueue) addRequests(list []Request) []Request {
	d.seekAfterLoss()
	if len(d.netns) == 0 || d.now < d.nextDue {
		return list
	}
	d.nextDue = d.now + listenInterval
	due := make(map[uint32]*ListenRequest)
	for netns, n := range d.netns {
		if d.now >= n.dueAt {
			due[netns] = n.request(d.now)
		}
		d.nextDue = min(d.nextDue, n.dueAt)
	}
	for i := range list {
		if r := due[list[i].Netns]; r != nil {
			list[i].Listeners = r
			delete(due, list[i].Netns)
		}
	}
	for netns, r := range due {
		list = append(list, Request{Netns: netns, Listeners: r, OnlyListeners: true})
	}
	return list
}

// request makes a request for the listeners. If no answer comes, the next one follows after
// listenInterval.
func (n *listenNetns) request(now time.Duration) *ListenRequest {
	n.dueAt, n.awaited = now+listenInterval, true
	r := &ListenRequest{}
	for _, g := range n.groups {
		r.Urgent = r.Urgent || g.overflows
	}
	if len(n.wantUnaccepted) > 0 && (n.unacceptedReadAt == 0 || now-n.unacceptedReadAt >= unacceptedInterval) {
		r.Unaccepted = n.wantUnaccepted
	}
	return r
}

// Joined returns one request in place of r and o; o is the newer one, and both may be nil. It is
// urgent if one of them is. Its Unaccepted are those of o, or those of r if o has none.
func (r *ListenRequest) Joined(o *ListenRequest) *ListenRequest {
	switch {
	case r == nil:
		return o
	case o == nil:
		return r
	}
	joined := *o
	joined.Urgent = r.Urgent || o.Urgent
	if joined.Unaccepted == nil {
		joined.Unaccepted = r.Unaccepted
	}
	return &joined
}

// take compares what is known of the listeners of a namespace with the kernel's table.
func (d *listenQueue) take(netns uint32, t *ListenTable) {
	if t == nil {
		d.takeFailure(netns)
		return
	}
	if len(t.Listeners) == 0 && d.netns[netns] == nil {
		return
	}
	n := d.netnsOf(netns, t.user())
	if n == nil {
		return
	}
	if n.awaited = false; t.ReadAt < n.readAt {
		return // a newer one has come before it
	}
	hadTable := n.readAt > 0
	overflowed := hadTable && t.Overflows > n.overflows
	n.readAt, n.failedAt, n.failedFor, n.overflows, n.count = t.ReadAt, 0, 0, max(n.overflows, t.Overflows), len(t.Listeners)
	n.takeUnaccepted(t)
	d.takeEach(n, t, hadTable, overflowed)
	if n.count == 0 && len(n.listeners) == 0 && len(n.owners) == 0 {
		d.forget(netns)
		return
	}
	d.regroup(netns, n, t)
	n.dueAt = min(n.dueAt, d.now+n.interval())
	d.nextDue = min(d.nextDue, n.dueAt)
}

// takeFailure notes that the listeners of a namespace could not be read.
func (d *listenQueue) takeFailure(netns uint32) {
	n := d.netns[netns]
	switch {
	case n == nil:
	case n.count <= 0 && n.awaited && d.lostAt <= n.readAt:
		d.forget(netns) // see closed
	case n.failedAt == 0:
		n.failedAt = d.now
	case d.now-n.failedAt >= listenForgetAfter:
		d.forget(netns)
	default:
		n.failedFor = d.now - n.failedAt
	}
}

// takeEach updates the listeners, and forgets those that the table does not have any more. hadTable
// means that there was a table before, overflowed that ListenOverflows of the namespace has grown since.
func (d *listenQueue) takeEach(n *listenNetns, t *ListenTable, hadTable, overflowed bool) {
	left := uint64(t.LeftOut)
	allKnown := hadTable && n.left.before == 0 // then a listener that is not in n.listeners had dropped nothing at the table before
	for i := range t.Listeners {
		l := &t.Listeners[i]
		s := n.listeners[l.Cookie]
		if s == nil {
			owner, observed := n.owners[l.Local]
			if !observed && (t.KnownOnly || l.Queued == 0 && l.Drops == 0) {
				continue
			}
			if s = d.listenerAt(n, l.Cookie, quotaOf(l.UID)); s == nil {
				left++
				continue
			}
			s.owner, s.read = owner, allKnown
		}
		s.update(t.ReadAt, l, overflowed)
	}
	d.leftOut.Listeners += n.left.grow(left)
	for cookie, s := range n.listeners {
		if s.seenAt < t.ReadAt {
			d.remove(n, cookie)
		}
	}
}

// update takes what a table has of the listener.
func (s *listener) update(readAt time.Duration, l *tcp.Listener, overflowed bool) {
	var dropped uint32
	if s.read {
		dropped = l.Drops - s.last.Drops
	}
	switch {
	case l.Queued == 0:
		s.queuedAt = 0
	case s.queuedAt == 0:
		s.queuedAt = readAt
	}
	s.overload.update(readAt, dropped, l.IsFull(), l.IsFull() || dropped > 0 && overflowed)
	s.last, s.read, s.seenAt = *l, true, readAt
}

// takeUnaccepted notes for each connection that waits for accept() since when it is known to wait.
func (n *listenNetns) takeUnaccepted(t *ListenTable) {
	if !t.HasUnaccepted {
		return
	}
	n.unacceptedReadAt = t.ReadAt
	before := n.unaccepted
	n.unaccepted = make(map[uint64]waitingAt, min(len(t.Unaccepted), maxUnaccepted))
	for _, s := range t.Unaccepted {
		if len(n.unaccepted) >= maxUnaccepted {
			break
		}
		since := t.ReadAt
		if w, known := before[s.Cookie]; known {
			since = w.since
		}
		n.unaccepted[s.Cookie] = waitingAt{since, s.Local}
	}
}
