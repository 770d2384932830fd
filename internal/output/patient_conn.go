package output

import (
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// patientConn is the connection below a TLS connection, which cannot go on after a write that ended early. So
// Write takes everything, and keeps what the connection does not take within the last flush's limit. The user must call
// flush before the next write of the TLS connection. Before it is established, Write waits.
type patientConn struct {
	net.Conn
	established atomic.Bool

	mu      sync.Mutex // the reader of a TLS connection may write, too
	limit   time.Duration
	waiting []byte
}

// Write takes all of b, unless the connection fails. What it does not write at once waits for flush.
func (c *patientConn) Write(b []byte) (int, error) {
	if !c.established.Load() {
		return c.Conn.Write(b)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waiting = append(c.waiting, b...)
	if err := c.flushLocked(); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		return 0, err
	}
	return len(b), nil
}

// flush writes what waits, for up to limit, which is also the limit of later writes. It fails with
// [os.ErrDeadlineExceeded] if some still waits.
func (c *patientConn) flush(limit time.Duration) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.limit = limit
	return c.flushLocked()
}

func (c *patientConn) flushLocked() error {
	if len(c.waiting) == 0 {
		return nil
	}
	_ = c.SetWriteDeadline(time.Now().Add(c.limit))
	n, err := c.Conn.Write(c.waiting)
	c.waiting = c.waiting[:copy(c.waiting, c.waiting[n:])]
	return err
}

// pending is the number of bytes that wait.
func (c *patientConn) pending() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.waiting)
}
