package lab

import (
	"errors"
	"fmt"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// StormConfig says how hard a storm blows.
type StormConfig struct {
	Connections int    // in all
	Workers     int    // pairs of a connecting and an accepting thread; 2 if 0
	Port        uint16 // where the first worker listens, the others on the next ones; 7000 if 0
}

const (
	// StormHosts addresses, 127.0.1.1 and up, share a worker's connections,
	// so that 60 seconds of TIME_WAIT leave ephemeral ports for the next.
	StormHosts = 64
	// stormAhead bounds how far a worker connects ahead of its accepting
	// thread. It stays far below the backlog, whose overflow would bring
	// retransmissions and with them other transitions.
	stormAhead   = 256
	stormBacklog = 4096
)

// Storm makes short IPv4 connections as fast as the host can, and returns how
// many it made once the last of them is settled. The client closes first.
//
// Each connection is exactly ten transitions:
//
//	client  CLOSE SYN_SENT ESTABLISHED FIN_WAIT1 FIN_WAIT2 CLOSE
//	child   LISTEN SYN_RECV ESTABLISHED CLOSE_WAIT LAST_ACK CLOSE
//
// and each worker's listener two more: CLOSE LISTEN CLOSE. The client's last
// one leaves a TIME_WAIT, until net.ipv4.tcp_max_tw_buckets of them exist.
//
// Connecting and accepting threads are apart on purpose: softirqs then
// interrupt the other side's handlers all the time, and a tracer that cannot
// be re-entered misses about one event in a thousand. One thread for both
// sides is no slower, but misses almost none and so proves nothing.
func Storm(n *Netns, c StormConfig) int {
	n.t.Helper()
	if c.Workers == 0 {
		c.Workers = 2
	}
	if c.Port == 0 {
		c.Port = 7000
	}
	before := n.InUse()
	workers := make([]*stormWorker, c.Workers)
	for i := range workers {
		share := (c.Connections + i) / c.Workers // the shares add up to the whole
		workers[i] = newStormWorker(n, c.Port+uint16(i), share)
	}
	n.Threads(2*c.Workers, func(i int) error {
		w := workers[i/2]
		if i%2 == 0 {
			return w.run(w.connect)
		}
		return w.run(w.accept)
	})
	made := 0
	for _, w := range workers {
		w.listener.Close()
		made += int(w.accepted.Load())
	}
	n.Settle(before)
	return made
}

type stormWorker struct {
	listener *Socket
	port     uint16
	share    int
	accepted atomic.Int64
	failed   atomic.Bool
}

func newStormWorker(n *Netns, port uint16, share int) *stormWorker {
	n.t.Helper()
	w := &stormWorker{port: port, share: share}
	w.listener = n.Socket(V4.Loopback())
	w.listener.Bind(V4.Anywhere(port))
	n.must("listen", unix.Listen(w.listener.FD, stormBacklog))
	return w
}

// run ends the other thread's wait when this one fails.
func (w *stormWorker) run(side func() error) error {
	err := side()
	if err != nil {
		w.failed.Store(true)
		_ = unix.Shutdown(w.listener.FD, unix.SHUT_RD)
	}
	return err
}

func (w *stormWorker) connect() error {
	to := &unix.SockaddrInet4{Port: int(w.port)}
	for i := range w.share {
		for int64(i)-w.accepted.Load() > stormAhead {
			if w.failed.Load() {
				return errors.New("the accepting thread has failed")
			}
			_, _, _ = unix.Syscall(unix.SYS_SCHED_YIELD, 0, 0, 0)
		}
		to.Addr = [4]byte{127, 0, 1, byte(1 + i%StormHosts)}
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
		if err != nil {
			return fmt.Errorf("socket: %w", err)
		}
		if err := unix.Connect(fd, to); err != nil {
			unix.Close(fd)
			return fmt.Errorf("connect %v: %w", to.Addr, err)
		}
		unix.Close(fd)
	}
	return nil
}

func (w *stormWorker) accept() error {
	buf := make([]byte, 1)
	for range w.share {
		fd, err := uninterrupted(func() (int, error) { return acceptOnly(w.listener.FD) })
		if err != nil {
			return fmt.Errorf("accept4: %w", err)
		}
		// The end of the stream means CLOSE_WAIT: the client has closed first.
		count, err := uninterrupted(func() (int, error) { return unix.Read(fd, buf) })
		unix.Close(fd)
		if err != nil {
			return fmt.Errorf("read: %w", err)
		}
		if count != 0 {
			return errors.New("read: got data, want the end of the stream")
		}
		w.accepted.Add(1)
	}
	return nil
}

// acceptOnly does not ask for the peer's address, which unix.Accept4 would
// allocate for each connection.
func acceptOnly(listener int) (int, error) {
	fd, _, errno := unix.Syscall6(unix.SYS_ACCEPT4, uintptr(listener), 0, 0, unix.SOCK_CLOEXEC, 0, 0)
	if errno != 0 {
		return -1, errno
	}
	return int(fd), nil
}
