package output

import "sync/atomic"

// OwnSockets are the cookies of this process's own sockets. It keeps 256 at most: a later cookie replaces an
// earlier one that has the same slot. Any goroutine may use it.
type OwnSockets struct {
	slots [256]atomic.Uint64
}

// Add remembers the cookie of a socket.
func (s *OwnSockets) Add(cookie uint64) { s.slot(cookie).Store(cookie) }

// Has reports whether a socket with this cookie is one of them. 0 is no cookie.
func (s *OwnSockets) Has(cookie uint64) bool {
	return cookie != 0 && s.slot(cookie).Load() == cookie
}

func (s *OwnSockets) slot(cookie uint64) *atomic.Uint64 {
	return &s.slots[cookie%uint64(len(s.slots))]
}
