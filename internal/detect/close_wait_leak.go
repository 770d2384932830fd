package detect

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// closeWaitLeak finds processes that leave more and more sockets in CLOSE_WAIT: the
// peer has closed, and the process does not.
type closeWaitLeak struct {
	*tracker
	young    youngSockets
	waiting  map[uint64]waitingSocket // by cookie: in CLOSE_WAIT now, and not in young
	room     quota                    // of waiting
	leakRoom quota                    // of leaks
	queue    []arrival                // sockets that are to count at CloseWaitAge, the oldest first, but for those of one tick; some have left CLOSE_WAIT; at most 4*maxWaiting
	next     int                      // index in queue: those before it have reached CloseWaitAge
	leaks    map[leakKey]*leak
	recent   [recentLeaks]*leak // a cache of leaks, by leakKey.slot

	weighedAt time.Duration // when mayHaveEnded was asked last
	soughtAt  time.Duration // when seekLost last did something
}

// leakKey is what sockets are counted by: the local endpoint of a server, because the
// owner of its sockets may not be known; or the process of a client; or, if that is not
// known, the client's peer.
type leakKey struct {
	addr  netip.Addr
	netns uint32
	pid   uint32
	port  uint16

	unaccepted bool // no process has accepted the connections
}

func (k leakKey) netnsInode() uint32 { return k.netns }

func leakKeyOf(t *tcp.Transition) leakKey {
	switch {
	case t.Role == tcp.RoleServer:
		return leakKey{netns: t.Netns, addr: t.Local.Addr, port: t.Local.Port, unaccepted: t.NoProcess}
	case t.Owner.Source != tcp.PIDUnknown:
		return leakKey{netns: t.Netns, pid: t.Owner.PID}
	}
	return leakKey{netns: t.Netns, addr: t.Peer.Addr, port: t.Peer.Port}
}

// recentLeaks is the size of the cache that finds a leak without a look-up in the map, which would
// hash all of the key.
const recentLeaks = 64

func (k *leakKey) slot() uint64 {
	hash := addrHash(k.addr) + uint64(k.port) + uint64(k.pid)
	return hash * 0x9e37_79b9_7f4a_7c15 >> 58 // 2^64 divided by the golden ratio; recentLeaks values
}

type waitingSocket struct {
	leak      *leak
	at        uint32     // when it entered CLOSE_WAIT, in seconds
	quietAt   uint32     // when it counts at the earliest, in seconds: until then its process has sent too lately
	by        countedFor // in leak.topServices
	queued    bool       // it is in queue, and has not reached CloseWaitAge
	stuck     bool       // it is counted in leak.stuck
	confirmed bool       // the kernel's table has had it while it was counted
	earlier   bool       // it is older than the tracer
	user      uint32     // see quotaOf
	unseen    bool       // the newest table of the kernel did not have it
}

// arrival is a socket from the time on from which its age counts.
type arrival struct {
	cookie uint64
	at     time.Duration
}

type leak struct {
	topServices
	key         leakKey
	role        tcp.Role
	local       tcp.Endpoint // of the last socket
	peer        tcp.Endpoint // of the last socket
	stuck       growth       // sockets in CLOSE_WAIT for at least CloseWaitAge
	sockets     int          // in closeWaitLeak.waiting: all that refer to this leak
	unseen      int          // of sockets: the newest table did not have them
	lastArrival time.Duration
	checkedAt   time.Duration // when the newest table of the kernel was read
	refuted     int           // sockets of stuck that the newest table showed to be no leak, and that no older one had confirmed
	ended       int           // sockets that have left stuck for any other reason since the newest table
	suspectedAt time.Duration // since when stuck has sufficed for an alert; 0: it does not
	leftOutAt   time.Duration // when a socket of it last found no room; 0: all that are in CLOSE_WAIT count
	user        uint32        // of the first socket: see quotaOf
	lostBefore  uint64        // tracker.lostTotal when the newest table was requested, or when the leak began
}

// maxWaiting bounds the sockets of one user in each table of single sockets: those in CLOSE_WAIT, those
// in FIN_WAIT2 that a process has, and those that the kernel's table shows in FIN_WAIT2. Of all users
// there are at most twice as many (see quota).
const maxWaiting = 1 << 16

