package detect

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"time"

	"github.com/tcpshift/tcpshift/internal/detect/rate"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// listenQueue finds listeners whose accept queue overflows, or whose connections no process
// accepts. A SYN that finds the queue full makes no transition, and neither does accept(): the
// kernel's table of listeners decides. Transitions only show which namespaces have listeners,
// and who has called listen().
type listenQueue struct {
	*tracker
	netns    map[uint32]*listenNetns
	queued   map[uint32]*listenNetns // those that have groups
	room     quota                   // for listeners, in all namespaces
	spaces   quota                   // for namespaces in netns
	nextDue  time.Duration           // when the listeners of the next namespace are to be read
	soughtAt time.Duration           // when seekAfterLoss last did something
}

// listenCause is the endpoint of a listener, or of a group of them with SO_REUSEPORT.
type listenCause struct {
	netns uint32
	local tcp.Endpoint
}

func (c listenCause) netnsInode() uint32 { return c.netns }

const (
	// overloadedFor is how long a queue must overflow before an alert opens: a burst of connections is
	// over sooner. A client that finds the queue full repeats its SYN after 1, 3 and 7 s. So readings
	// without an overflow do not end the overload unless they span more than overloadGap. Nor does a
	// longer time without a reading if the queue is full before and after it.
	overloadedFor = 10 * time.Second
	overloadGap   = 3500 * time.Millisecond
	// minOverloads is how many readings must show an overflow, at least.
	minOverloads = 4
	// unacceptedFor is how long a connection must have waited for accept() to count.
	// enoughUnaccepted is how many such connections raise an alert. If fewer than twice as many fit
	// into the queue, half of what fits is enough: see enoughOf.
	unacceptedFor    = 30 * time.Second
	enoughUnaccepted = 16
	// dropWindow is how many seconds the rate of drops is taken over.
	dropWindow = 10
)

func newListenQueue(tr *tracker) detector {
	d := &listenQueue{
		tracker: tr, netns: make(map[uint32]*listenNetns), queued: make(map[uint32]*listenNetns),
		room: newQuota(2 * maxListeners), spaces: newQuota(2 * (tr.MaxDestinations / 4)),
	}
	tr.takeListeners, tr.addListenRequests, tr.addListenUsage = d.take, d.addRequests, d.addListenUsage
	return d
}

func (*listenQueue) kind() string { return "listen_queue_full" }

func (*listenQueue) needs() tcp.Transitions {
	s := between([]tcp.State{tcp.Close}, []tcp.State{tcp.Listen})
	s.Join(between([]tcp.State{tcp.Listen}, []tcp.State{tcp.Close}))
	s.Join(between(tcp.States(), []tcp.State{tcp.CloseWait}))
	return s
}

func (d *listenQueue) observe(t *tcp.Transition) {
	switch {
	case t.New == tcp.Listen && t.Old == tcp.Close:
		d.opened(t)
	case t.Old == tcp.Listen && t.New == tcp.Close:
		d.closed(t)
	case t.New == tcp.CloseWait && t.NoProcess && t.Role == tcp.RoleServer:
		d.suspectQueue(t) // its client has closed before a process has accepted it
	}
}

// opened remembers the owner of a socket that has begun to listen.
func (d *listenQueue) opened(t *tcp.Transition) {
	n := d.netnsOf(t.Netns, quotaOf(t.UID))
	if n == nil {
		d.leftOut.Listeners++
		return
	}
	n.count++
	owner := listenOwnerOf(t)
	if t.Cookie == 0 {
		if _, several := n.owners[t.Local]; several { // SO_REUSEPORT: the owner is any of several
			owner.Owner = tcp.Owner{}
		}
		if n.owners == nil {
			n.owners = make(map[tcp.Endpoint]listenOwner)
		}
		if len(n.owners) < maxListeners/16 {
			n.owners[t.Local] = owner
		} else {
			d.leftOut.Listeners++
		}
		return
	}
	if s := d.listenerAt(n, t.Cookie, quotaOf(t.UID)); s != nil {
		s.owner, s.seenAt, s.read = owner, t.Monotonic, true // a new socket has dropped nothing
	} else {
		d.leftOut.Listeners++
	}
}

