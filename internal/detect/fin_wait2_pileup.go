package detect

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/tcpshift/tcpshift/internal/detect/rate"
	"github.com/tcpshift/tcpshift/internal/detect/topk"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// finWait2Pileup finds closed connections whose peers do not close: they stay in
// FIN_WAIT2 until the timeout of the socket, or for ever if a process still has it. No
// tracepoint fires when the peer of a timewait socket closes after all, so the detector
// requests the kernel's table where many may wait.
type finWait2Pileup struct {
	*tracker
	created   *topk.Table[waitingKey, rate.Counter] // sockets that have entered FIN_WAIT2, by second
	attached  attachedSockets
	sightings map[uint32]sightings            // by namespace
	sighted   quota                           // room in sightings: a socket is on the account of its namespace's user
	unsighted uint64                          // sockets that are not in sightings, for lack of room
	counted   map[waitingKey]*halfClosedCount // by the kernel's table
	swept     int64                           // second of the last sweep
}

// sightings are the sockets in FIN_WAIT2 that the newest table of a namespace had. The timer of
// a socket cannot show how long it has waited: the table has the time that is left, and not the
// length of the timeout.
type sightings struct {
	first  map[uint64]time.Duration // by cookie: when the first table was read that had the socket
	many   map[waitingKey]int       // how many of first each key has that has enough of them to count
	at     time.Duration            // when the engine got the newest table
	readAt time.Duration            // when it was read
	left   excess                   // sockets of the newest table that are not in first, for lack of room
	user   uint32                   // on whose account the sockets in first are: see quotaOf
}

// waitingKey is what sockets in FIN_WAIT2 are counted by: the peer of a client, or the
// local endpoint of a server.
type waitingKey struct {
	netns uint32
	role  tcp.Role
	peer  tcp.Endpoint // of a client
	local tcp.Endpoint // of a server
}

func (k waitingKey) netnsInode() uint32 { return k.netns }

func (k *waitingKey) hash() uint64 {
	return addrHash(k.peer.Addr) + addrHash(k.local.Addr) + uint64(k.peer.Port) + uint64(k.local.Port) + uint64(k.role)<<16
}

// halfClosedCount counts sockets that have waited for minWaiting, in the kernel's table.
type halfClosedCount struct {
	count     int           // in the newest table
	attached  int           // of count: a process still has the socket
	all       int           // in the newest table, however long they have waited; those in sightings.first
	perSecond float64       // how many more sockets there are each second, between the newest two tables; 0: fewer
	local     netip.Addr    // of a client: where most of them are from
	at        time.Duration // when the engine got the newest table
	readAt    time.Duration // when it was read
}

// mostAreAttached reports whether processes still have more than half of the sockets: then the alert is
// about these.
func (c *halfClosedCount) mostAreAttached() bool { return 2*c.attached > c.count }

func newFinWait2Pileup(tr *tracker) detector {
	d := &finWait2Pileup{
		tracker: tr, created: topk.New[waitingKey, rate.Counter](tr.MaxDestinations / 8), attached: newAttachedSockets(),
		sightings: make(map[uint32]sightings), sighted: newQuota(2 * maxWaiting), counted: make(map[waitingKey]*halfClosedCount),
	}
	tr.takeHalfClosed, tr.seedAttached, tr.forgetAttached = d.takeFinWait2Table, d.seedAttached, d.attached.forget
	return d
}

func (*finWait2Pileup) kind() string { return "fin_wait2_pileup" }

// needs has the step to FIN_WAIT2, which matters only for a socket that a process still
// has: the kernel emits no other for detection alone (filter.Filter.ExcludeOrphanFinWait2).
func (*finWait2Pileup) needs() tcp.Transitions {
	s := between(tcp.States(), []tcp.State{tcp.TimeWait})
	s.Join(between([]tcp.State{tcp.FinWait1}, []tcp.State{tcp.FinWait2}))
	s.Join(between([]tcp.State{tcp.FinWait2}, []tcp.State{tcp.Close}))
	return s
}

