package detect

import (
	"time"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// attachedSockets counts the sockets in FIN_WAIT2 that a process still has open, by peer or endpoint.
// No timer ends such a socket.
type attachedSockets struct {
	sockets map[uint64]attachedSocket // by cookie
	room    quota                     // of sockets
	leftOut uint64                    // sockets that are not counted, for lack of room
	byKey   map[waitingKey]*attachedCount
}

type attachedSocket struct {
	key    waitingKey
	at     time.Duration // when it was added
	by     countedFor    // in attachedCount.services
	user   uint32        // see quotaOf
	unseen bool          // the newest table of the kernel did not have it
}

type attachedCount struct {
	services topServices // never decayed: the sockets stay
	count    int
}

func newAttachedSockets() attachedSockets {
	return attachedSockets{sockets: make(map[uint64]attachedSocket), byKey: make(map[waitingKey]*attachedCount), room: newQuota(2 * maxWaiting)}
}

// add counts the socket of a transition. Without a cookie its end could not be recognised.
func (l *attachedSockets) add(now time.Duration, key waitingKey, t *tcp.Transition) {
	if _, known := l.sockets[t.Cookie]; known || t.Cookie == 0 {
		return
	}
	user := quotaOf(t.UID)
	if !l.room.take(user) {
		l.leftOut++
		return
	}
	c := l.byKey[key]
	if c == nil {
		c = &attachedCount{}
		l.byKey[key] = c
	}
	c.count++
	l.sockets[t.Cookie] = attachedSocket{key: key, at: now, by: c.services.count(t), user: user}
}

func (l *attachedSockets) remove(cookie uint64) {
	if len(l.sockets) == 0 {
		return
	}
	s, known := l.sockets[cookie]
	if !known {
		return
	}
	delete(l.sockets, cookie)
	l.room.release(s.user)
	if c := l.byKey[s.key]; c.count > 1 {
		c.count--
		c.services.uncount(s.by)
	} else {
		delete(l.byKey, s.key)
	}
}

// forget drops the sockets of a namespace that is gone.
func (l *attachedSockets) forget(netns uint32) {
	for cookie, s := range l.sockets {
		if s.key.netns == netns {
			l.remove(cookie)
		}
	}
}

// isFull reports whether there may be no room for further sockets of some user.
func (l *attachedSockets) isFull() bool { return len(l.sockets) >= maxWaiting }

// reconcile forgets the sockets of a namespace that two of the kernel's tables in succession do
// not have: their ends were lost. One table proves too little, because the kernel may leave out a
// socket while the table changes. Sockets that were added after readAt, when the newest table was
// read, may be missing in it.
func (l *attachedSockets) reconcile(readAt time.Duration, netns uint32, has func(cookie uint64) bool) {
	for cookie, s := range l.sockets {
		if s.key.netns != netns || s.at >= readAt {
			continue
		}
		switch unseen := !has(cookie); {
		case unseen && s.unseen:
			l.remove(cookie)
		case unseen != s.unseen:
			s.unseen = unseen
			l.sockets[cookie] = s
		}
	}
}

// services returns the services that have the sockets of a key.
func (l *attachedSockets) services(key waitingKey) *topServices {
	if c := l.byKey[key]; c != nil {
		return &c.services
	}
	return &topServices{}
}
