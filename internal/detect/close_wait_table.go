package detect

import (
	"time"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

const (
	// unverifiedAfter is how long an alert waits for the kernel's table. Then it opens as
	// unverified: the namespace may be one that cannot be read.
	unverifiedAfter = 30 * time.Second
	// unreadableFor is how long an alert stays open while the kernel's table cannot be read and no further
	// socket counts.
	unreadableFor = 10 * time.Minute
	// lateWriteQuiet is a multiple of CloseWaitAge. A process that still sent data CloseWaitAge or
	// more after the peer had closed had not forgotten the socket. So that socket must be silent
	// this many times as long as others before it counts.
	lateWriteQuiet = 10
)

// requestTable requests the sockets in CLOSE_WAIT of a namespace from the kernel, unless they
// were read within an interval.
func (d *closeWaitLeak) requestTable(netns uint32, interval time.Duration) {
	if ns := d.namespaceInTick(netns); ns != nil && (ns.closeWaitReadAt == 0 || d.now-ns.closeWaitReadAt >= interval) {
		ns.wantCloseWait = true
		if interval == suspectedInterval {
			ns.suspectedAt = d.now
		}
	}
}

// tableReadAt is when the kernel's table was read last; 0: never.
func (d *closeWaitLeak) tableReadAt(netns uint32) time.Duration {
	if found := d.namespaces.Find(netns, uint64(netns)); found != nil {
		return found.Value.closeWaitReadAt
	}
	return 0
}

// seed takes a socket in CLOSE_WAIT that is older than the tracer. Its owner is not known, nor how long it has been
// in that state: its age begins now. server means that it belongs to a listener.
func (d *closeWaitLeak) seed(netns uint32, server bool, s *tcp.Socket) {
	d.moveYoung()
	if _, known := d.waiting[s.Cookie]; known || s.Cookie == 0 {
		return
	}
	key, role := leakKey{netns: netns, addr: s.Peer.Addr, port: s.Peer.Port}, tcp.RoleClient
	if server {
		key, role = leakKey{netns: netns, addr: s.Local.Addr, port: s.Local.Port, unaccepted: s.NoProcess}, tcp.RoleServer
	}
	if l := d.enqueue(key, &s.Transition, d.now, true); l != nil {
		l.role, l.local, l.peer = role, s.Local, s.Peer
	}
}

// takeTable compares the sockets of one namespace with the kernel's table, which was read
// from the time readAt on. Sockets that it does not have do not count: their ends were lost. Nor do
// those on which their processes still send. If all sockets of the table are known, none is left out any
// more.
func (d *closeWaitLeak) takeTable(readAt time.Duration, netns uint32, sockets []tcp.CloseWaitSocket) {
	d.moveYoung()
	listed, unknown := make(map[uint64]*tcp.CloseWaitSocket, len(sockets)), make(map[uint64]bool)
	for i := range sockets {
		if _, known := d.waiting[sockets[i].Cookie]; !known {
			unknown[sockets[i].Cookie] = true
		}
		listed[sockets[i].Cookie] = &sockets[i]
	}
	ns := d.ensureNamespace(netns)
	d.learnUnknown(ns, unknown)
	lostBefore := ns.closeWaitLost
	for key, l := range d.leaks {
		if key.netns == netns {
			l.refuted, l.ended, l.checkedAt = 0, 0, readAt
			l.lostBefore = lostBefore
			if len(unknown) == 0 && l.leftOutAt < readAt {
				l.leftOutAt = 0
			}
		}
	}
	for cookie, w := range d.waiting {
		if w.leak.key.netns != netns || time.Duration(w.at+1)*time.Second > readAt {
			continue
		}
		s := listed[cookie]
		switch {
		case s != nil:
			d.confirm(cookie, w, s, readAt)
		case w.unseen:
			d.leave(cookie, true)
		default: // the kernel may leave out a socket while its table changes
			w.uncountStuck(d.now, true)
			w.setUnseen(true)
			d.waiting[cookie] = w
		}
	}
	d.suspectAnew(netns)
	ns.closeWaitReadAt = readAt
}

// learnUnknown finds out from the sockets of a new table of which no transition has come whether the leaks lack some
// because of a loss. One that enters CLOSE_WAIT about when the table is read is not known either; but one that has
// entered it before a loss, and has not left it, is in all tables since. A minute after the last loss it does not matter.
func (d *closeWaitLeak) learnUnknown(ns *namespace, unknown map[uint64]bool) {
	if d.losses.lastMinute(d.now) == 0 {
		ns.closeWaitUnknown, ns.closeWaitComplete = nil, false
		return
	}
	isSecond := ns.closeWaitReadAt > d.lostAt
	ns.closeWaitComplete = len(unknown) == 0 || isSecond
	for cookie := range unknown {
		if ns.closeWaitUnknown[cookie] {
			ns.closeWaitComplete = false
		}
	}
	ns.closeWaitUnknown = unknown
}

// isTableComplete reports whether nothing that was lost is missing from the leaks of a namespace: the newest table was
// read after the last loss, and has shown that.
func (d *closeWaitLeak) isTableComplete(netns uint32) bool {
	found := d.namespaces.Find(netns, uint64(netns))
	return found != nil && found.Value.closeWaitReadAt > d.lostAt && found.Value.closeWaitComplete
}

// suspectAnew resets the suspicion of each leak of a namespace if the table has refuted most of its sockets: the sockets
// that count from now on need a newer table.
func (d *closeWaitLeak) suspectAnew(netns uint32) {
	for key, l := range d.leaks {
		if key.netns == netns && l.refuted > l.stuck.count {
			l.suspectedAt = 0
		}
	}
}

// confirm takes a socket that the kernel's table has. If its process has sent lately, it does not count,
// and its age begins again.
func (d *closeWaitLeak) confirm(cookie uint64, w waitingSocket, s *tcp.CloseWaitSocket, readAt time.Duration) {
	quiet, sentAt := d.CloseWaitAge, readAt-s.SinceSent
	if sentAt-time.Duration(w.at)*time.Second >= d.CloseWaitAge {
		quiet *= lateWriteQuiet
	}
	if w.leak.key.unaccepted && s.Accepted {
		d.moveAccepted(&w)
	}
	if s.SendQueued || s.SinceSent < quiet {
		w.uncountStuck(d.now, true)
	}
	w.confirmed, w.quietAt = w.stuck, uint32((readAt+quiet-s.SinceSent)/time.Second)
	if w.setUnseen(false); !w.stuck && !w.queued {
		w.queued = true
		d.push(arrival{cookie, d.now})
	}
	d.waiting[cookie] = w
}

// moveAccepted moves a socket that a process has now accepted: from the leak of the endpoint's unaccepted
// connections to the leak of its accepted ones. If there is no room for that, the socket stays.
func (d *closeWaitLeak) moveAccepted(w *waitingSocket) {
	key := w.leak.key
	key.unaccepted = false
	if l := d.leakFor(key, w.user); l != nil {
		w.uncountStuck(d.now, false) // until now it rightly counted there
		w.leak.uncount(w.by)
		w.by = countedFor{} // the process that has accepted it is not known
		l.countUnknown()
		l.role, l.local, l.peer, l.lastArrival = w.leak.role, w.leak.local, w.leak.peer, d.now
		unseen := w.unseen
		w.setUnseen(false)
		w.leak.sockets--
		l.sockets++
		w.leak = l
		w.setUnseen(unseen)
	}
}

// setUnseen notes whether the newest table lacks a socket.
func (w *waitingSocket) setUnseen(unseen bool) {
	switch {
	case unseen && !w.unseen:
		w.leak.unseen++
	case !unseen && w.unseen:
		w.leak.unseen--
	}
	w.unseen = unseen
}

// uncountStuck takes a socket off the count of its leak, if it is counted. refuted means that the kernel's table
// does not confirm it: then it was wrong to count it, unless an older table had confirmed it.
func (w *waitingSocket) uncountStuck(now time.Duration, refuted bool) {
	if !w.stuck {
		return
	}
	w.stuck = false
	if refuted && !w.confirmed {
		w.leak.refuted++
	} else {
		w.leak.ended++
	}
	w.leak.stuck.advance(now)
	if w.earlier {
		w.leak.stuck.removeEarlier()
	} else {
		w.leak.stuck.remove()
	}
}
