package output

import (
	"bytes"
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// defaultBatch is no more than an empty pipe takes (16 pages, pipe(7)).
	defaultBatch = 64 << 10
	// firstPause and longestPause bound the time between two writes to a descriptor that
	// takes nothing although poll(2) reports room.
	firstPause, longestPause = time.Millisecond, 100 * time.Millisecond
	// pollPeriod is the longest time without another attempt to write.
	pollPeriod = time.Second
)

// descriptor is what all outputs have in common. Any process that shares the open file
// description may set O_NONBLOCK on it at any time, so every write may fail with EAGAIN.
type descriptor struct {
	file  *os.File // nil: another package owns the descriptor
	fd    int
	name  string
	pause time.Duration // before the next write after EAGAIN
}

// Write writes all lines and waits while the descriptor takes nothing.
func (d *descriptor) Write(lines []byte) (written int, err error) {
	return writeAll(d, lines)
}

// attempter is the part of an Output that does not wait.
type attempter interface {
	try(lines []byte) (int, error)
	awaitRoom()
}

// WriteCounted is o.Write, and calls wrote with each number of bytes as soon as o has got them:
// a reader that stalls in the middle has what came before.
func WriteCounted(o Output, lines []byte, wrote func(n int)) (written int, err error) {
	return writeCounted(o, lines, wrote)
}

// writeAll writes to o until all lines are written or an error is not EAGAIN.
func writeAll(o attempter, lines []byte) (written int, err error) {
	return writeCounted(o, lines, func(int) {})
}

func writeCounted(o attempter, lines []byte, wrote func(n int)) (written int, err error) {
	for {
		n, err := o.try(lines[written:])
		written += n
		wrote(n)
		if !errors.Is(err, unix.EAGAIN) {
			return written, err
		}
		o.awaitRoom()
	}
}

func (d *descriptor) try(lines []byte) (written int, err error) {
	return d.tryWith(lines, func(rest []byte) (int, error) { return unix.Write(d.fd, rest) })
}

// tryWith calls write until all lines are written or it fails with another error than EINTR.
func (d *descriptor) tryWith(lines []byte, write func(rest []byte) (int, error)) (written int, err error) {
	for written < len(lines) {
		n, err := write(lines[written:])
		switch {
		case n > 0:
			written, d.pause = written+n, firstPause
		case err == nil: // no kernel of today returns 0
			err = unix.EAGAIN
		}
		switch {
		case err == nil || errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET):
			return written, ErrReaderGone
		default:
			return written, &os.PathError{Op: "write", Path: d.name, Err: err}
		}
	}
	return written, nil
}

// awaitRoom waits after EAGAIN until the descriptor may take more.
func (d *descriptor) awaitRoom() { d.await(d.fd) }

func (d *descriptor) await(fd int) {
	poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
	n, _ := unix.Poll(poll, int(pollPeriod/time.Millisecond)) // EINTR: the next write finds out
	if n <= 0 {
		return
	}
	if d.pause > firstPause { // poll(2) was wrong before
		time.Sleep(d.pause)
	}
	d.pause = min(2*d.pause, longestPause)
}

// ReaderGone is false: only a pipe, a socket or a terminal shows that its reader is gone.
func (d *descriptor) ReaderGone() bool { return false }

// Reopens is false: only a regular file with a path can be opened again.
func (d *descriptor) Reopens() bool { return false }

// Reopen fails; see Reopens.
func (d *descriptor) Reopen() error { return errors.ErrUnsupported }

// Close closes the file, if this package owns it. A second Close does nothing.
func (d *descriptor) Close() error {
	if d.file == nil {
		return nil
	}
	file := d.file
	d.file = nil
	return file.Close()
}

func (d *descriptor) batchSize() int { return defaultBatch }

func (d *descriptor) retryable(error) bool { return false }

// hungUp reports whether the other end of a pipe or socket has been closed.
func (d *descriptor) hungUp() bool {
	poll := []unix.PollFd{{Fd: int32(d.fd)}}
	n, err := unix.Poll(poll, 0)
	return err == nil && n > 0 && poll[0].Revents&(unix.POLLERR|unix.POLLHUP) != 0
}

// wholeLines is the number of bytes up to the end of the last line.
func wholeLines(lines []byte) int { return bytes.LastIndexByte(lines, '\n') + 1 }