func waitingKeyOf(netns uint32, client bool, local, peer tcp.Endpoint) waitingKey {
	if client {
		return waitingKey{netns: netns, role: tcp.RoleClient, peer: peer}
	}
	return waitingKey{netns: netns, role: tcp.RoleServer, local: local}
}

func (d *finWait2Pileup) observe(t *tcp.Transition) {
	if t.Old == tcp.FinWait2 {
		d.attached.remove(t.Cookie)
	}
	timeWait := t.New == tcp.TimeWait && t.Substate == tcp.FinWait2
	attached := t.Old == tcp.FinWait1 && t.New == tcp.FinWait2 && !t.NoProcess
	if !timeWait && !attached {
		return
	}
	key := waitingKeyOf(t.Netns, d.isClient(t, d.activeNamespace(t.Netns, userOf(t))), t.Local, t.Peer)
	if attached {
		d.attached.add(d.now, key, t)
	}
	e := d.created.GetOrInsert(key, key.hash(), userOf(t))
	e.Value.Advance(int64(d.now / time.Second))
	e.Value.Add(1)
	d.created.Add(e, 1)
}

// seedAttached takes a socket in FIN_WAIT2 that is older than the tracer.
func (d *finWait2Pileup) seedAttached(netns uint32, client bool, s *tcp.Socket) {
	d.attached.add(d.now, waitingKeyOf(netns, client, s.Local, s.Peer), &s.Transition)
}

// pin keeps the entry of created that makes the detector request the kernel's table.
func (d *finWait2Pileup) pin(c cause) {
	key := c.(waitingKey)
	d.created.Pin(key, key.hash())
}

func (d *finWait2Pileup) check(raise raiser) {
	d.requestFinWait2()
	for key, c := range d.counted {
		describe := func() Finding { return d.describe(key, c) }
		switch isFresh := d.isFresh(key.netns, c.at); {
		case d.isOutdated(key.netns, c.at), !isFresh && c.count < d.HalfClosed/2:
			delete(d.counted, key)
		case c.count < d.HalfClosed/2:
		case !isFresh:
			raise(key, keeps, describe)
		case c.count < d.HalfClosed:
			raise(key, keeps|verified, describe)
		default:
			raise(key, opens|verified, describe)
		}
	}
}

// finWait2KeptFor is how long sightings and counts stay without a newer table, which may come late. The kernel has no timewait
// socket for longer unless its peer closes.
const finWait2KeptFor = 64 * time.Second

// isFresh reports whether a table that the engine got at a time shows what is now.
func (d *finWait2Pileup) isFresh(netns uint32, at time.Duration) bool {
	found := d.namespaces.Find(netns, uint64(netns))
	return d.now-at <= 2*activeInterval && (found == nil || !found.Value.unreadable)
}

// isOutdated reports whether a table that the engine got at a time says nothing any more: it is old, or it is not fresh
// and its namespace has been missing since.
func (d *finWait2Pileup) isOutdated(netns uint32, at time.Duration) bool {
	return d.now-at > finWait2KeptFor || !d.isFresh(netns, at) && d.netnsGone.lasts(d.now, netns, activeInterval)
}

// requestFinWait2 requests the kernel's table of each namespace in which enough sockets have
// entered FIN_WAIT2 within 64 s, or enough are attached, or have waited. It also forgets old sightings and counts.
func (d *finWait2Pileup) requestFinWait2() {
	second := int64(d.now / time.Second)
	for _, e := range d.created.Entries() {
		if e.Weight < uint64(d.HalfClosed) { // an upper bound: it falls only with a sweep
			continue
		}
		if e.Value.Advance(second); e.Value.Total() >= int64(d.HalfClosed) {
			d.requestTableOf(e.Key.netns)
		}
	}
	for key, l := range d.attached.byKey {
		if l.count >= d.HalfClosed || d.attached.isFull() {
			d.requestTableOf(key.netns)
		}
	}
	for key, c := range d.counted {
		if c.count >= d.HalfClosed/2 { // an alert may be open, and reports the number of now
			d.requestTableOf(key.netns)
		}
	}
	for netns, s := range d.sightings {
		if d.isOutdated(netns, s.at) {
			d.forgetSighted(netns)
		}
	}
	if second < d.swept+int64(decayEvery/time.Second) {
		return
	}
	d.swept = second
	d.created.Unpin()
	d.created.Sweep(func(e *topk.Entry[waitingKey, rate.Counter]) bool {
		e.Value.Advance(second)
		e.Weight = uint64(e.Value.Total())
		return e.Weight > 0
	})
}

