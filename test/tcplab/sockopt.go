package tcplab

import (
	"errors"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Cookie returns the socket's cookie, unique until the host reboots.
func (s *Socket) Cookie() uint64 {
	s.n.t.Helper()
	cookie, err := unix.GetsockoptUint64(s.FD, unix.SOL_SOCKET, unix.SO_COOKIE)
	s.n.must("getsockopt SO_COOKIE", err)
	return cookie
}

// SetsockoptInt sets a socket option whose value is an int.
func (s *Socket) SetsockoptInt(level, option, value int) {
	s.n.t.Helper()
	if err := unix.SetsockoptInt(s.FD, level, option, value); err != nil {
		s.n.t.Fatalf("setsockopt level %d option %d to %d: %v", level, option, value, err)
	}
}

// ReuseAddr lets the socket bind to a port in TIME_WAIT.
func (s *Socket) ReuseAddr() {
	s.n.t.Helper()
	s.SetsockoptInt(unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
}

// SetLinger sets SO_LINGER. With 0 seconds, close sends a reset.
func (s *Socket) SetLinger(seconds int) {
	s.n.t.Helper()
	linger := unix.Linger{Onoff: 1, Linger: int32(seconds)}
	s.n.must("setsockopt SO_LINGER", unix.SetsockoptLinger(s.FD, unix.SOL_SOCKET, unix.SO_LINGER, &linger))
}

// DropIncoming makes the socket drop every segment that comes in, a listener's SYNs
// included: TCP runs a socket's filter on each segment first. A child inherits it from
// its listener.
func (s *Socket) DropIncoming() {
	s.n.t.Helper()
	drop := [1]unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: 0}}
	program := unix.SockFprog{Len: uint16(len(drop)), Filter: &drop[0]}
	s.n.must("setsockopt SO_ATTACH_FILTER",
		unix.SetsockoptSockFprog(s.FD, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &program))
}

// AllowIncoming ends DropIncoming. Dropped segments must be sent again.
func (s *Socket) AllowIncoming() {
	s.n.t.Helper()
	s.n.must("setsockopt SO_DETACH_FILTER", unix.SetsockoptInt(s.FD, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0))
}

// Info is the socket's TCP_INFO.
func (s *Socket) Info() *unix.TCPInfo {
	s.n.t.Helper()
	info, err := unix.GetsockoptTCPInfo(s.FD, unix.IPPROTO_TCP, unix.TCP_INFO)
	s.n.must("getsockopt TCP_INFO", err)
	return info
}

// Await waits until the socket is in the state.
func (s *Socket) Await(want State) {
	s.n.t.Helper()
	s.AwaitInfo("state "+want.String(), func(i *unix.TCPInfo) bool { return State(i.State) == want })
}

// AwaitInfo waits until TCP_INFO is as wanted.
func (s *Socket) AwaitInfo(what string, wanted func(*unix.TCPInfo) bool) {
	s.n.t.Helper()
	var info *unix.TCPInfo
	defer func() {
		if s.n.t.Failed() && info != nil {
			s.n.t.Logf("the last TCP_INFO: %+v", *info)
		}
	}()
	s.n.await(what, func() bool {
		info = s.Info()
		return wanted(info)
	})
}

// AwaitReadable waits until a listener has a connection to accept, or a connection has
// data.
func (s *Socket) AwaitReadable() {
	s.n.t.Helper()
	ready := []unix.PollFd{{Fd: int32(s.FD), Events: unix.POLLIN}}
	count, err := uninterrupted(func() (int, error) { return unix.Poll(ready, int(waitLimit.Milliseconds())) })
	s.n.must("poll", err)
	if count == 0 {
		s.n.t.Fatalf("poll: nothing to read after %v", waitLimit)
	}
}

// Readable reports whether AwaitReadable would return at once.
func (s *Socket) Readable() bool {
	s.n.t.Helper()
	ready := []unix.PollFd{{Fd: int32(s.FD), Events: unix.POLLIN}}
	count, err := uninterrupted(func() (int, error) { return unix.Poll(ready, 0) })
	s.n.must("poll", err)
	return count > 0
}

// AwaitError waits until the socket is in CLOSE with the error.
func (s *Socket) AwaitError(want unix.Errno) {
	s.n.t.Helper()
	s.Await(Close)
	got, err := unix.GetsockoptInt(s.FD, unix.SOL_SOCKET, unix.SO_ERROR)
	s.n.must("getsockopt SO_ERROR", err)
	if unix.Errno(got) != want {
		s.n.t.Fatalf("socket ended with %v, want %v", unix.Errno(got), want)
	}
}

// await polls for a condition that the kernel brings about by itself: a segment in
// flight, a delayed ACK, a retransmission. There is nothing to block on.
func (n *Netns) await(what string, done func() bool) {
	n.t.Helper()
	n.awaitWithin(waitLimit, what, done)
}

func (n *Netns) awaitWithin(limit time.Duration, what string, done func() bool) {
	n.t.Helper()
	deadline := time.Now().Add(limit)
	// A poll costs CPU time: the longer the wait, the rarer the polls.
	const shortest, longest = 200 * time.Microsecond, 100 * time.Millisecond
	for began := time.Now(); !done(); {
		if time.Now().After(deadline) {
			n.t.Fatalf("waited %v for: %s", limit, what)
		}
		time.Sleep(min(max(time.Since(began)/50, shortest), longest))
	}
}

// mustFail checks that a call failed with the error of the scenario.
func (n *Netns) mustFail(call string, got error, want unix.Errno) {
	n.t.Helper()
	if !errors.Is(got, want) {
		n.t.Fatalf("%s: got %v, want %v", call, got, want)
	}
}

func disconnect(fd int) error {
	unspec := unix.RawSockaddr{Family: unix.AF_UNSPEC}
	_, _, errno := unix.Syscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&unspec)), unsafe.Sizeof(unspec))
	if errno != 0 {
		return errno
	}
	return nil
}
