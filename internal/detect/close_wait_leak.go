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
	waiting  map[uint64]waitingSocket // by cookie: in CLOSE_WAIT now
	queue    []arrival                // by time of arrival; some have left CLOSE_WAIT since
	next     int                      // index in queue: those before it have reached CloseWaitAge
	leaks    map[leakKey]*leak
	overflow bool // some sockets were not counted, because there was no room
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

func leakKeyOf(t *tcp.Transition) leakKey {
	switch {
	case t.Role == tcp.RoleServer:
		return leakKey{netns: t.Netns, addr: t.Local.Addr, port: t.Local.Port, unaccepted: t.Orphan}
	case t.Owner.Source != tcp.PIDUnknown:
		return leakKey{netns: t.Netns, pid: t.Owner.PID}
	}
	return leakKey{netns: t.Netns, addr: t.Peer.Addr, port: t.Peer.Port}
}

type waitingSocket struct {
	leak  *leak
	stuck bool // it is counted in leak.stuck
}

type arrival struct {
	cookie uint64
	at     time.Duration
}

type leak struct {
	topProcesses
	role        tcp.Role
	local       tcp.Endpoint // of the last socket
	peer        tcp.Endpoint // of the last socket
	stuck       int          // sockets in CLOSE_WAIT for at least CloseWaitAge
	history     [12]int      // of stuck, newest first, one value every sampleInterval: three minutes
	sampled     int64        // number of the newest sample
	lastArrival time.Duration
}

const (
	// maxWaiting bounds the sockets in CLOSE_WAIT that are tracked.
	maxWaiting = 1 << 16
	// sampleInterval is the time between two values of leak.history.
	sampleInterval = 15 * time.Second
)

func newCloseWaitLeak(tr *tracker) detector {
	return &closeWaitLeak{tracker: tr, waiting: make(map[uint64]waitingSocket), leaks: make(map[leakKey]*leak)}
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
		w := d.waiting[t.Cookie]
		delete(d.waiting, t.Cookie)
		if w.stuck {
			w.leak.stuck--
		}
	}
}

func (d *closeWaitLeak) arrive(t *tcp.Transition) {
	if len(d.waiting) >= maxWaiting {
		d.overflow = true
		return
	}
	if len(d.queue) >= 2*maxWaiting {
		d.compactQueue()
	}
	l := d.leakFor(leakKeyOf(t))
	if l == nil {
		d.overflow = true
		return
	}
	l.role, l.local, l.peer, l.lastArrival = t.Role, t.Local, t.Peer, t.Monotonic
	l.count(t)
	d.waiting[t.Cookie] = waitingSocket{leak: l}
	d.queue = append(d.queue, arrival{t.Cookie, t.Monotonic})
}

// leakFor returns nil if there is no room for another leak.
func (d *closeWaitLeak) leakFor(key leakKey) *leak {
	l := d.leaks[key]
	if l == nil {
		if len(d.leaks) >= d.MaxDestinations {
			return nil
		}
		l = &leak{sampled: int64(d.now / sampleInterval)}
		d.leaks[key] = l
	}
	return l
}

// compactQueue drops the sockets that have left CLOSE_WAIT or reached CloseWaitAge.
func (d *closeWaitLeak) compactQueue() {
	kept := d.queue[:0]
	for _, a := range d.queue[d.next:] {
		if _, waits := d.waiting[a.cookie]; waits {
			kept = append(kept, a)
		}
	}
	d.queue, d.next = kept, 0
}

func (d *closeWaitLeak) check(raise raiser) {
	for ; d.next < len(d.queue) && d.now-d.queue[d.next].at >= d.CloseWaitAge; d.next++ {
		cookie := d.queue[d.next].cookie
		if w, waits := d.waiting[cookie]; waits {
			d.waiting[cookie] = waitingSocket{w.leak, true}
			w.leak.stuck++
		}
	}
	for key, l := range d.leaks {
		grows := l.grows(d.now)
		describe := func() Finding { return d.describe(key, l) }
		switch {
		case l.stuck >= d.CloseWaitCount && grows:
			raise(key, false, describe)
		case l.stuck > d.CloseWaitCount/2:
			raise(key, true, describe)
		case l.stuck == 0 && d.now-l.lastArrival > 2*d.CloseWaitAge: // none of its sockets is in the queue either
			delete(d.leaks, key)
		}
	}
}

// grows reports whether the number of sockets has kept growing, and is a quarter
// above that of three minutes ago.
func (l *leak) grows(now time.Duration) bool {
	for at := int64(now / sampleInterval); l.sampled < at; l.sampled++ {
		copy(l.history[1:], l.history[:])
		l.history[0] = l.stuck
	}
	h := &l.history
	return l.stuck > h[1] && h[1] >= h[5] && h[5] >= h[11] && 4*l.stuck >= 5*h[11]
}

func (d *closeWaitLeak) describe(key leakKey, l *leak) Finding {
	oldest := len(l.history) - 1
	f := Finding{
		Severity: Warning, Process: l.top(), Netns: key.netns, Role: l.role, RateUnit: "more sockets",
		Rate: max(0, float64(l.stuck-l.history[oldest])) / (sampleInterval * time.Duration(len(l.history))).Seconds(),
		// Each socket is known by its cookie: the number is exact.
		Occupancy: uint64(l.stuck), OccupancySource: FromEvents, Approximate: d.overflow,
		Cause: fmt.Sprintf("%d sockets have been in CLOSE_WAIT for more than %v, and their number grows: the peer has closed, and this process "+
			"does not; each socket keeps a file descriptor", l.stuck, d.CloseWaitAge),
		Advice: "find where this process does not close a socket after it has read the end of the stream, such as an error path or a pool " +
			"without a liveness check; a restart buys time, and no sysctl helps",
	}
	if key.unaccepted {
		f.Cause = fmt.Sprintf("%d connections have been in CLOSE_WAIT for more than %v, and their number grows: the peer has closed, and no "+
			"process has accepted them; they wait in the listener's queue", l.stuck, d.CloseWaitAge)
		f.Advice = "find why this process does not call accept(): it is stopped, blocked or has too few threads (`ss -ltn`: Recv-Q is the length " +
			"of the queue); a restart drops the queue, and a longer backlog only makes clients wait longer"
	}
	if l.role == tcp.RoleServer {
		f.Local = l.local
	} else {
		f.Peer = l.peer
	}
	return f
}
