package output

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// firstRetry and longestRetry bound the time between two attempts to connect.
	firstRetry, longestRetry = 100 * time.Millisecond, 30 * time.Second
	// stableAfter is how long a connection must have lasted for its failure to count as the first again.
	stableAfter = 10 * time.Second
	// dialLimit bounds one attempt, the lookup of the name included.
	dialLimit = 10 * time.Second
	// userTimeout is how long sent data may stay without an acknowledgement before the connection fails
	// (TCP_USER_TIMEOUT, tcp(7)): a host that is gone acknowledges nothing.
	userTimeout = 2 * time.Minute
)

// dialed is the result of an attempt to connect.
type dialed struct {
	conn net.Conn
	err  error
}

// Dial connects to address, for up to 10 s. Own gets the cookie of a TCP socket before it connects, so before
// the first event of the connection. A TCP connection whose peer is gone fails after 2 minutes.
func (r *Remote) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	dialer := net.Dialer{Timeout: dialLimit, Control: func(network, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) {
			if r.Own == nil || network[0] != 't' {
				return
			}
			if cookie, err := unix.GetsockoptUint64(int(fd), unix.SOL_SOCKET, unix.SO_COOKIE); err == nil {
				r.Own.Add(cookie)
			}
		})
	}}
	conn, err := dialer.DialContext(ctx, network, address)
	if tcp, ok := conn.(*net.TCPConn); ok {
		setUserTimeout(tcp)
	}
	return conn, err
}

// begin starts an attempt to connect in the background if there is no connection and it is time. The queue calls
// attend when there is a result.
func (o *remote) begin() {
	if o.conn != nil || o.dialing != nil || o.closed || time.Now().Before(o.next) {
		return
	}
	result := make(chan dialed, 1)
	o.dialing = result
	go func() {
		conn, err := o.dial()
		result <- dialed{conn, err}
		o.wake()
	}()
}

// dial makes one attempt to connect, for up to dialLimit.
func (o *remote) dial() (net.Conn, error) {
	if o.Export != nil {
		return newExportConn(o.ctx, o.Export, o.wake), nil // it connects when there is something to send
	}
	ctx, cancel := context.WithTimeout(o.ctx, dialLimit)
	defer cancel()
	conn, err := o.Dial(ctx, o.Network, o.Address)
	if err != nil {
		return nil, err
	}
	if o.TLS == nil {
		return conn, nil
	}
	lower := &patientConn{Conn: conn, limit: slowWrite}
	secure := tls.Client(lower, o.TLS)
	if err = secure.HandshakeContext(ctx); err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("TLS with %s: %w", o.Address, err)
	}
	lower.established.Store(true)
	return secure, nil
}

func setUserTimeout(conn *net.TCPConn) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) { // without it a dead host is found out later
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(userTimeout/time.Millisecond))
	})
}

// dialedWithin takes the result of an attempt to connect, and waits for it no longer than limit.
func (o *remote) dialedWithin(limit time.Duration) {
	if o.dialing == nil {
		return
	}
	select {
	case result := <-o.dialing:
		o.connected(result)
		return
	default:
	}
	if limit == 0 {
		return
	}
	select {
	case result := <-o.dialing:
		o.connected(result)
	case <-time.After(limit):
	}
}

func (o *remote) connected(result dialed) {
	o.dialing = nil
	if result.err != nil {
		o.failed(result.err)
		return
	}
	if o.Export == nil {
		o.notifyBack()
	}
	o.conn, o.since, o.lost = result.conn, time.Now(), new(atomic.Pointer[error])
	o.made.Add(1)
	if o.Network != "unixgram" && o.Export == nil {
		go o.watch(o.conn, o.lost)
	}
}

func (o *remote) notifyBack() {
	if o.notified {
		o.notified = false
		o.Notify("connected to " + o.Address + " again")
	}
}

// watch reads what the peer sends, and discards it, until the peer closes the connection. So a
// connection that ends while there is nothing to write is noticed.
func (o *remote) watch(conn net.Conn, lost *atomic.Pointer[error]) {
	_, err := io.Copy(io.Discard, conn)
	var refusal *net.OpError
	if o.TLS != nil && errors.As(err, &refusal) && refusal.Op == "remote error" { // an alert, such as for our certificate
		err = fmt.Errorf("TLS with %s: %w", o.Address, refusal)
	} else {
		err = fmt.Errorf("%s closed the connection", o.Address)
	}
	lost.Store(&err)
	o.wake()
}

// failed ends the connection, if there is one, and sets the time of the next attempt. What the reader may not
// have read is to be sent again. failed does not wait.
func (o *remote) failed(err error) {
	if o.conn != nil {
		_ = o.conn.Close()
		if time.Since(o.since) >= stableAfter {
			o.failures = 0
		}
	}
	o.conn = nil
	o.rewind()
	if o.closed {
		return
	}
	pause := longestRetry
	if o.failures < 9 { // 100 ms << 9 is more than 30 s
		pause = min(longestRetry, firstRetry<<o.failures)
		o.failures++
	}
	pause = pause/2 + rand.N(pause/2+1) // many hosts lose one reader at once
	o.next = time.Now().Add(pause)
	if !o.notified {
		o.notified = true
		o.Notify(fmt.Sprintf("%v: it tries again", err))
	}
	time.AfterFunc(pause, o.wake)
}
