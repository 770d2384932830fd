package output

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
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
	// writeLimit is the longest time of a write without TLS.
	writeLimit = time.Second
	// userTimeout is how long sent data may stay without an acknowledgement before the connection fails
	// (TCP_USER_TIMEOUT, tcp(7)): a host that is gone acknowledges nothing.
	userTimeout = 2 * time.Minute
)

// Remote is a socket of another process to which an output connects.
type Remote struct {
	Network string      // tcp, unix or unixgram
	Address string      // host:port or a path
	TLS     *tls.Config // nil: no TLS
	Own     *OwnSockets // gets the cookie of each TCP socket before it connects; nil: no cookies are kept
	// Notify gets a message when the connection is lost, and when it is there again. It must not wait.
	Notify func(message string)
}

// remote is the output to a Remote. It connects when there is something to write, and again after
// each failure. What the reader may not have read goes to the next connection once more.
type remote struct {
	Remote
	dialer net.Dialer
	ctx    context.Context // of attempts to connect
	cancel context.CancelFunc

	conn     net.Conn // nil: there is none
	since    time.Time
	lost     *atomic.Pointer[error] // why conn has ended; nil: it has not
	failures int                    // consecutive
	next     time.Time              // the earliest moment for the next attempt
	notified bool                   // Notify has reported the failures
	closed   bool

	recent  recentLines
	pending []byte // recent lines that conn must get first
	sent    int    // bytes of the next line that conn has got
	wake    func() // makes the queue call attend
}

// OpenRemote makes an output to r. It does not connect yet: an absent reader is not an error.
func OpenRemote(r Remote) Output {
	o := &remote{Remote: r, wake: func() {}}
	o.ctx, o.cancel = context.WithCancel(context.Background())
	o.dialer.Control = o.control
	return o
}

// control notes the socket before it connects: the events of the connection come later.
func (o *remote) control(network, _ string, c syscall.RawConn) error {
	return c.Control(func(fd uintptr) {
		if o.Own == nil || network[0] != 't' {
			return
		}
		if cookie, err := unix.GetsockoptUint64(int(fd), unix.SOL_SOCKET, unix.SO_COOKIE); err == nil {
			o.Own.Add(cookie)
		}
	})
}

// connect makes one attempt to connect, and calls failed if it fails. It waits for up to dialLimit.
func (o *remote) connect() {
	ctx, cancel := context.WithTimeout(o.ctx, dialLimit)
	defer cancel()
	conn, err := o.dialer.DialContext(ctx, o.Network, o.Address)
	if tcp, ok := conn.(*net.TCPConn); ok {
		setUserTimeout(tcp)
	}
	if err == nil && o.TLS != nil {
		secure := tls.Client(conn, o.TLS)
		if err = secure.HandshakeContext(ctx); err != nil {
			_ = conn.Close()
			err = fmt.Errorf("TLS with %s: %w", o.Address, err)
		}
		conn = secure
	}
	if err != nil {
		o.failed(err)
		return
	}
	if o.notified {
		o.notified = false
		o.Notify("connected to " + o.Address + " again")
	}
	o.conn, o.since, o.lost = conn, time.Now(), new(atomic.Pointer[error])
	o.pending = o.recent.tail()
	if o.Network != "unixgram" {
		go o.watch(conn, o.lost)
	}
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

// failed ends the connection, if there is one, and sets the time of the next attempt. It does not wait.
func (o *remote) failed(err error) {
	if o.conn != nil {
		_ = o.conn.Close()
		if time.Since(o.since) >= stableAfter {
			o.failures = 0
		}
	}
	o.conn, o.pending, o.sent = nil, nil, 0
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

// try writes to the connection. written counts whole lines only: a line that a broken connection has cut goes
// to the next connection from its beginning. Every failure is EAGAIN.
func (o *remote) try(lines []byte) (written int, err error) {
	if !o.ready() {
		return 0, unix.EAGAIN
	}
	if o.Network == "unixgram" {
		return o.tryDatagrams(lines)
	}
	n, err := o.write(lines[o.sent:])
	whole := wholeLines(lines[:o.sent+n])
	o.sent += n - whole
	o.recent.add(lines[:whole], o.conn)
	return whole, o.outcome(err)
}

// ready writes the recent lines that the connection must get first. It reports whether there is a connection
// and it has got all of them. It ends a connection that the peer has closed.
func (o *remote) ready() bool {
	if o.conn != nil {
		if reason := o.lost.Load(); reason != nil {
			o.failed(*reason)
		}
	}
	if o.conn == nil {
		return false
	}
	for len(o.pending) > 0 {
		piece := o.pending
		if o.Network == "unixgram" {
			piece = firstLine(piece)
		}
		n, err := o.write(piece)
		o.pending = o.pending[n:]
		if o.outcome(err) != nil {
			return false
		}
	}
	return true
}

// tryDatagrams writes each line as one datagram.
func (o *remote) tryDatagrams(lines []byte) (written int, err error) {
	for written < len(lines) {
		line := firstLine(lines[written:])
		_, err := o.write(line)
		if conn, ok := o.conn.(*net.UnixConn); ok && errors.Is(err, unix.EMSGSIZE) { // net.core.wmem_default is small
			_ = conn.SetWriteBuffer(2 * len(line))
			_, err = o.write(line)
		}
		if err != nil {
			return written, o.outcome(err)
		}
		o.recent.add(line, o.conn)
		written += len(line)
	}
	return written, nil
}

// write writes to the connection, for up to writeLimit. With TLS it has no limit, because a TLS connection
// cannot go on after a write that ended early.
func (o *remote) write(b []byte) (int, error) {
	if o.TLS == nil {
		_ = o.conn.SetWriteDeadline(time.Now().Add(writeLimit))
	}
	return o.conn.Write(b)
}

// outcome ends the connection if err is a failure. At writeLimit (os.ErrDeadlineExceeded) the connection stays.
// outcome returns EAGAIN for every error: what is not written yet can be written later.
func (o *remote) outcome(err error) error {
	if err == nil {
		return nil
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		o.failed(err)
	}
	return unix.EAGAIN
}

// awaitRoom connects if there is no connection. It first waits for the time of the next attempt, but no longer
// than pollPeriod.
func (o *remote) awaitRoom() {
	if o.conn != nil {
		return
	}
	if wait := time.Until(o.next); wait > 0 {
		select {
		case <-time.After(min(wait, pollPeriod)):
		case <-o.ctx.Done():
		}
		if wait > pollPeriod {
			return
		}
	}
	o.connect()
}

// attend connects again if the connection is lost while there are no new lines to write: the reader may not
// have read the recent lines.
func (o *remote) attend() {
	if !o.ready() && o.conn == nil && len(o.recent.lines) > 0 && !time.Now().Before(o.next) {
		o.connect()
		o.ready()
	}
	if o.conn != nil && len(o.pending) > 0 { // the reader is slow
		o.wake()
	}
}

// onWake sets what makes the queue call attend.
func (o *remote) onWake(wake func()) { o.wake = wake }

func (o *remote) Write(lines []byte) (int, error) { return writeAll(o, lines) }

// ReaderGone is false: the reader may come back.
func (o *remote) ReaderGone() bool { return false }

func (o *remote) Reopens() bool { return false }

func (o *remote) Reopen() error { return errors.ErrUnsupported }

func (o *remote) Close() error {
	o.closed = true
	o.cancel()
	if o.conn == nil {
		return nil
	}
	conn := o.conn
	o.conn = nil
	return conn.Close()
}

func (o *remote) batchSize() int { return defaultBatch }

func (o *remote) retryable(error) bool { return false }
