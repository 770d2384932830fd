package tcplab

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// waitLimit bounds every wait: a step that takes longer fails the test. It is long
// because an emulated kernel is slow. A passing test never waits so long.
const waitLimit = 30 * time.Second

// Socket is one blocking TCP socket of a Netns. It is closed at the end of the test.
// Its calls run on the caller's thread, unless they are made in Do.
type Socket struct {
	FD int // -1 once closed
	n  *Netns

	written, read uint64 // bytes, as the system calls returned them
}

// Socket makes a TCP socket for an address family. For a v4-mapped address it is
// AF_INET6.
func (n *Netns) Socket(family netip.Addr) *Socket {
	n.t.Helper()
	return n.SocketOf(family, unix.IPPROTO_TCP)
}

// SocketOf makes a socket as Socket does, for IPPROTO_TCP or IPPROTO_MPTCP.
func (n *Netns) SocketOf(family netip.Addr, protocol int) *Socket {
	n.t.Helper()
	domain := unix.AF_INET6
	if family.Is4() {
		domain = unix.AF_INET
	}
	var fd int
	var err error
	n.Do(func() { fd, err = unix.Socket(domain, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, protocol) })
	n.must("socket", err)
	s := n.adopt(fd)
	limit := unix.NsecToTimeval(int64(waitLimit))
	n.must("setsockopt SO_RCVTIMEO", unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit))
	n.must("setsockopt SO_SNDTIMEO", unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &limit))
	return s
}

func (n *Netns) adopt(fd int) *Socket {
	s := &Socket{FD: fd, n: n}
	n.t.Cleanup(func() {
		if s.FD >= 0 {
			unix.Close(s.FD)
		}
	})
	return s
}

// Listen makes a listener, on [::] a dual-stack one. The options run between socket()
// and bind().
func (n *Netns) Listen(at netip.AddrPort, options ...func(*Socket)) *Socket {
	n.t.Helper()
	s := n.Socket(at.Addr())
	for _, option := range options {
		option(s)
	}
	s.Bind(at)
	n.must("listen", unix.Listen(s.FD, 128))
	return s
}

// Dial makes a socket and connects it.
func (n *Netns) Dial(to netip.AddrPort) *Socket {
	n.t.Helper()
	s := n.Socket(to.Addr())
	s.Connect(to)
	return s
}

// Bind gives the socket its own address and port.
func (s *Socket) Bind(at netip.AddrPort) {
	s.n.t.Helper()
	s.n.must("bind "+at.String(), unix.Bind(s.FD, sockaddr(at)))
}

// Connect connects and waits for the end of the handshake.
func (s *Socket) Connect(to netip.AddrPort) {
	s.n.t.Helper()
	s.n.must("connect "+to.String(), s.TryConnect(to))
}

// TryConnect connects and returns the error.
func (s *Socket) TryConnect(to netip.AddrPort) error {
	_, err := uninterrupted(func() (int, error) { return 0, unix.Connect(s.FD, sockaddr(to)) })
	return err
}

// StartConnect sends the SYN and does not wait for an answer.
func (s *Socket) StartConnect(to netip.AddrPort) {
	s.n.t.Helper()
	s.n.must("fcntl O_NONBLOCK", unix.SetNonblock(s.FD, true))
	if err := s.TryConnect(to); !errors.Is(err, unix.EINPROGRESS) {
		s.n.t.Fatalf("connect %v without waiting: got %v, want %v", to, err, unix.EINPROGRESS)
	}
	s.n.must("fcntl O_NONBLOCK", unix.SetNonblock(s.FD, false))
}

// Accept waits for a connection of a listener and accepts it.
func (s *Socket) Accept() *Socket {
	s.n.t.Helper()
	fd, err := uninterrupted(func() (int, error) {
		fd, _, err := unix.Accept4(s.FD, unix.SOCK_CLOEXEC)
		return fd, err
	})
	s.n.must("accept4", err)
	return s.n.adopt(fd)
}

// Close closes the descriptor. The kernel may close the connection later.
func (s *Socket) Close() {
	s.n.t.Helper()
	s.countUnread()
	fd := s.FD
	s.FD = -1
	s.n.must("close", unix.Close(fd))
}

