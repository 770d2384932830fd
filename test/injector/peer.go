// Package injector makes TCP peers that misbehave. A Peer is one end of a connection
// without a TCP implementation: a test writes each segment of it, so data can follow a
// FIN, a SYN-ACK can carry data and a FIN, and a reset or an ICMP error can come in any
// state of the kernel's socket, which is at the other end.
//
// It works with raw sockets on loopback, in a namespace of tcplab. A TUN device would
// need a module, which the guests of test/kernelmatrix do not have. The peer's port
// belongs to a listener that drops everything, so that the kernel does not answer for
// the peer.
//
// It must not be used in the host's own namespace, does not retransmit, has no timers,
// and knows nothing of the tracer. A step that fails ends the test.
package injector

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/test/tcplab"
)

// patience bounds the wait for a segment of the kernel.
const patience = 30 * time.Second

// Peer sends and receives the segments of one address and port.
type Peer struct {
	t    testing.TB
	n    *tcplab.Netns
	at   netip.AddrPort
	raw  int // sends and receives TCP
	mute *tcplab.Socket
}

// New makes a peer at an address of the namespace's loopback device. No other socket may
// have the port.
func New(t testing.TB, n *tcplab.Netns, at netip.AddrPort) *Peer {
	t.Helper()
	at = netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
	p := &Peer{t: t, n: n, at: at, mute: n.Listen(at, (*tcplab.Socket).DropIncoming)}
	p.raw = p.open(unix.IPPROTO_TCP)
	limit := unix.NsecToTimeval(int64(patience))
	p.must("setsockopt SO_RCVTIMEO", unix.SetsockoptTimeval(p.raw, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit))
	t.Cleanup(func() { unix.Close(p.raw) })
	return p
}

// Close frees the port. The kernel answers to later segments with a reset.
func (p *Peer) Close() {
	p.t.Helper()
	p.mute.Close()
}

// open makes a raw socket that sends from the peer's address.
func (p *Peer) open(protocol int) int {
	p.t.Helper()
	domain := unix.AF_INET6
	if p.at.Addr().Is4() {
		domain = unix.AF_INET
	}
	var fd int
	var err error
	p.n.Do(func() { fd, err = unix.Socket(domain, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol) })
	p.must("socket SOCK_RAW", err)
	p.must("bind", unix.Bind(fd, sockaddr(p.at.Addr())))
	return fd
}

func sockaddr(a netip.Addr) unix.Sockaddr {
	if a.Is4() {
		return &unix.SockaddrInet4{Addr: a.As4()}
	}
	return &unix.SockaddrInet6{Addr: a.As16()}
}

func (p *Peer) must(call string, err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatalf("injector: %s: %v", call, err)
	}
}

// receive waits for a segment to the peer that is as wanted.
func (p *Peer) receive(what string, wanted func(s Segment) bool) Segment {
	p.t.Helper()
	buf := make([]byte, 1<<16)
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		n, _, err := unix.Recvfrom(p.raw, buf, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		p.must("wait for "+what, err)
		b := buf[:n]
		if p.at.Addr().Is4() {
			b, err = skipIPv4(b)
			p.must("receive", err)
		}
		s, err := parse(b)
		p.must("receive", err)
		if s.To == p.at.Port() && wanted(s) {
			s.Options = append([]byte(nil), s.Options...)
			return s
		}
	}
	p.t.Fatalf("injector: no %s within %v", what, patience)
	return Segment{}
}

// Conn is a connection between the peer and a socket of the kernel.
type Conn struct {
	*Peer
	To   netip.AddrPort // the kernel's socket
	Next uint32         // the sequence number that Send uses
	Ack  uint32         // the acknowledgement number that Send uses: after the last segment that came in order
	una  uint32         // where the last segment of the kernel's socket began
}

// isn is the initial sequence number. It is small, so that failure messages can be read.
const isn = 1000

// Accept waits for the SYN of a socket that connects to the peer, and returns it. The
// handshake is the test's: Send(SYN|ACK, "").
func (p *Peer) Accept() (*Conn, Segment) {
	p.t.Helper()
	syn := p.receive("SYN", func(s Segment) bool { return s.Flags&(SYN|ACK) == SYN })
	return &Conn{Peer: p, To: netip.AddrPortFrom(p.at.Addr(), syn.From), Next: isn, Ack: syn.End(), una: syn.Seq}, syn
}