func (d *finWait2Pileup) requestTableOf(netns uint32) {
	ns := d.namespaceInTick(netns)
	if ns == nil {
		return
	}
	ns.suspectedAt = d.now
	// The table must be minWaiting newer than the one before, else it proves nothing of any socket.
	if d.now-max(ns.halfClosedRequestedAt, d.sightings[netns].at) >= minWaiting {
		ns.wantHalfClosed = true
	}
}

// minWaiting is how long a socket must have waited to count: every peer takes some time
// to close. Two tables that far apart must have it.
const minWaiting = 5 * time.Second

// isAttached reports whether a process still has a half-closed socket; a timewait socket has none.
func isAttached(s *tcp.Socket) bool { return s.New == tcp.FinWait2 && !s.NoProcess }

// forgetSighted forgets the sightings of a namespace.
func (d *finWait2Pileup) forgetSighted(netns uint32) {
	s := d.sightings[netns]
	for range s.first {
		d.sighted.release(s.user)
	}
	delete(d.sightings, netns)
}

// takeFinWait2Table counts the half-closed sockets of one namespace, from the kernel's table.
func (d *finWait2Pileup) takeFinWait2Table(now, readAt time.Duration, netns uint32, sockets []tcp.Socket) {
	ns := d.namespaces.Find(netns, uint64(netns))
	if ns == nil {
		return
	}
	counts, attached := make(halfClosedCounts), make(map[uint64]bool)
	byLocal := make(map[destination]halfClosedCount) // of clients
	last, unsighted, user := d.sightings[netns], uint64(0), ns.User().Quota
	left := last.left
	d.forgetSighted(netns)
	seen := make(map[uint64]time.Duration)
	for i := range sockets {
		s := &sockets[i]
		if _, again := seen[s.Cookie]; again { // a table that changes may list a socket twice
			continue
		}
		if isAttached(s) {
			attached[s.Cookie] = true
		}
		first, again := last.first[s.Cookie]
		if !again {
			first = readAt
		}
		client := ns.Value.connectChooses(s.Local.Port)
		key := waitingKeyOf(netns, client, s.Local, s.Peer)
		if d.sighted.take(user) {
			seen[s.Cookie] = first
			counts[key] = counts[key].withSighted()
		} else {
			unsighted++
		}
		if readAt-first < minWaiting { // of the readings: their answers may come late
			continue
		}
		counts[key] = counts[key].with(s)
		if client {
			from := destination{netns: netns, local: s.Local.Addr, peer: s.Peer.Addr, peerPort: s.Peer.Port}
			byLocal[from] = byLocal[from].with(s)
		}
	}
	counts.findLocals(byLocal)
	d.unsighted += left.grow(unsighted)
	d.sightings[netns] = sightings{first: seen, many: counts.many(d.HalfClosed / 2), at: now, readAt: readAt, left: left, user: user}
	d.attached.reconcile(readAt, netns, func(cookie uint64) bool { return attached[cookie] })
	d.setCounts(now, readAt, netns, counts, &last)
}

// withSighted returns c with one more socket, which may not have waited for long.
func (c halfClosedCount) withSighted() halfClosedCount {
	c.all++
	return c
}

// with returns c with one more socket.
func (c halfClosedCount) with(s *tcp.Socket) halfClosedCount {
	c.count++
	if isAttached(s) {
		c.attached++
	}
	return c
}

type halfClosedCounts map[waitingKey]halfClosedCount

// many returns how many sockets each key has that has at least a number of them, however long they have waited.
func (all halfClosedCounts) many(least int) map[waitingKey]int {
	found := make(map[waitingKey]int)
	for key, c := range all {
		if c.all >= least {
			found[key] = c.all
		}
	}
	return found
}

