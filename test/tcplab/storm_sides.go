package tcplab

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// connectAll is the connecting thread. It closes connections that the child closes first
// in batches, so that it need not wait for each.
func (w *stormWorker) connectAll() error {
	var open []int
	for i := range w.share {
		if err := w.waitFor(func() bool { return int64(i)-w.accepted.Load() <= stormAhead }); err != nil {
			return err
		}
		fd, err := w.connect(i)
		if err != nil {
			return err
		}
		switch w.end {
		case ClientFirst:
			unix.Close(fd)
		case Simultaneous:
			err = w.closeSimultaneously(fd, i)
		case HalfClosed:
			err = unix.Shutdown(fd, unix.SHUT_WR)
			open = append(open, fd)
		case ServerFirst:
			open = append(open, fd)
		}
		if err == nil && (len(open) == stormAhead/2 || i == w.share-1) {
			err = w.closeLast(open)
			open = open[:0]
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (w *stormWorker) connect(i int) (int, error) {
	domain, to := unix.AF_INET, unix.Sockaddr(&unix.SockaddrInet4{Port: int(w.port), Addr: stormHost4(i)})
	if w.family == V6 {
		domain, to = unix.AF_INET6, &unix.SockaddrInet6{Port: int(w.port), Addr: stormHost6(i)}
	}
	fd, err := unix.Socket(domain, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err != nil {
		return -1, fmt.Errorf("socket: %w", err)
	}
	if err := unix.Connect(fd, to); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("connect %v: %w", to, err)
	}
	return fd, nil
}

func stormHost4(i int) [4]byte { return [4]byte{127, 0, 1, byte(1 + i%StormHosts)} }

func stormHost6(i int) [16]byte { return [16]byte{0: 0xfd, 15: byte(1 + i%StormHosts)} }

// closeSimultaneously closes when the other thread is about to close its end of the
// connection. The FINs cross each other if both threads are in close() at the same
// time.
func (w *stormWorker) closeSimultaneously(fd, i int) error {
	w.closing.Add(1)
	both := int64(2 * (i + 1))
	for range 2000 { // spin first: a yield would return too late
		if w.closing.Load() >= both {
			break
		}
	}
	err := w.waitFor(func() bool { return w.closing.Load() >= both })
	unix.Close(fd)
	return err
}

// pin binds the calling thread, which exits at the end of the storm, to one processor:
// two threads on the same processor cannot close at the same time.
func pin(i int) {
	var all, one unix.CPUSet
	if unix.SchedGetaffinity(0, &all) != nil {
		return
	}
	for cpu, left := 0, i%all.Count(); ; cpu++ {
		if !all.IsSet(cpu) {
			continue
		}
		if left == 0 {
			one.Set(cpu)
			_ = unix.SchedSetaffinity(0, &one) // best effort: without it, fewer FINs cross
			return
		}
		left--
	}
}

// closeLast closes the client's ends after the child's.
func (w *stormWorker) closeLast(open []int) error {
	for _, fd := range open {
		if err := readToEnd(fd); err != nil {
			return err
		}
		unix.Close(fd)
	}
	return nil
}

// acceptAll is the accepting thread.
func (w *stormWorker) acceptAll() error {
	for i := range w.share {
		fd, err := uninterrupted(func() (int, error) { return acceptOnly(w.listener.FD) })
		if err != nil {
			return fmt.Errorf("accept4: %w", err)
		}
		if err := w.closeChild(fd, i); err != nil {
			return err
		}
		w.accepted.Add(1)
	}
	return nil
}

func (w *stormWorker) closeChild(fd, i int) (err error) {
	switch w.end {
	case Simultaneous:
		return w.closeSimultaneously(fd, i)
	case ClientFirst:
		err = readToEnd(fd)
	case HalfClosed:
		if err = readToEnd(fd); err == nil {
			_, err = unix.Write(fd, []byte{1})
		}
	case ServerFirst:
	}
	unix.Close(fd)
	return err
}

// readToEnd waits for the peer's FIN.
func readToEnd(fd int) error {
	var buf [16]byte
	for {
		count, err := uninterrupted(func() (int, error) { return unix.Read(fd, buf[:]) })
		if err != nil {
			return fmt.Errorf("read: %w", err)
		}
		if count == 0 {
			return nil
		}
	}
}

// waitFor yields the CPU until done returns true. It fails if the other thread has
// failed.
func (w *stormWorker) waitFor(done func() bool) error {
	for !done() {
		if w.failed.Load() {
			return errors.New("the other thread has failed")
		}
		_, _, _ = unix.Syscall(unix.SYS_SCHED_YIELD, 0, 0, 0)
	}
	return nil
}

// acceptOnly does not ask for the peer's address, for which unix.Accept4 would allocate
// memory.
func acceptOnly(listener int) (int, error) {
	fd, _, errno := unix.Syscall6(unix.SYS_ACCEPT4, uintptr(listener), 0, 0, unix.SOCK_CLOEXEC, 0, 0)
	if errno != 0 {
		return -1, errno
	}
	return int(fd), nil
}