func newCloseWaitLeak(tr *tracker) detector {
	d := &closeWaitLeak{
		tracker: tr, waiting: make(map[uint64]waitingSocket), leaks: make(map[leakKey]*leak),
		room: newQuota(2 * maxWaiting), leakRoom: newQuota(2 * tr.MaxDestinations),
	}
	tr.seedCloseWait, tr.takeCloseWait = d.seed, d.takeTable
	return d
}

func (*closeWaitLeak) kind() string { return "close_wait_leak" }

func (*closeWaitLeak) needs() tcp.Transitions {
	s := between(tcp.States(), []tcp.State{tcp.CloseWait})
	s.Join(between([]tcp.State{tcp.CloseWait}, tcp.States()))
	return s
}

func (d *closeWaitLeak) observe(t *tcp.Transition) {
	switch {
	case t.Cookie == 0: // this kernel does not distinguish sockets
	case t.New == tcp.CloseWait:
		d.arrive(t)
	case t.Old == tcp.CloseWait:
		d.leave(t.Cookie, false)
	}
}

// leave forgets a socket that has left CLOSE_WAIT. refuted means that the kernel's table shows this, and no
// transition does: it may have been wrong to count the socket.
func (d *closeWaitLeak) leave(cookie uint64, refuted bool) {
	if d.young.remove(cookie) {
		return
	}
	w, waits := d.waiting[cookie]
	if !waits {
		return
	}
	delete(d.waiting, cookie)
	d.room.release(w.user)
	w.uncountStuck(d.now, refuted)
	w.setUnseen(false)
	w.leak.sockets--
	w.leak.uncount(w.by)
}

// enqueue takes a socket that has entered CLOSE_WAIT at a time, and counts it for its process. Once it
// has reached CloseWaitAge it counts as stuck. earlier means that it is older than the tracer. enqueue
// returns nil if there is no room.
func (d *closeWaitLeak) enqueue(key leakKey, t *tcp.Transition, at time.Duration, earlier bool) *leak {
	user := quotaOf(t.UID)
	l := d.leakFor(key, user)
	if l == nil {
		d.leftOut.Leaks++
		return nil
	}
	if !d.room.take(user) {
		l.leftOutAt = at
		d.leftOut.Sockets++
		return nil
	}
	l.lastArrival = at
	l.sockets++
	d.waiting[t.Cookie] = waitingSocket{leak: l, at: uint32(at / time.Second), by: l.count(t), queued: true, earlier: earlier, user: user}
	d.push(arrival{t.Cookie, at})
	return l
}

// push appends to the queue.
func (d *closeWaitLeak) push(a arrival) {
	if len(d.queue) >= 4*maxWaiting {
		d.compactQueue()
	}
	d.queue = append(d.queue, a)
}

// isCurrent reports whether a is the arrival for which w is in the queue. An older one of the same
// socket does not count any more.
func (w *waitingSocket) isCurrent(a arrival) bool {
	return w.queued && uint32(a.at/time.Second) >= w.at
}

// leakFor returns the leak of a key, a new one if there is none; nil if there is no room for it.
func (d *closeWaitLeak) leakFor(key leakKey, user uint32) *leak {
	recent := &d.recent[key.slot()]
	if l := *recent; l != nil && l.key == key {
		return l
	}
	l := d.leaks[key]
	if l == nil {
		if !d.leakRoom.take(user) {
			return nil
		}
		l = &leak{key: key, user: user, stuck: newGrowth(d.now), lastArrival: d.now, lostBefore: d.lostTotal}
		d.leaks[key] = l
	}
	*recent = l
	return l
}

func (d *closeWaitLeak) deleteLeak(key leakKey) {
	d.leakRoom.release(d.leaks[key].user)
	delete(d.leaks, key)
	d.recent[key.slot()] = nil
}

// compactQueue drops the sockets that have left CLOSE_WAIT or reached CloseWaitAge.
func (d *closeWaitLeak) compactQueue() {
	kept := d.queue[:0]
	for _, a := range d.queue[d.next:] {
		if w := d.waiting[a.cookie]; w.isCurrent(a) {
			kept = append(kept, a)
		}
	}
	d.queue, d.next = kept, 0
}

