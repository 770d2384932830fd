package output

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// spoolTurn is how long a spool is sent before new lines get their turn.
	spoolTurn = 5 * time.Millisecond
	// slowPause is the time between two writes of a spool to a reader that is slow.
	slowPause = 20 * time.Millisecond
)

// Remote is where an output connects to: a socket of another process, or what Export sends to.
type Remote struct {
	Network string      // "tcp", "unix" or "unixgram"
	Address string      // HOST:PORT or a path
	TLS     *tls.Config // nil: no TLS
	Own     *OwnSockets // gets the cookie of each TCP socket before it connects; nil: no cookies are kept
	Spool   *Spool      // nil: lines wait in memory only
	// Encode appends the content of the datagram for a line, with Network unixgram; nil: the line itself. What
	// is too large for a datagram is passed as a memfd, as journald takes it. A line that Encode refuses is
	// left out, with a message.
	Encode func(dst, line []byte) ([]byte, error)
	// Export sends the lines, in place of Network and TLS; Address is for messages. nil: a socket gets them.
	Export Exporter
	// Notify gets a message when the connection is lost, and when it is there again. It must not wait.
	Notify func(message string)
}

// Exporter sends lines to a receiver that answers each request.
type Exporter interface {
	// Export sends whole lines, and waits for the answer. rejected is how many of them the receiver refuses for
	// good. After an error it may have taken them or not.
	Export(ctx context.Context, lines []byte) (rejected int, err error)
	Close() error
}

// remote is the output to a Remote. It connects when there is something to write, and again after
// each failure.
//
// A connection gets the lines of three places in this order: those of the spool, pending, and those that come
// new from the queue. recent has the last lines that the connection has got. When the connection ends, those
// that the reader may not have read go back where they belong: the spool sends its own once more, and the
// others become pending. While there is no connection, or its reader is slow, pending and new lines move to
// the spool, if there is one.
type remote struct {
	Remote
	ctx    context.Context // of attempts to connect
	cancel context.CancelFunc

	dialing  chan dialed // gets the result of an attempt to connect; nil: there is none
	conn     net.Conn    // nil: there is none
	since    time.Time
	lost     *atomic.Pointer[error] // why conn has ended; nil: it has not
	failures int                    // consecutive
	next     time.Time              // the earliest moment for the next attempt
	notified bool                   // Notify has reported the failures
	closed   bool
	made     atomic.Uint64 // connections

	spool   *spool // nil: there is none
	pending []byte
	recent  recentLines
	live    int           // bytes that conn has got since the last ones from the spool
	sent    int           // bytes of the next lines that conn has got
	encoded []byte        // by Encode; a buffer
	refused atomic.Uint64 // lines that Export's receiver has refused
	slow    bool          // the last write has reached its limit
	again   *time.Timer   // wakes the queue after slowPause
	stored  atomic.Int64  // bytes in the spool
	waiting atomic.Int64  // and those that go there if conn ends
	wake    func()        // makes the queue call attend
}

// OpenRemote makes an output to r. It does not connect yet: an absent reader is not an error. It fails if
// the spool cannot be opened, see [Spool]; ctx ends the wait for that, and nothing else. The caller must
// Close the output.
func OpenRemote(ctx context.Context, r Remote) (Output, error) {
	o := &remote{Remote: r, wake: func() {}}
	if r.Spool != nil {
		s, err := r.Spool.open(ctx, r.Notify)
		if err != nil {
			return nil, err
		}
		o.spool = s
		o.recent.limit = int(o.Spool.Size / 2)
		o.noteWaiting()
	}
	o.ctx, o.cancel = context.WithCancel(context.Background())
	return o, nil
}

// Begun implements [beginner].
func (o *remote) Begun() uint64 { return max(1, o.made.Load()) - 1 }

