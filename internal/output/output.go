// Package output is where finished lines go: standard output or a file. It knows
// nothing of what the lines say, and it never leaves half of one in a file.
package output

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// ErrReaderGone means that whoever read our output went away: an end, not a failure.
var ErrReaderGone = errors.New("the reader of the output went away")

// Output is an open destination. It is for one goroutine, but for ReaderGone.
type Output struct {
	file *os.File
	fd   int
	mine bool // opened here, so to be closed here
	pipe bool // has another end that can go away
	disk bool // a regular file
	// eager is the same pipe, opened once more so that writes to it do not wait; the
	// other end and whoever else writes to it keep theirs. -1: there is none.
	eager int
}

// Open opens the path for appending and makes it if need be, so that a restart
// loses no record; "-" is standard output. A FIFO it opens once somebody reads it,
// which it waits for until ctx is done.
func Open(ctx context.Context, path string) (*Output, error) {
	if path == "-" {
		return newOutput(os.Stdout, false)
	}
	f, err := openFile(ctx, path)
	if err != nil {
		return nil, err
	}
	return newOutput(f, true)
}

func openFile(ctx context.Context, path string) (*os.File, error) {
	const flags = os.O_WRONLY | os.O_APPEND | os.O_CREATE
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFIFO {
		return os.OpenFile(path, flags, 0o640)
	}
	type result struct {
		file *os.File
		err  error
	}
	opened := make(chan result, 1)
	go func() { // it stays in open(2) for as long as nobody reads
		f, err := os.OpenFile(path, flags, 0o640)
		opened <- result{f, err}
	}()
	select {
	case r := <-opened:
		return r.file, r.err
	case <-ctx.Done():
		return nil, fmt.Errorf("open %s: nobody reads this FIFO: gave up at %w", path, context.Cause(ctx))
	}
}

func newOutput(f *os.File, mine bool) (*Output, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("look at output: %w", err)
	}
	o := &Output{
		file:  f,
		fd:    int(f.Fd()), // once: it may change how the file blocks
		mine:  mine,
		pipe:  info.Mode()&(os.ModeNamedPipe|os.ModeSocket) != 0,
		disk:  info.Mode().IsRegular(),
		eager: -1,
	}
	if info.Mode()&os.ModeNamedPipe != 0 {
		const flags = unix.O_WRONLY | unix.O_NONBLOCK | unix.O_CLOEXEC
		if fd, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", o.fd), flags, 0); err == nil {
			o.eager = fd
		}
	}
	return o, nil
}

// Write writes whole lines and says how many bytes of them are in the output for
// good. It fails with [ErrReaderGone], or with the system's error and the file's
// name; then no further Write makes sense, unless the disk was full.
func (o *Output) Write(lines []byte) (int, error) {
	n, err := o.file.Write(lines)
	if err == nil {
		return n, nil
	}
	if errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) {
		return n, ErrReaderGone
	}
	whole := bytes.LastIndexByte(lines[:n], '\n') + 1
	if whole < n {
		err = errors.Join(err, o.takeBack(int64(n-whole)))
	}
	return whole, err
}

// writeSome writes what a pipe has room for and does not wait: the bytes that it
// returns are in the pipe, and may end within a line. It is 0 for all that is no pipe.
// A failure is left to the next Write.
func (o *Output) writeSome(lines []byte) int {
	if o.eager < 0 {
		return 0
	}
	n, err := unix.Write(o.eager, lines)
	if err != nil {
		return 0
	}
	return n
}

// mayGetRoom says whether a Write failed in a way that passes by itself: somebody
// rotates logs, or frees the disk.
func (o *Output) mayGetRoom(err error) bool {
	return o.disk && (errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT))
}

// takeBack cuts the beginning of a line off the end of a regular file, provided
// that nobody else has written there since.
func (o *Output) takeBack(count int64) error {
	info, err := o.file.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return err
	}
	at, err := o.file.Seek(0, io.SeekCurrent)
	if err != nil || at != info.Size() {
		return err
	}
	if err := o.file.Truncate(at - count); err != nil {
		return err
	}
	// Others may go on writing where we are, as in ( tcpshift; echo done ) >file
	_, err = o.file.Seek(at-count, io.SeekStart)
	return err
}

// ReaderGone says whether the other end of a pipe or socket has been closed,
// without waiting for a write to find out.
func (o *Output) ReaderGone() bool {
	if !o.pipe {
		return false
	}
	poll := []unix.PollFd{{Fd: int32(o.fd)}}
	n, err := unix.Poll(poll, 0)
	return err == nil && n > 0 && poll[0].Revents&(unix.POLLERR|unix.POLLHUP) != 0
}

// Close closes what Open opened. Some file systems report a failed write only here.
func (o *Output) Close() error {
	if o.eager >= 0 {
		_ = unix.Close(o.eager)
	}
	if !o.mine {
		return nil
	}
	return o.file.Close()
}