// countStuck counts the sockets that have reached CloseWaitAge. A socket on which its process has sent too lately
// goes to the end of the queue, and waits for another CloseWaitAge.
func (d *closeWaitLeak) countStuck() {
	var again []arrival
	for ; d.next < len(d.queue) && d.now-d.queue[d.next].at >= d.CloseWaitAge; d.next++ {
		a := d.queue[d.next]
		w := d.waiting[a.cookie]
		switch {
		case !w.isCurrent(a):
			continue
		case time.Duration(w.quietAt)*time.Second > d.now:
			again = append(again, arrival{a.cookie, d.now})
			continue
		}
		w.queued, w.stuck, w.confirmed = false, true, false
		d.waiting[a.cookie] = w
		w.leak.stuck.advance(d.now)
		if w.earlier {
			w.leak.stuck.addEarlier()
		} else {
			w.leak.stuck.add(a.at + d.CloseWaitAge)
		}
	}
	for _, a := range again {
		d.push(a)
	}
}

func (d *closeWaitLeak) check(raise raiser) {
	d.moveYoung()
	d.countStuck()
	d.seekLost()
	d.giveUp()
	for key, l := range d.leaks {
		if l.stuck.count <= d.CloseWaitCount/2 {
			l.suspectedAt = 0
			if l.refuted > l.ended {
				raise(key, refuted, nil)
			}
			l.refuted, l.ended = 0, 0
			if l.sockets == 0 && d.now-l.lastArrival > 2*d.CloseWaitAge {
				d.deleteLeak(key)
			}
			continue
		}
		l.stuck.advance(d.now)
		if key.unaccepted { // listenQueue reports their listener
			d.requestTable(key.netns, activeInterval)
			continue
		}
		c := keeps
		if d.isLeak(key, l) {
			c = opens
		}
		if d.isTableFresh(key.netns) {
			c |= verified
		}
		raise(key, c, func() Finding { return d.describe(key, l) })
	}
}

// isLeak reports whether an alert may open: there are enough sockets, their number grows, and the kernel's table
// was read since both are so, or could not be read for unverifiedAfter. It requests the table.
func (d *closeWaitLeak) isLeak(key leakKey, l *leak) bool {
	if l.stuck.count < d.CloseWaitCount || !l.stuck.grows() {
		l.suspectedAt = 0
		d.requestTable(key.netns, activeInterval)
		return false
	}
	if l.suspectedAt == 0 {
		l.suspectedAt = d.now
	}
	checked := d.tableReadAt(key.netns) >= l.suspectedAt
	if checked {
		d.requestTable(key.netns, activeInterval)
	} else {
		d.requestTable(key.netns, suspectedInterval)
	}
	return checked || d.now-l.suspectedAt >= unverifiedAfter
}

// isTableFresh reports whether the kernel's table of a namespace confirms the number of sockets.
func (d *closeWaitLeak) isTableFresh(netns uint32) bool {
	return d.now-d.tableReadAt(netns) <= 3*activeInterval
}

func (d *closeWaitLeak) describe(key leakKey, l *leak) Finding {
	count := l.stuck.count
	f := Finding{
		Severity: Warning, Culprit: d.culpritOfSockets(&l.topServices), Netns: key.netns, Role: l.role, RateUnit: "more sockets", Rate: l.stuck.perSecond(d.now),
		// Each socket is known by its cookie: the number is exact if all of them count.
		Occupancy: uint64(count), OccupancySource: FromEvents, Approximate: l.leftOutAt > 0,
		Unverified: !d.isTableFresh(key.netns),
	}
	if !f.Unverified {
		f.OccupancySource, f.complete = FromKernel, d.isTableComplete(key.netns)
	}
	trend := "and their number has stopped growing"
	if f.Rate > 0 && l.stuck.grows() {
		trend = "and their number grows"
	}
	f.Cause = fmt.Sprintf("%s in CLOSE_WAIT for more than %v, %s: the peer has closed, and this process "+
		"does not, nor does it send; each socket keeps a file descriptor",
		counted(f.Occupancy, "socket has been", "sockets have been"), d.CloseWaitAge, trend)
	f.Advice = "find where this process does not close a socket after it has read the end of the stream, such as an error path or a pool " +
		"without a liveness check; a restart buys time, and no sysctl helps"
	if l.role == tcp.RoleServer {
		f.Local = l.local
	} else {
		f.Peer = l.peer
	}
	return f
}
