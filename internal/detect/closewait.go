package detect

import (
	"fmt"
	"time"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// closeWaitLeak finds processes that leave sockets in CLOSE_WAIT, more and more of
// them: the peer has closed, and they do not.
type closeWaitLeak struct {
	*world
	waiting map[uint64]left // by cookie: in CLOSE_WAIT now
	queue   []waiting       // in the order of their coming, until they are stuck; some have left since
	due     int             // the first in it
	owners  map[leakKey]*leak
	recent  recent[leak]
	dropped bool // there was no room for some
}

// leakKey is who leaves sockets: the end of a server, whose sockets may not all tell
// whose they are, or the process that is a client, or else what it connects to.
type leakKey struct {
	netns uint32
	at    tcp.Endpoint
	pid   uint32
}

func (k *leakKey) spread() uint32 { return spread(k.at.Addr, k.at.Port) + k.pid }

func leakKeyOf(t *tcp.Transition) leakKey {
	switch {
	case t.Role == tcp.RoleServer:
		return leakKey{netns: t.Netns, at: t.Local}
	case t.Owner.Source != tcp.PIDUnknown:
		return leakKey{netns: t.Netns, pid: t.Owner.PID}
	}
	return leakKey{netns: t.Netns, at: t.Peer}
}

type left struct {
	owner *leak
	stuck bool // and counted as such
}

type waiting struct {
	cookie uint64
	since  time.Duration
}

type leak struct {
	culprits
	key    leakKey
	role   tcp.Role
	local  tcp.Endpoint // of the last
	peer   tcp.Endpoint
	stuck  int
	past   [12]int // stuck, every 15 s
	sample int64
	last   time.Duration // when one arrived
}

const (
	waitingLimit = 1 << 16
	sampleEvery  = 15 * time.Second
)

func newCloseWaitLeak(w *world) detector {
	return &closeWaitLeak{world: w, waiting: make(map[uint64]left), owners: make(map[leakKey]*leak)}
}

func (*closeWaitLeak) kind() string { return "close_wait_leak" }

func (*closeWaitLeak) needs() tcp.Transitions {
	s := between(tcp.States(), []tcp.State{tcp.CloseWait})
	s.Join(between([]tcp.State{tcp.CloseWait}, tcp.States()))
	return s
}

func (d *closeWaitLeak) observe(t *tcp.Transition) {
	switch {
	case t.Cookie == 0: // a kernel that tells no socket from another
	case t.New == tcp.CloseWait:
		d.arrives(t)
	case t.Old == tcp.CloseWait:
		w := d.waiting[t.Cookie]
		delete(d.waiting, t.Cookie)
		if w.stuck {
			w.owner.stuck--
		}
	}
}

func (d *closeWaitLeak) arrives(t *tcp.Transition) {
	if len(d.waiting) >= waitingLimit {
		d.dropped = true
		return
	}
	if len(d.queue) >= 2*waitingLimit {
		d.tidy()
	}
	key := leakKeyOf(t)
	l := d.leakOf(&key)
	if l == nil {
		d.dropped = true
		return
	}
	l.role, l.local, l.peer, l.last = t.Role, t.Local, t.Peer, t.Monotonic
	l.add(t)
	d.waiting[t.Cookie] = left{owner: l}
	d.queue = append(d.queue, waiting{t.Cookie, t.Monotonic})
}

// leakOf gives nil where there is no room.
func (d *closeWaitLeak) leakOf(key *leakKey) *leak {
	place := d.recent.at(key.spread())
	if l := *place; l != nil && l.key == *key {
		return l
	}
	l := d.owners[*key]
	if l == nil {
		if len(d.owners) >= d.Keys {
			return nil
		}
		l = &leak{key: *key, sample: int64(d.now / sampleEvery)}
		d.owners[*key] = l
	}
	*place = l
	return l
}

// tidy drops from the queue who has left, and whose turn has been.
func (d *closeWaitLeak) tidy() {
	kept := d.queue[:0]
	for _, w := range d.queue[d.due:] {
		if _, still := d.waiting[w.cookie]; still {
			kept = append(kept, w)
		}
	}
	d.queue, d.due = kept, 0
}

func (d *closeWaitLeak) check(raise raiser) {
	for ; d.due < len(d.queue) && d.now-d.queue[d.due].since >= d.Stuck; d.due++ {
		w := &d.queue[d.due]
		if still, found := d.waiting[w.cookie]; found {
			d.waiting[w.cookie] = left{still.owner, true}
			still.owner.stuck++
		}
	}
	for key, l := range d.owners {
		grows := l.grows(d.now)
		switch {
		case l.stuck >= d.Leaked && grows:
			raise(key, false, func() Finding { return d.describe(key, l) })
		case l.stuck > d.Leaked/2:
			raise(key, true, func() Finding { return d.describe(key, l) })
		case l.stuck == 0 && d.now-l.last > 2*d.Stuck: // none of its sockets waits in the queue either
			delete(d.owners, key)
			d.recent.forget()
		}
	}
}

// grows says that there are more and more, and a quarter more than three minutes ago.
func (l *leak) grows(now time.Duration) bool {
	for at := int64(now / sampleEvery); l.sample < at; l.sample++ {
		copy(l.past[1:], l.past[:])
		l.past[0] = l.stuck
	}
	return l.stuck > l.past[1] && l.past[1] >= l.past[5] && l.past[5] >= l.past[11] && 4*l.stuck >= 5*l.past[11]
}

func (d *closeWaitLeak) describe(key leakKey, l *leak) Finding {
	f := Finding{
		Severity: Warning, Who: l.who(), Netns: key.netns, Role: l.role, Counted: "more of them",
		Rate: max(0, float64(l.stuck-l.past[len(l.past)-1])) / (sampleEvery * time.Duration(len(l.past))).Seconds(),
		// Their age is known, their number exact.
		Occupancy: uint64(l.stuck), OccupancySource: FromEvents, Approximate: d.dropped,
		Cause: fmt.Sprintf("%d sockets have been in CLOSE_WAIT for more than %v, and their number grows: the peer has closed, and this process "+
			"does not; each keeps a file descriptor", l.stuck, d.Stuck),
		Advice: "find where this process forgets to close a socket that has read the end of the stream, such as on an error path or in a pool " +
			"without a liveness check; restarting it buys time, no sysctl does",
	}
	if l.role == tcp.RoleServer {
		f.Local = l.local
	} else {
		f.Peer = l.peer
	}
	return f
}
