package output

import (
	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/internal/safeopen"
)

// pipe is a pipe or FIFO.
type pipe struct {
	descriptor
	// nonblock is a second open file description of the pipe, whose writes do not wait, so
	// that it is known how much a reader that stalls has got. If it could not be opened,
	// nonblock is the first one.
	nonblock int
}

func newPipe(d descriptor) *pipe {
	fd, err := safeopen.NonblockingPipe(d.fd)
	if err != nil {
		fd = d.fd
	}
	return &pipe{descriptor: d, nonblock: fd}
}

// ReaderGone reports whether no process has the other end of the pipe open.
func (p *pipe) ReaderGone() bool { return p.hungUp() }

// Write writes all lines and waits for the reader while the pipe is full. After an error it returns how
// many bytes the pipe has taken.
func (p *pipe) Write(lines []byte) (int, error) { return writeAll(p, lines) }

func (p *pipe) try(lines []byte) (int, error) {
	return p.tryWith(lines, func(rest []byte) (int, error) { return unix.Write(p.nonblock, rest) })
}

func (p *pipe) awaitRoom() { p.await(p.nonblock) }

// Close closes the second description, and the first one if this package has opened it.
func (p *pipe) Close() error {
	if p.nonblock != p.fd {
		_ = unix.Close(p.nonblock)
		p.nonblock = p.fd
	}
	return p.descriptor.Close()
}