// closed forgets a socket that listens no more, and its namespace if that has no other listener.
func (d *listenQueue) closed(t *tcp.Transition) {
	n := d.netns[t.Netns]
	if n == nil {
		return
	}
	n.count--
	d.remove(n, t.Cookie)
	delete(n.owners, t.Local)
	if cause := (listenCause{t.Netns, t.Local}); n.groups[cause] != nil {
		n.groups[cause].removeMember(t.Cookie)
	}
	if n.count > 0 || d.lostAt > n.readAt {
		return
	}
	if n.readAt = max(n.readAt, t.Monotonic); !n.awaited { // an answer on its way may still have the listener
		d.forget(t.Netns) // it has no listener any more
	}
}

// suspectQueue makes the listeners of a namespace due soon: the client of t has closed before a process
// accepted its connection. It remembers the owner of t, which is the process of the listener.
func (d *listenQueue) suspectQueue(t *tcp.Transition) {
	n := d.netnsOf(t.Netns, quotaOf(t.UID))
	if n == nil {
		return
	}
	n.dueAt = min(n.dueAt, max(d.now, n.readAt+queuedInterval))
	d.nextDue = min(d.nextDue, n.dueAt)
	if t.Owner.Source == tcp.PIDUnknown {
		return
	}
	if n.children == nil || len(n.children) >= maxChildren {
		n.children = make(map[tcp.Endpoint]listenOwner)
	}
	n.children[t.Local] = listenOwnerOf(t)
}

// overload is a period in which the queue of a listener overflows. The zero value: there is none.
type overload struct {
	since, at time.Duration // times of the first and of the newest reading that showed an overflow
	readings  int           // how many showed one
	drops     uint64        // segments that the listener has dropped from the reading before the first one on
	bySecond  *rate.Counter // of drops
	certain   bool          // it has lasted for overloadedFor
	full      bool          // at the newest reading, the queue was full
}

// update takes a reading: how many segments the listener has dropped since the reading before, and
// whether its queue is full or has overflowed since then (overflows).
func (o *overload) update(readAt time.Duration, dropped uint32, isFull, overflows bool) {
	stayedFull := o.full && isFull
	gap := overloadGap
	if o.certain {
		gap = quietPeriod
	}
	switch {
	case !overflows && (o.since == 0 || readAt-o.at > gap):
		*o = overload{}
		return
	case overflows && (o.since == 0 || readAt-o.at > gap && !stayedFull):
		*o = overload{since: readAt, bySecond: &rate.Counter{}}
	}
	o.full = isFull
	o.drops += uint64(dropped)
	o.bySecond.Advance(int64(readAt / time.Second))
	o.bySecond.Add(int32(min(dropped, math.MaxInt32)))
	if overflows {
		o.at = readAt
		o.readings++
	}
	o.certain = o.certain || o.at-o.since >= overloadedFor && o.readings >= minOverloads && o.drops > 0
}

// listenGroup is the listeners of one endpoint: several with SO_REUSEPORT. There is a group while at
// least one of them has connections in its queue, or an overload.
type listenGroup struct {
	members   []*listener // those that have
	all       int         // listeners of this endpoint
	waited    int         // connections that have waited for unacceptedFor, in all queues together
	overflows bool        // the newest reading showed an overflow of at least one
	overloads bool        // at least one has an overload
}

func (g *listenGroup) removeMember(cookie uint64) {
	g.members = slices.DeleteFunc(g.members, func(s *listener) bool { return s.last.Cookie == cookie })
	g.all--
}

