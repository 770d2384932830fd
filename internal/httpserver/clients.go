package httpserver

import (
	"net"
	"net/http"
	"sync"
	"time"
)

// serveTime is how long a request may take, its arrival and the reading of its answer included, before
// another client gets its place.
const serveTime = time.Second

// clients are the connections of a server, at most maxClients of them. Any local user may connect, and keep
// connections for as long as the server permits. So a further client gets the place of one that does not
// ask for anything, or else of one whose request takes longer than serveTime. If there is none, it is closed.
type clients struct {
	mu   sync.Mutex
	open map[net.Conn]clientState
}

type clientState struct {
	active bool // a request arrives, or is answered
	since  time.Time
}

// changed takes the new state of a connection: see [http.Server.ConnState].
func (c *clients) changed(conn net.Conn, state http.ConnState) {
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	switch state {
	case http.StateNew:
		if len(c.open) >= maxClients {
			out := c.least(now)
			if out == nil {
				out = conn
			}
			delete(c.open, out)
			go func() { _ = out.Close() }() // with TLS it writes
			if out == conn {
				return
			}
		}
		c.open[conn] = clientState{false, now}
	case http.StateActive, http.StateIdle:
		if _, kept := c.open[conn]; kept {
			c.open[conn] = clientState{state == http.StateActive, now}
		}
	default:
		delete(c.open, conn)
	}
}

// least returns the connection whose place another client gets, or nil.
func (c *clients) least(now time.Time) (least net.Conn) {
	var found clientState
	for conn, s := range c.open {
		if s.active && now.Sub(s.since) < serveTime {
			continue
		}
		if least == nil || found.active && !s.active || found.active == s.active && s.since.Before(found.since) {
			least, found = conn, s
		}
	}
	return least
}