// findLocals finds for each peer the local address that most of the sockets to it have, of those that
// the alert is about: see mostAreAttached.
func (all halfClosedCounts) findLocals(byLocal map[destination]halfClosedCount) {
	most := make(map[waitingKey]int)
	for from, part := range byLocal {
		key := waitingKey{netns: from.netns, role: tcp.RoleClient, peer: tcp.Endpoint{Addr: from.peer, Port: from.peerPort}}
		c, count := all[key], part.count
		if c.mostAreAttached() {
			count = part.attached
		}
		if count > most[key] || count == most[key] && from.local.Less(c.local) { // whatever the order of the map
			most[key], c.local = count, from.local
			all[key] = c
		}
	}
}

// maxCounted bounds the destinations and endpoints whose sockets are counted.
const maxCounted = 1024

// setCounts replaces the counts of a namespace. last is what the table before had.
func (d *finWait2Pileup) setCounts(now, readAt time.Duration, netns uint32, counts halfClosedCounts, last *sightings) {
	for key, c := range d.counted {
		if key.netns == netns && counts[key].count == 0 {
			c.count = 0
		}
	}
	for key, newer := range counts {
		c := d.counted[key]
		switch {
		case newer.count == 0:
			continue
		case c != nil:
			newer.perSecond = growthRate(newer.count-c.count, readAt-c.readAt)
		case newer.count < d.HalfClosed/2 || len(d.counted) >= maxCounted:
			continue
		default: // the table before had all that count now, and they had not waited long enough then
			newer.perSecond = growthRate(newer.all-last.many[key], readAt-last.readAt)
		}
		newer.at, newer.readAt = now, readAt
		d.counted[key] = &newer
	}
}

// growthRate is how many more there are each second; 0 if there are fewer, or no time has passed.
func growthRate(more int, in time.Duration) float64 {
	if in <= 0 {
		return 0
	}
	return max(0, float64(more)/in.Seconds())
}

func (d *finWait2Pileup) describe(key waitingKey, c *halfClosedCount) Finding {
	f := Finding{
		Severity: Warning, Netns: key.netns, Role: key.role, Local: key.local, Peer: key.peer, RateUnit: "more sockets", Rate: c.perSecond,
		Occupancy: uint64(c.count), OccupancySource: FromKernel, Unverified: !d.isFresh(key.netns, c.at),
		Approximate: d.sightings[key.netns].left.before > 0, complete: d.isFresh(key.netns, c.at) && c.readAt > d.lostAt,
		Cause: fmt.Sprintf("this side has closed %s, and the other side has acknowledged that and does not close: "+
			"the peer's application probably leaves its sockets in CLOSE_WAIT", counted(uint64(c.count), "connection", "connections")),
		Advice: "look at the peer: it has to close its sockets after it has read the end of the stream; until then a lower " +
			"net.ipv4.tcp_fin_timeout frees them sooner on this side",
	}
	if c.mostAreAttached() {
		f.Cause = fmt.Sprintf("%s half closed: a process of this host has shut down the socket for writing and still has it, "+
			"and the other side has acknowledged that and does not close; such a socket has no timeout",
			counted(uint64(c.attached), "connection is", "connections are"))
		f.Advice = "let the process close() the socket if the peer does not close within some time after shutdown(); " +
			"then look at the peer: it has to close its sockets after it has read the end of the stream"
		f.Culprit = d.culpritOfSockets(d.attached.services(key))
	}
	if key.role == tcp.RoleClient {
		f.Local = tcp.Endpoint{Addr: c.local}
		from := destination{netns: key.netns, local: c.local, peer: key.peer.Addr, peerPort: key.peer.Port}
		if e := d.destinations.Find(from, from.hash()); e != nil && !f.Culprit.Known {
			f.Culprit = d.culpritOf(&e.Value.topServices)
		}
		return f
	}
	s := server{local: key.local.Addr, netns: key.netns, port: key.local.Port}
	if e := d.servers.Find(s, s.hash()); e != nil && !f.Culprit.Known {
		f.Culprit = d.culpritOf(&e.Value.topServices)
	}
	return f
}