// regroup makes the groups of a namespace anew from a reading.
func (d *listenQueue) regroup(netns uint32, n *listenNetns, t *ListenTable) {
	n.groups, n.wantUnaccepted = nil, nil
	for _, s := range n.listeners {
		if s.queuedAt > 0 || s.overload.since > 0 {
			n.addMember(netns, s, t.ReadAt)
		}
	}
	if n.wantUnaccepted == nil {
		n.unaccepted, n.unacceptedReadAt = nil, 0
	}
	if n.groups == nil {
		delete(d.queued, netns)
		return
	}
	d.queued[netns] = n
	n.completeGroups(netns, t)
}

func (n *listenNetns) addMember(netns uint32, s *listener, readAt time.Duration) {
	if n.groups == nil {
		n.groups = make(map[listenCause]*listenGroup)
	}
	cause := listenCause{netns, s.last.Local}
	g := n.groups[cause]
	if g == nil {
		g = &listenGroup{}
		n.groups[cause] = g
	}
	g.members = append(g.members, s)
	g.overflows = g.overflows || s.overload.at == readAt
	g.overloads = g.overloads || s.overload.since > 0
	if int(s.last.Queued) >= enoughOf(&s.last) && !slices.Contains(n.wantUnaccepted, s.last.Local.Port) {
		n.wantUnaccepted = append(n.wantUnaccepted, s.last.Local.Port)
	}
}

// completeGroups counts the listeners of each group, and the connections that have waited long in their
// queues. Where no transition has shown the owner of the only listener, that of a child counts.
func (n *listenNetns) completeGroups(netns uint32, t *ListenTable) {
	for i := range t.Listeners {
		if g := n.groups[listenCause{netns, t.Listeners[i].Local}]; g != nil {
			g.all++
		}
	}
	for _, w := range n.unaccepted {
		if g := n.groupFor(netns, w.local); g != nil && n.unacceptedReadAt-w.since >= unacceptedFor {
			g.waited++
		}
	}
	for local, owner := range n.children {
		if g := n.groupFor(netns, local); g != nil && g.all == 1 && g.members[0].owner.at == 0 {
			g.members[0].owner = owner
		}
	}
}

// groupFor returns the group in whose queues a connection with this local endpoint waits, or nil.
// compute_score() of net/ipv4/inet_hashtables.c prefers a listener with the address of the connection. If
// there is no group with that address, the connection waits at a listener of any address.
func (n *listenNetns) groupFor(netns uint32, local tcp.Endpoint) *listenGroup {
	for _, addr := range []netip.Addr{local.Addr, netip.IPv4Unspecified(), netip.IPv6Unspecified()} {
		if addr == netip.IPv4Unspecified() && !local.Addr.Is4() {
			continue
		}
		if g := n.groups[listenCause{netns, tcp.Endpoint{Addr: addr, Port: local.Port}}]; g != nil {
			return g
		}
	}
	return nil
}

// enoughOf is how many connections must have waited at a listener to raise an alert. Its queue takes one
// more than the backlog.
func enoughOf(l *tcp.Listener) int { return min(enoughUnaccepted, (int(l.Backlog)+2)/2) }

// interval is how long after a reading the next one is due.
func (n *listenNetns) interval() time.Duration {
	interval := listenInterval
	for _, g := range n.groups {
		if g.overloads { // the next reading must come within overloadGap
			return suspectedInterval
		}
		interval = queuedInterval
	}
	return interval
}

func (*listenQueue) pin(cause) {}

func (d *listenQueue) check(raise raiser) {
	for _, n := range d.queued {
		if d.now-n.readAt > listenForgetAfter || n.failedFor >= listenFailedFor {
			continue
		}
		for key, g := range n.groups {
			c := claim(0)
			for _, s := range g.members {
				c |= g.claimOf(s, n.readAt)
			}
			if c == 0 {
				continue
			}
			if d.now-n.readAt <= 2*listenInterval {
				c |= verified
			}
			raise(key, c, func() Finding { return d.describe(key, n, g) })
		}
	}
}

