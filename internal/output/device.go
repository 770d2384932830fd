package output

import (
	"errors"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// device is a terminal or another character device, such as /dev/null. A device that
// is full (/dev/full) is not retried: nothing can be deleted from it.
type device struct {
	descriptor
	gone atomic.Bool // the terminal has hung up
}

// newDevice starts a goroutine if the device is a terminal. It ends with the terminal.
func newDevice(d descriptor) *device {
	dev := &device{descriptor: d}
	if _, err := unix.IoctlGetTermios(d.fd, unix.TCGETS); err == nil {
		go dev.awaitHangUp(d.fd)
	}
	return dev
}

// awaitHangUp polls on its own goroutine: poll(2) on a terminal can block while another process
// changes the line discipline (tty_ldisc_ref_wait).
func (d *device) awaitHangUp(fd int) {
	for {
		poll := []unix.PollFd{{Fd: int32(fd)}}
		_, err := unix.Poll(poll, -1)
		switch {
		case err != nil && !errors.Is(err, unix.EINTR) || poll[0].Revents&unix.POLLNVAL != 0:
			return
		case poll[0].Revents&(unix.POLLERR|unix.POLLHUP) != 0:
			d.gone.Store(true)
			return
		}
	}
}

// ReaderGone reports whether the goroutine of newDevice has found that the terminal has hung up. It is false
// for any other device.
func (d *device) ReaderGone() bool { return d.gone.Load() }

// Write writes all lines and waits while the device takes nothing.
func (d *device) Write(lines []byte) (int, error) { return writeAll(d, lines) }

// try reports the EIO of a terminal that has hung up as a reader that went away.
func (d *device) try(lines []byte) (int, error) {
	n, err := d.descriptor.try(lines)
	if errors.Is(err, unix.EIO) && d.hungUp() {
		return n, ErrReaderGone
	}
	return n, err
}
