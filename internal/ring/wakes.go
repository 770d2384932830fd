package ring

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// wakes is the epoll set of the descriptors that end a wait. The goroutine waits in the poller of the Go runtime, whose
// epoll set contains this one. A wait in epoll_wait(2) itself would be a system call that blocks. A thread of the runtime
// watches such calls (sysmon in runtime/proc.go): for 10 ms it looks every 20 to 70 µs whether the call is over, which
// costs more than reading the samples.
type wakes struct {
	file   *os.File // nil: it is not open
	conn   syscall.RawConn
	events [4]unix.EpollEvent
}

func (w *wakes) open() error {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return fmt.Errorf("make an epoll set: %w", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil { // so that os.NewFile adds it to the poller
		return errors.Join(fmt.Errorf("make an epoll set: %w", err), unix.Close(fd))
	}
	w.file = os.NewFile(uintptr(fd), "epoll")
	w.conn, err = w.file.SyscallConn()
	return err
}

// add makes a descriptor end a wait. It is edge-triggered, so a wait ends when a program wakes the reader, not whenever
// there is a sample.
func (w *wakes) add(fd int) (err error) {
	event := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET, Fd: int32(fd)}
	failed := w.conn.Control(func(set uintptr) { err = unix.EpollCtl(int(set), unix.EPOLL_CTL_ADD, fd, &event) })
	return errors.Join(err, failed)
}

// await waits for events, at most as long as limit, and returns none after that. The events are valid until the next call.
func (w *wakes) await(limit time.Duration) ([]unix.EpollEvent, error) {
	if err := w.file.SetReadDeadline(time.Now().Add(limit)); err != nil {
		return nil, err
	}
	var n int
	var err error
	failed := w.conn.Read(func(set uintptr) (done bool) {
		n, err = w.poll(set)
		return n != 0 || err != nil
	})
	if err == nil && failed != nil && !errors.Is(failed, os.ErrDeadlineExceeded) {
		err = failed
	}
	return w.events[:n], err
}

// poll takes the events that are there, without waiting. The call is hidden from the runtime, because each call that the
// runtime knows of wakes sysmon. That is safe for a call that does not block.
func (w *wakes) poll(set uintptr) (n int, err error) {
	got, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, set, uintptr(unsafe.Pointer(&w.events[0])), uintptr(len(w.events)), 0, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(got), nil
}

func (w *wakes) close() error {
	if w.file == nil {
		return nil
	}
	file := w.file
	w.file = nil
	return file.Close()
}
