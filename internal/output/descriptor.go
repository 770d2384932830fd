package output

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// defaultBatch is no more than an empty pipe takes (16 pages, pipe(7)).
const defaultBatch = 64 << 10

// descriptor is what all outputs have in common. By default only Write writes: writeNow
// takes nothing, and no failure is retryable.
type descriptor struct {
	file  *os.File
	fd    int
	owned bool // Close closes file
}

func newDescriptor(f *os.File, owned bool) descriptor {
	// Fd is called once, because it may change whether the file blocks.
	return descriptor{file: f, fd: int(f.Fd()), owned: owned}
}

func (d *descriptor) Write(lines []byte) (int, error) {
	n, err := d.file.Write(lines)
	if errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) {
		return n, ErrReaderGone
	}
	return n, err
}

func (d *descriptor) ReaderGone() bool { return false }

func (d *descriptor) Close() error {
	if !d.owned {
		return nil
	}
	return d.file.Close()
}

func (d *descriptor) batchSize() int { return defaultBatch }

func (d *descriptor) writeNow([]byte, bool) (int, error) { return 0, nil }

func (d *descriptor) retryable(error) bool { return false }

// hungUp reports whether the other end of a pipe or socket has been closed.
func (d *descriptor) hungUp() bool {
	poll := []unix.PollFd{{Fd: int32(d.fd)}}
	n, err := unix.Poll(poll, 0)
	return err == nil && n > 0 && poll[0].Revents&(unix.POLLERR|unix.POLLHUP) != 0
}