// try writes to the connection, and what this does not take to the spool. written counts whole lines only: a
// line that a broken connection has cut goes to the next connection from its beginning. Every failure
// but that of the spool is EAGAIN.
func (o *remote) try(lines []byte) (written int, err error) {
	defer o.noteWaiting()
	if o.catchUp() {
		written, err = o.send(lines, o.sentNew)
		if written == len(lines) {
			return written, nil
		}
	}
	if o.spool == nil {
		return written, unix.EAGAIN
	}
	spooled, err := o.spill(lines[written:])
	if errors.Is(err, errSpoolFull) && o.conn != nil {
		err = unix.EAGAIN // the reader makes room
	}
	return written + spooled, err
}

// catchUp sends what must come before new lines, or a part of it. It reports whether there is a connection
// that has got all of that. It ends a connection that the peer has closed.
func (o *remote) catchUp() bool {
	o.dialedWithin(0)
	if o.conn != nil {
		if reason := o.lost.Load(); reason != nil {
			o.failed(*reason)
		}
	}
	o.begin()
	for began := time.Now(); o.conn != nil; {
		lines, sent := o.backlog()
		if len(lines) == 0 {
			return true
		}
		if o.spool != nil && time.Since(began) > spoolTurn {
			o.wake()
			return false
		}
		if _, err := o.send(lines, sent); err != nil {
			if o.conn != nil {
				o.wakeLater()
			}
			return false
		}
	}
	return false
}

// wakeLater makes the queue call attend, although the reader is slow.
func (o *remote) wakeLater() {
	switch {
	case o.spool == nil: // the write has waited
		o.wake()
	case o.again == nil:
		o.again = time.AfterFunc(slowPause, o.wake)
	default:
		o.again.Reset(slowPause)
	}
}

// backlog returns lines that come before new ones, and what to call with the number of bytes that are sent.
func (o *remote) backlog() (lines []byte, sent func(n int)) {
	for o.spool != nil {
		lines, err := o.spool.lines()
		if err == nil && len(lines) == 0 {
			break
		}
		if err == nil {
			return lines, o.sentSpooled
		}
		o.Notify(err.Error() + ": what cannot be read is left out")
		o.spool.skip()
	}
	return o.pending, o.sentPending
}

func (o *remote) sentSpooled(n int) {
	o.spool.sent(n)
	o.live = 0
}

func (o *remote) sentPending(n int) {
	o.pending = o.pending[n:]
	o.live += n
}

func (o *remote) sentNew(n int) { o.live += n }

// send writes lines to the connection, a batch at a time, so that what the reader has not read is measured often.
// It calls sent with each number of bytes that are sent as whole lines, and returns their sum. The error is EAGAIN.
func (o *remote) send(lines []byte, sent func(n int)) (whole int, err error) {
	for whole < len(lines) && err == nil {
		piece := lines[whole:]
		if size := o.batchSize(); len(piece) > size {
			piece = piece[:max(wholeLines(piece[:size]), len(firstLine(piece)))]
		}
		var n int
		n, err = o.sendPiece(piece, sent)
		whole += n
	}
	return whole, err
}

func (o *remote) sendPiece(lines []byte, sent func(n int)) (whole int, err error) {
	o.recent.look(o.conn)
	if o.Network == "unixgram" {
		whole, err = o.writeDatagrams(lines)
	} else {
		whole, err = o.write(lines)
	}
	o.slow = errors.Is(err, os.ErrDeadlineExceeded)
	o.recent.add(lines[:whole], o.conn)
	sent(whole)
	if o.spool != nil {
		if err := o.spool.keep(len(o.recent.tail()) - o.liveTail()); err != nil {
			o.Notify(err.Error())
		}
	}
	if err == nil {
		return whole, nil
	}
	if !o.slow { // the connection has failed
		o.failed(err)
	}
	return whole, unix.EAGAIN
}

// liveTail is the number of bytes that the reader may not have read, and that are not in the spool.
func (o *remote) liveTail() int { return min(o.live, len(o.recent.tail())) }

