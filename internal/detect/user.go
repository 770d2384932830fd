package detect

import (
	"github.com/tcpshift/tcpshift/internal/detect/topk"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

const unknownUser = topk.UnknownUser

// quotaOf is [topk.QuotaOf].
func quotaOf(uid uint32) uint32 { return topk.QuotaOf(uid) }

// UserOfSockets is on whose account sockets are counted.
func UserOfSockets(o *tcp.SocketOwner) topk.User {
	if o.State == tcp.TimeWait {
		return topk.User{Quota: unknownUser}
	}
	return topk.User{Quota: quotaOf(o.UID), Part: o.CgroupID}
}

// userOf is on whose account a table keeps what a transition is about: the user of the socket, in its network
// namespace. Many containers run as uid 0, each in a namespace of its own.
func userOf(t *tcp.Transition) topk.User { return userIn(t.UID, t.Netns) }

func userIn(uid, netns uint32) topk.User {
	return topk.User{Quota: quotaOf(uid), Part: uint64(uid)<<32 | uint64(netns)}
}

// quota divides the room of a table that evicts nothing: a user may have at most as many entries
// as are free. So one user gets half of it, the next a quarter, and each further one some.
// The zero value has no room.
type quota struct {
	limit int
	total int
	users map[uint32]int // by quotaOf
}

// maxIdleUsers is how many users a quota may have in its map before it removes those without an entry. A map that
// becomes empty and is filled again, as by one connection after another, costs much more than one that keeps its key.
const maxIdleUsers = 64

func newQuota(limit int) quota { return quota{limit: limit, users: make(map[uint32]int)} }

// take counts one more entry for a quota, and reports false if it has no room.
func (q *quota) take(user uint32) bool {
	count := q.users[user]
	if count >= q.limit-q.total {
		return false
	}
	q.users[user] = count + 1
	q.total++
	return true
}

// recount counts an entry again that take has admitted, after the quota was made anew.
func (q *quota) recount(user uint32) {
	q.users[user]++
	q.total++
}

// release takes back what take has counted.
func (q *quota) release(user uint32) {
	q.total--
	count := q.users[user] - 1
	if count <= 0 && len(q.users) > maxIdleUsers {
		delete(q.users, user)
		return
	}
	q.users[user] = max(0, count)
}

// LeftOut counts what detection has not taken into account since the start, because a table was
// full or a user had its share of it. What is evicted from a table counts, too: it was not
// among the busiest. The same thing may count more than once, when it comes back.
type LeftOut struct {
	Destinations uint64 // of clients
	Servers      uint64 // endpoints that servers listen on
	Namespaces   uint64
	Endpoints    uint64 // of connections that failed, were reset or wait in FIN_WAIT2
	Exhaustions  uint64 // connects that found no port, to destinations without room
	Sockets      uint64 // in CLOSE_WAIT and FIN_WAIT2
	Leaks        uint64 // sockets in CLOSE_WAIT whose process or endpoint has no room
	Ports        uint64 // connections from ports that were bound before connect()
	Listeners    uint64
	Seeds        uint64 // sockets from before the start, which may have been seen since
}

// Total is the sum of all.
func (l *LeftOut) Total() uint64 {
	return l.Destinations + l.Servers + l.Namespaces + l.Endpoints + l.Exhaustions + l.Sockets + l.Leaks + l.Ports + l.Listeners + l.Seeds
}

// Tables returns the names of the tables that were full, for messages.
func (l *LeftOut) Tables() (names []string) {
	for _, table := range []struct {
		name  string
		count uint64
	}{
		{"destinations", l.Destinations}, {"servers", l.Servers}, {"network namespaces", l.Namespaces}, {"endpoints", l.Endpoints},
		{"destinations without a free port", l.Exhaustions}, {"half-closed sockets", l.Sockets}, {"leaks of sockets", l.Leaks},
		{"bound ports", l.Ports}, {"listeners", l.Listeners}, {"sockets at the start", l.Seeds},
	} {
		if table.count > 0 {
			names = append(names, table.name)
		}
	}
	return names
}

// LeftOut is what detection has left out since the start.
func (e *Engine) LeftOut() LeftOut {
	l := e.tracker.leftOut
	l.Destinations += e.tracker.destinations.Evicted()
	l.Servers += e.tracker.servers.Evicted()
	l.Namespaces += e.tracker.namespaces.Evicted()
	for _, d := range e.optional.evictors {
		l.Endpoints += d.evicted()
	}
	for _, d := range e.optional.leaving {
		l.Sockets += d.socketsLeftOut()
	}
	l.Exhaustions += e.tracker.exhausted.leftOut
	return l
}

// AddLeftOut counts sockets that the caller has not read, because a namespace has more than it can take.
func (e *Engine) AddLeftOut(sockets uint64) { e.tracker.leftOut.Sockets += sockets }

// evictor is a detector with a table of endpoints of its own.
type evictor interface{ evicted() uint64 }

func (d *connectFailures) evicted() uint64 { return d.peers.Evicted() }
func (d *resetBurst) evicted() uint64      { return d.endpoints.Evicted() }
func (d *finWait2Pileup) evicted() uint64  { return d.created.Evicted() }

// leavesOut is a detector that leaves out sockets for lack of room, and counts them itself.
type leavesOut interface{ socketsLeftOut() uint64 }

func (d *finWait2Pileup) socketsLeftOut() uint64 { return d.attached.leftOut + d.unsighted }

// excess turns the number that each of many readings leaves out into a total. What the reading before has left out,
// too, does not count again.
type excess struct{ before uint64 }

// grow takes the number of a reading, and returns by how much it is above that of the reading before.
func (x *excess) grow(now uint64) (more uint64) {
	more = now - min(now, x.before)
	x.before = now
	return more
}
