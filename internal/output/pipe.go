package output

import (
	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/internal/safeopen"
)

// pipe is a pipe or FIFO.
type pipe struct {
	descriptor
	// nonblock is a second open file description of the pipe, whose writes do not
	// wait. -1: it could not be opened.
	nonblock int
}

func newPipe(d descriptor) *pipe {
	fd, err := safeopen.NonblockingPipe(d.fd)
	if err != nil {
		fd = -1
	}
	return &pipe{descriptor: d, nonblock: fd}
}

func (p *pipe) ReaderGone() bool { return p.hungUp() }

// writeNow fills the pipe. It leaves any failure to the next Write.
func (p *pipe) writeNow(lines []byte, _ bool) (int, error) {
	if p.nonblock < 0 {
		return 0, nil
	}
	n, err := unix.Write(p.nonblock, lines)
	if err != nil {
		return 0, nil
	}
	return n, nil
}

func (p *pipe) Close() error {
	if p.nonblock >= 0 {
		_ = unix.Close(p.nonblock)
	}
	return p.descriptor.Close()
}
