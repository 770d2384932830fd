package detect

import (
	"cmp"
	"slices"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// youngSockets has the sockets that have entered CLOSE_WAIT since the last tick. Nearly all leave it within milliseconds:
// they never get into a map. Each has one place, by the last bits of its cookie. A newer socket with the same place moves
// the older one to closeWaitLeak.waiting. The next tick moves all that are left.
type youngSockets struct {
	at    [1 << youngBits]tcp.Transition // Cookie 0: free
	count int
}

const youngBits = 8

func (y *youngSockets) slot(cookie uint64) *tcp.Transition {
	return &y.at[cookie&(1<<youngBits-1)]
}

// remove reports whether the socket was there.
func (y *youngSockets) remove(cookie uint64) bool {
	t := y.slot(cookie)
	if t.Cookie != cookie {
		return false
	}
	*t = tcp.Transition{} // so that it does not refer to its cgroup
	y.count--
	return true
}

// inOrder returns the sockets that are there, by the time at which they entered CLOSE_WAIT.
func (y *youngSockets) inOrder() (all []*tcp.Transition) {
	if y.count == 0 {
		return nil
	}
	for i := range y.at {
		if t := &y.at[i]; t.Cookie != 0 {
			all = append(all, t)
		}
	}
	slices.SortStableFunc(all, func(a, b *tcp.Transition) int { return cmp.Compare(a.Monotonic, b.Monotonic) })
	return all
}

// arrive takes a socket that has entered CLOSE_WAIT. After the first loss each costs a look-up.
func (d *closeWaitLeak) arrive(t *tcp.Transition) {
	if d.lostAt > 0 || d.seeding.observed != nil {
		d.leave(t.Cookie, false) // its end was lost, or seed has taken it already
	}
	place := d.young.slot(t.Cookie)
	if place.Cookie != 0 {
		d.startWaiting(place)
		d.young.count--
	}
	*place = *t
	d.young.count++
}

// moveYoung moves the young sockets to waiting. Each function that reads waiting calls it first. observe need not: leave
// looks in both.
func (d *closeWaitLeak) moveYoung() {
	for _, t := range d.young.inOrder() {
		d.startWaiting(t)
		*t = tcp.Transition{}
	}
	d.young.count = 0
}

// startWaiting counts a socket that has entered CLOSE_WAIT, for its leak.
func (d *closeWaitLeak) startWaiting(t *tcp.Transition) {
	if l := d.enqueue(leakKeyOf(t), t, t.Monotonic, false); l != nil {
		l.role, l.local, l.peer = t.Role, t.Local, t.Peer
	}
}