// rewind makes the lines that the reader may not have read the next ones to send.
func (o *remote) rewind() {
	tail := o.recent.tail()
	live := o.liveTail()
	if o.spool != nil {
		o.spool.rewind(len(tail) - live)
	}
	if live > 0 {
		o.pending = append(tail[len(tail)-live:], o.pending...) // tail is forgotten below
	}
	o.recent.rewound()
	o.live, o.sent, o.slow = 0, 0, false
	if o.spool != nil {
		_, _ = o.spill(nil) // a failure shows at the next lines
	}
}

// spill adds what is pending and then lines to the spool. It returns how many bytes of lines that has taken.
func (o *remote) spill(lines []byte) (int, error) {
	for len(o.pending) > 0 {
		n, err := o.spool.add(o.pending)
		o.pending = o.pending[n:]
		if err != nil {
			return 0, err
		}
	}
	o.pending = nil
	return o.spool.add(lines)
}

// awaitRoom waits for a connection, if there is none, but no longer than pollPeriod.
func (o *remote) awaitRoom() {
	if o.conn != nil {
		return
	}
	if wait := time.Until(o.next); wait > 0 && o.dialing == nil {
		select {
		case <-time.After(min(wait, pollPeriod)):
		case <-o.ctx.Done():
		}
	}
	o.begin()
	o.dialedWithin(pollPeriod)
}

// attend goes on although there are no new lines: it connects again, because the reader may not have read the
// recent lines, and sends what waits.
func (o *remote) attend() {
	defer o.noteWaiting()
	o.dialedWithin(0)
	if o.conn == nil && len(o.pending) == 0 && (o.spool == nil || !o.spool.unsent()) {
		return
	}
	o.catchUp()
}

// noteWaiting notes how much of the spool's size is in use.
func (o *remote) noteWaiting() {
	if o.spool != nil {
		o.stored.Store(o.spool.size)
		o.waiting.Store(o.spool.size + int64(o.liveTail()) + int64(len(o.pending)))
	}
}

// spooled returns how many bytes the spool has or may have to take, and its size; 0 without a spool.
func (o *remote) spooled() (bytes, size int64) {
	if o.spool == nil {
		return 0, 0
	}
	return o.waiting.Load(), o.spool.limit
}

// onDisk is the number of bytes in the spool.
func (o *remote) onDisk() int64 { return o.stored.Load() }

// onWake sets what makes the queue call attend.
func (o *remote) onWake(wake func()) {
	o.wake = wake
	if o.spool != nil && o.spool.unsent() {
		wake()
	}
}

func (o *remote) Write(lines []byte) (int, error) { return writeAll(o, lines) }

// ReaderGone is false: the reader may come back.
func (o *remote) ReaderGone() bool { return false }

// Reopens is false: the output connects again by itself.
func (o *remote) Reopens() bool { return false }

// Reopen fails; see Reopens.
func (o *remote) Reopen() error { return errors.ErrUnsupported }

// Close closes the connection. The lines in the spool stay there.
func (o *remote) Close() (err error) {
	closed := o.closed
	o.closed = true
	o.cancel()
	if result := o.dialing; result != nil {
		o.dialing = nil
		go func() {
			if late := <-result; late.conn != nil {
				_ = late.conn.Close()
			}
		}()
	}
	if o.conn != nil {
		err = o.conn.Close()
		o.conn = nil
	}
	if o.again != nil {
		o.again.Stop()
	}
	if o.Export != nil && !closed {
		if count := o.refused.Load(); count > 0 { // those of the last requests are in no record
			o.Notify(fmt.Sprintf("%s has refused %d records for good", o.Address, count))
		}
		err = errors.Join(err, o.Export.Close())
	}
	if o.spool != nil {
		err = errors.Join(err, o.spool.close())
	}
	return err
}

func (o *remote) batchSize() int {
	if o.Export != nil {
		return exportBatch
	}
	return defaultBatch
}

// rejected is the number of lines that the receiver has refused.
func (o *remote) rejected() uint64 { return o.refused.Load() }

// retryable is true for a failure of the spool: somebody may make room on the disk, or the reader comes back.
func (o *remote) retryable(err error) bool {
	var failed *spoolError
	return errors.As(err, &failed)
}