// Open sends a SYN, with data if the listener has fast open, and waits for the SYN-ACK,
// which it returns. It does not acknowledge it.
func (p *Peer) Open(to netip.AddrPort, data string) (*Conn, Segment) {
	p.t.Helper()
	c := &Conn{Peer: p, To: netip.AddrPortFrom(to.Addr().Unmap(), to.Port()), Next: isn}
	c.Send(SYN, data)
	synAck := p.receive("SYN|ACK", func(s Segment) bool { return s.From == c.To.Port() && s.Flags&(SYN|ACK) == SYN|ACK })
	c.Ack, c.una = synAck.End(), synAck.Seq
	return c, synAck
}

// Dial opens a connection with a whole handshake.
func (p *Peer) Dial(to netip.AddrPort) *Conn {
	p.t.Helper()
	c, _ := p.Open(to, "")
	c.Send(ACK, "")
	return c
}

// Send sends a segment with the next sequence number.
func (c *Conn) Send(flags Flags, data string) {
	c.t.Helper()
	s := Segment{Seq: c.Next, Ack: c.Ack, Flags: flags, Data: data}
	c.Inject(s)
	c.Next = s.End()
}

// Inject sends a segment with any numbers; the ports and, if it is 0, the window are
// filled in.
func (c *Conn) Inject(s Segment) {
	c.t.Helper()
	s.From, s.To = c.at.Port(), c.To.Port()
	if s.Window == 0 {
		s.Window = 0xffff
	}
	if s.Flags&ACK == 0 {
		s.Ack = 0
	}
	c.must("send "+s.String(), unix.Sendto(c.raw, s.marshal(c.at.Addr(), c.To.Addr()), 0, sockaddr(c.To.Addr())))
}

// Await waits for a segment with all these flags, and returns it. Later segments of Send
// acknowledge everything up to its end.
func (c *Conn) Await(flags Flags) Segment {
	c.t.Helper()
	s := c.receive(flags.String(), func(s Segment) bool {
		if s.From != c.To.Port() {
			return false
		}
		if end := s.End(); s.Flags&RST == 0 && int32(end-c.Ack) > 0 {
			c.Ack, c.una = end, s.Seq
		}
		return s.Flags&flags == flags
	})
	return s
}

// AwaitData waits until so many bytes more have come in.
func (c *Conn) AwaitData(count int) {
	c.t.Helper()
	for until := c.Ack + uint32(count); int32(until-c.Ack) > 0; {
		c.Await(ACK)
	}
}

// Unreachable sends an ICMP error, "host unreachable" or, in IPv6, "address
// unreachable", about the last segment with data, SYN or FIN of the kernel's socket. The
// kernel ignores it if that segment is acknowledged.
func (c *Conn) Unreachable() {
	c.t.Helper()
	inner := binary.BigEndian.AppendUint16(nil, c.To.Port())
	inner = binary.BigEndian.AppendUint16(inner, c.at.Port())
	inner = binary.BigEndian.AppendUint32(inner, c.una)
	protocol, message := unix.IPPROTO_ICMPV6, []byte{1, 3, 0, 0, 0, 0, 0, 0} // RFC 4443
	if c.at.Addr().Is4() {
		protocol, message = unix.IPPROTO_ICMP, []byte{3, 1, 0, 0, 0, 0, 0, 0} // RFC 792
		message = append(message, ipv4Header(c.To.Addr(), c.at.Addr(), sizeofHeader)...)
	} else {
		message = append(message, ipv6Header(c.To.Addr(), c.at.Addr(), sizeofHeader)...)
	}
	message = append(message, inner...)
	if protocol == unix.IPPROTO_ICMP {
		binary.BigEndian.PutUint16(message[2:], checksum(message))
	} // the kernel fills in the checksum of ICMPv6
	raw := c.open(protocol)
	defer unix.Close(raw)
	c.must("send an ICMP error", unix.Sendto(raw, message, 0, sockaddr(c.To.Addr())))
}

func ipv4Header(from, to netip.Addr, payload int) []byte {
	b := make([]byte, 12, 20)
	b[0], b[8], b[9] = 0x45, 64, unix.IPPROTO_TCP
	binary.BigEndian.PutUint16(b[2:], uint16(20+payload))
	return append(append(b, from.AsSlice()...), to.AsSlice()...)
}

func ipv6Header(from, to netip.Addr, payload int) []byte {
	b := make([]byte, 8, 40)
	b[0], b[6], b[7] = 0x60, unix.IPPROTO_TCP, 64
	binary.BigEndian.PutUint16(b[4:], uint16(payload))
	return append(append(b, from.AsSlice()...), to.AsSlice()...)
}
