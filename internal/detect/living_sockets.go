package detect

import "github.com/tcpshift/tcpshift/internal/tcp"

// livingSockets are the sockets in FIN_WAIT2 that a process still has. They have no timer.
type livingSockets struct {
	key   map[uint64]waitingKey // by cookie; at most maxWaiting
	byKey map[waitingKey]*livingCount
}

type livingCount struct {
	processes topProcesses // never decayed: the sockets stay
	count     int
}

func newLivingSockets() livingSockets {
	return livingSockets{key: make(map[uint64]waitingKey), byKey: make(map[waitingKey]*livingCount)}
}

// add counts the socket of a transition. Without a cookie its end could not be recognised.
func (l *livingSockets) add(key waitingKey, t *tcp.Transition) {
	if _, known := l.key[t.Cookie]; known || t.Cookie == 0 || len(l.key) >= maxWaiting {
		return
	}
	l.key[t.Cookie] = key
	c := l.byKey[key]
	if c == nil {
		c = &livingCount{}
		l.byKey[key] = c
	}
	c.count++
	c.processes.count(t)
}

func (l *livingSockets) remove(cookie uint64) {
	if len(l.key) == 0 {
		return
	}
	key, known := l.key[cookie]
	if !known {
		return
	}
	delete(l.key, cookie)
	if c := l.byKey[key]; c.count > 1 {
		c.count--
	} else {
		delete(l.byKey, key)
	}
}

// top names the process that has most of the sockets of a key.
func (l *livingSockets) top(key waitingKey) TopProcess {
	if c := l.byKey[key]; c != nil {
		return c.processes.top()
	}
	return TopProcess{}
}