// Shutdown takes unix.SHUT_RD, SHUT_WR or SHUT_RDWR.
func (s *Socket) Shutdown(how int) {
	s.n.t.Helper()
	s.n.must("shutdown", unix.Shutdown(s.FD, how))
}

// Disconnect is connect() to AF_UNSPEC: the socket drops its connection and can be used
// again.
func (s *Socket) Disconnect() {
	s.n.t.Helper()
	s.countUnread()
	s.n.must("connect AF_UNSPEC", disconnect(s.FD))
}

// Write sends the text.
func (s *Socket) Write(text string) {
	s.n.t.Helper()
	count, err := uninterrupted(func() (int, error) {
		return unix.SendmsgN(s.FD, []byte(text), nil, nil, unix.MSG_NOSIGNAL)
	})
	s.n.must("sendmsg", err)
	if count != len(text) {
		s.n.t.Fatalf("sendmsg: %d of %d bytes", count, len(text))
	}
	s.written += uint64(count)
}

// WriteFastOpen connects and sends the text in the SYN. It waits for the handshake
// unless the flags include unix.MSG_DONTWAIT.
func (s *Socket) WriteFastOpen(text string, to netip.AddrPort, flags int) {
	s.n.t.Helper()
	s.n.must("sendto MSG_FASTOPEN", s.TryWriteFastOpen(text, to, flags))
	s.written += uint64(len(text))
}

// TryWriteFastOpen is WriteFastOpen, but returns the error. Written does not count its text.
func (s *Socket) TryWriteFastOpen(text string, to netip.AddrPort, flags int) error {
	return unix.Sendto(s.FD, []byte(text), flags|unix.MSG_FASTOPEN|unix.MSG_NOSIGNAL, sockaddr(to))
}

// Read waits for data and returns up to 512 bytes of it, "" at the end of the stream.
func (s *Socket) Read() string {
	s.n.t.Helper()
	text, err := s.TryRead()
	s.n.must("read", err)
	return text
}

// ReadEOF waits for the peer's FIN.
func (s *Socket) ReadEOF() {
	s.n.t.Helper()
	if text := s.Read(); text != "" {
		s.n.t.Fatalf("read: got %q, want the end of the stream", text)
	}
}

// TryRead reads once, up to 512 bytes, and returns the error of read(2) instead of failing the test. At
// the end of the stream it returns "" and nil.
func (s *Socket) TryRead() (string, error) {
	buf := make([]byte, 512)
	count, err := uninterrupted(func() (int, error) { return unix.Read(s.FD, buf) })
	s.read += uint64(max(count, 0))
	return string(buf[:max(count, 0)]), err
}

// countUnread counts what the process could still read. A listener has no such count.
func (s *Socket) countUnread() {
	if unread, err := unix.IoctlGetInt(s.FD, unix.TIOCINQ); err == nil {
		s.read += uint64(unread)
	}
}

// Written returns the bytes that the process has written, and Arrived those that it has
// read or, when it closed or disconnected the socket, could still read.
func (s *Socket) Written() uint64 { return s.written }

// Arrived returns the bytes that came from the peer; see Written.
func (s *Socket) Arrived() uint64 { return s.read }

// Addr is the socket's own address.
func (s *Socket) Addr() netip.AddrPort {
	s.n.t.Helper()
	sa, err := unix.Getsockname(s.FD)
	s.n.must("getsockname", err)
	return addrPort(sa)
}

// Peer is the address of the other side.
func (s *Socket) Peer() netip.AddrPort {
	s.n.t.Helper()
	sa, err := unix.Getpeername(s.FD)
	s.n.must("getpeername", err)
	return addrPort(sa)
}

// uninterrupted repeats a call that a signal of the Go runtime has interrupted. The
// kernel does not restart calls with a timeout.
func uninterrupted(call func() (int, error)) (int, error) {
	for {
		count, err := call()
		if !errors.Is(err, unix.EINTR) {
			return count, err
		}
	}
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	zone, _ := strconv.ParseUint(a.Addr().Zone(), 10, 32) // 0 means no device
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16(), ZoneId: uint32(zone)}
}

func addrPort(sa unix.Sockaddr) netip.AddrPort {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port))
	}
	panic(fmt.Sprintf("not an IP address: %T", sa))
}
