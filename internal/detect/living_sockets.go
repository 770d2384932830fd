package detect

import (
	"time"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// livingSockets are the sockets in FIN_WAIT2 that a process still has. They have no timer.
type livingSockets struct {
	sockets map[uint64]livingSocket // by cookie
	room    quota                   // of sockets
	leftOut uint64                  // for lack of room
	byKey   map[waitingKey]*livingCount
}

type livingSocket struct {
	key    waitingKey
	at     time.Duration // when it was added
	by     countedFor    // in services
	user   uint32        // see quotaOf
	unseen bool          // the kernel's table did not have it
}

type livingCount struct {
	services topServices // never decayed: the sockets stay
	count    int
}

func newLivingSockets() livingSockets {
	return livingSockets{sockets: make(map[uint64]livingSocket), byKey: make(map[waitingKey]*livingCount), room: newQuota(2 * maxWaiting)}
}

// add counts the socket of a transition. Without a cookie its end could not be recognised.
func (l *livingSockets) add(now time.Duration, key waitingKey, t *tcp.Transition) {
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
		c = &livingCount{}
		l.byKey[key] = c
	}
	c.count++
	l.sockets[t.Cookie] = livingSocket{key: key, at: now, by: c.services.count(t), user: user}
}

func (l *livingSockets) remove(cookie uint64) {
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
func (l *livingSockets) forget(netns uint32) {
	for cookie, s := range l.sockets {
		if s.key.netns == netns {
			l.remove(cookie)
		}
	}
}

// isFull reports whether a user may have sockets that are not counted.
func (l *livingSockets) isFull() bool { return len(l.sockets) >= maxWaiting }

// reconcile forgets the sockets of a namespace that two of the kernel's tables in succession do
// not have: their ends were lost. The table was requested at requestedAt, and has the sockets
// that were there before. It may leave out a socket while it changes.
func (l *livingSockets) reconcile(requestedAt time.Duration, netns uint32, has func(cookie uint64) bool) {
	for cookie, s := range l.sockets {
		if s.key.netns != netns || s.at >= requestedAt {
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

// services counts the services that have the sockets of a key.
func (l *livingSockets) services(key waitingKey) *topServices {
	if c := l.byKey[key]; c != nil {
		return &c.services
	}
	return &topServices{}
}