// claimOf is what one listener of the group claims: 0 if nothing is wrong with it.
func (g *listenGroup) claimOf(s *listener, readAt time.Duration) (c claim) {
	enough := enoughOf(&s.last)
	switch {
	case s.overload.certain && (s.overload.at == readAt || 2*s.last.Queued > s.last.Backlog):
		return opens
	case s.queuedAt == 0:
	case g.waited >= enough && int(s.last.Queued) >= enough && readAt-s.queuedAt >= unacceptedFor:
		return opens
	case g.waited > enough/2 && int(s.last.Queued) > enough/2, s.overload.at == readAt:
		return keeps
	}
	return 0
}

// describe reports the listeners of a group for which claimOf is not 0.
func (d *listenQueue) describe(cause listenCause, n *listenNetns, g *listenGroup) Finding {
	f := Finding{
		Severity: Warning, Netns: cause.netns, Role: tcp.RoleListener, Local: cause.local, RateUnit: "dropped segments",
		OccupancySource: FromKernel, CapacityKind: AcceptQueue, Unverified: d.now-n.readAt > 2*listenInterval, complete: true,
	}
	var services topServices
	var since time.Duration
	var backlog uint32
	count := 0
	for _, s := range g.members {
		if g.claimOf(s, n.readAt) == 0 {
			continue
		}
		count++
		backlog = s.last.Backlog
		f.Occupancy += uint64(s.last.Queued)
		f.Capacity += uint64(s.last.Backlog) + 1
		if o := &s.overload; o.since > 0 {
			f.Drops += o.drops
			o.bySecond.Advance(int64(d.now / time.Second))
			f.Rate += float64(o.bySecond.Sum(0, dropWindow)) / dropWindow
			if since == 0 || o.since < since {
				since = o.since
			}
		}
		s.owner.countIn(&services, s.last.UID)
	}
	f.Occupancy = min(f.Occupancy, f.Capacity)
	f.Culprit = d.culpritOfSockets(&services)
	queue := fmt.Sprintf("(backlog %d)", backlog)
	if count > 1 {
		queue = fmt.Sprintf("(%d listeners, the last has a backlog of %d)", count, backlog)
	}
	f.Cause = fmt.Sprintf("%s for accept(), and there is room for %d %s",
		counted(f.Occupancy, "connection waits", "connections wait"), f.Capacity, queue)
	if f.Drops > 0 {
		f.Severity = Critical
		f.Cause += fmt.Sprintf("; within %v the kernel has dropped %s at this listener, SYNs and last ACKs of handshakes: "+
			"clients wait and try again", (d.now - since).Round(time.Second), counted(f.Drops, "segment", "segments"))
	}
	if g.waited > 0 {
		f.Cause += fmt.Sprintf("; at least %s waited for more than %v",
			counted(min(uint64(g.waited), f.Occupancy), "of the connections has", "of the connections have"), unacceptedFor)
	}
	if g.all > count {
		f.Cause += fmt.Sprintf("; of the %d listeners of this endpoint (SO_REUSEPORT) this is so for %d", g.all, count)
	}
	if g.waited > 0 || f.Occupancy == 0 {
		f.Advice = neverAcceptsAdvice
	} else {
		f.Advice = slowAcceptAdvice
	}
	return f
}

const (
	neverAcceptsAdvice = "find why this process does not call accept(): it is stopped, blocked, out of file descriptors, or has too few " +
		"threads (`ss -ltnp`: Recv-Q is the length of the queue, Send-Q the backlog); a restart drops the queue, and a longer backlog " +
		"only makes clients wait longer"
	slowAcceptAdvice = "let this process accept faster: accept() in a thread of its own, all that wait at once, or in more processes " +
		"(SO_REUSEPORT); a longer backlog, in listen() and in net.core.somaxconn, helps only against short bursts"
)

// countIn counts one listener for its owner. uid is that of the socket.
func (o *listenOwner) countIn(s *topServices, uid uint32) {
	s.count(&tcp.Transition{UID: uid, Owner: o.Owner, CgroupID: o.cgroupID, Cgroup: o.cgroup, Monotonic: o.at})
}
