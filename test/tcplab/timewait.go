package tcplab

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// ServerTimeWait makes a connection from a fixed port to the listener and closes it,
// the server first, so that the server gets the TIME_WAIT. It returns the listener's
// child.
func (s *Socket) ServerTimeWait(from netip.AddrPort) *Endpoint {
	s.n.t.Helper()
	client, child := s.connectFrom(from)
	p := endpoint(child)
	child.Close()
	client.ReadEOF()
	client.Close()
	s.n.awaitTimewait(p, TimeWait)
	p.Path, p.Substate = accepted.Then(FinWait1, FinWait2, Close), TimeWait
	return p
}

// ClientTimeWait makes a connection and closes it, the client first, so that the client
// gets the TIME_WAIT. It returns the client.
func (s *Socket) ClientTimeWait(from netip.AddrPort) *Endpoint {
	s.n.t.Helper()
	client, child := s.connectFrom(from)
	p := endpoint(client)
	client.Shutdown(unix.SHUT_WR)
	child.ReadEOF()
	child.Close()
	client.ReadEOF()
	client.Close()
	s.n.awaitTimewait(p, TimeWait)
	p.Path, p.Substate = closesFirst, TimeWait
	return p
}

// Supersede connects again from an address whose last connection left a TIME_WAIT at the
// server. The new SYN ends that TIME_WAIT. The new connection ends with a reset, so it leaves
// no TIME_WAIT.
func (s *Socket) Supersede(from netip.AddrPort) {
	s.n.t.Helper()
	client, child := s.connectFrom(from)
	client.SetLinger(0)
	client.Close()
	child.AwaitError(unix.ECONNRESET)
	child.Close()
}

func (s *Socket) connectFrom(from netip.AddrPort) (client, child *Socket) {
	s.n.t.Helper()
	client = s.n.Socket(from.Addr())
	client.ReuseAddr()
	client.Bind(from)
	client.Connect(s.Addr())
	return client, s.Accept()
}

// Reconnect connects again from an address whose last connection to this listener left a
// TIME_WAIT at the client. connect() ends that TIME_WAIT. The kernel allows it where both sides
// have timestamps and, before 6.8 or so, after one second. The connection ends with a reset.
func (s *Socket) Reconnect(from netip.AddrPort) {
	s.n.t.Helper()
	client := s.n.Socket(from.Addr())
	client.ReuseAddr()
	client.Bind(from)
	to := s.Addr()
	s.n.await("connect over a TIME_WAIT", func() bool { return client.TryConnect(to) == nil })
	child := s.Accept()
	client.SetLinger(0)
	client.Close()
	child.AwaitError(unix.ECONNRESET)
	child.Close()
}

// StraySegment sends an old segment to an IPv4 timewait socket, as if from its peer.
// The timewait socket answers, and the kernel sends a reset for the peer, which no
// longer exists. With net.ipv4.tcp_rfc1337 = 0 that ends the timewait socket.
func (n *Netns) StraySegment(to *Endpoint) {
	n.t.Helper()
	const headerWords, ack = 5, 0x10
	segment := make([]byte, 4*headerWords)
	binary.BigEndian.PutUint16(segment[0:], to.Remote.Port())
	binary.BigEndian.PutUint16(segment[2:], to.Local.Port())
	binary.BigEndian.PutUint32(segment[4:], 1) // not the expected sequence number
	segment[12], segment[13] = headerWords<<4, ack
	binary.BigEndian.PutUint16(segment[16:], checksum(segment, to))
	var fd int
	var err error
	n.Do(func() { fd, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP) })
	n.must("socket SOCK_RAW", err)
	defer unix.Close(fd)
	n.must("bind", unix.Bind(fd, &unix.SockaddrInet4{Addr: to.Remote.Addr().As4()}))
	n.must("sendto", unix.Sendto(fd, segment, 0, &unix.SockaddrInet4{Addr: to.Local.Addr().As4()}))
}

// checksum is the TCP checksum of the segment and the pseudo header.
func checksum(segment []byte, to *Endpoint) uint16 {
	from4, to4 := to.Remote.Addr().As4(), to.Local.Addr().As4()
	sum := uint32(unix.IPPROTO_TCP) + uint32(len(segment))
	for _, part := range [][]byte{from4[:], to4[:], segment} {
		for i := 0; i < len(part); i += 2 {
			sum += uint32(binary.BigEndian.Uint16(part[i:]))
		}
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}
