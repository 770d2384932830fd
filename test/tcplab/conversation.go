package tcplab

import (
	"net/netip"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Family is the kind of addresses that a scenario uses.
type Family int

// The families.
const (
	V4     Family = iota // 127.0.0.1 on both sides
	V6                   // ::1 on both sides
	Mapped               // an AF_INET6 client connects to ::ffff:127.0.0.1, the listener is dual-stack on [::]
)

// Families is all families.
var Families = []Family{V4, V6, Mapped}

// String returns a short name for subtests.
func (f Family) String() string { return [...]string{"v4", "v6", "mapped"}[f] }

// Loopback is the address to which clients of the family connect.
func (f Family) Loopback() netip.Addr {
	return [...]netip.Addr{
		V4:     netip.MustParseAddr("127.0.0.1"),
		V6:     netip.IPv6Loopback(),
		Mapped: netip.MustParseAddr("::ffff:127.0.0.1"),
	}[f]
}

// nowhere is an address to which an empty namespace has no route.
func (f Family) nowhere() netip.Addr {
	return [...]netip.Addr{
		V4:     netip.MustParseAddr("192.0.2.1"),
		V6:     netip.MustParseAddr("2001:db8::1"),
		Mapped: netip.MustParseAddr("::ffff:192.0.2.1"),
	}[f]
}

// Anywhere is the port on the unspecified address of the family.
func (f Family) Anywhere(port uint16) netip.AddrPort {
	if f == V4 {
		return netip.AddrPortFrom(netip.IPv4Unspecified(), port)
	}
	return netip.AddrPortFrom(netip.IPv6Unspecified(), port)
}

// At is the port on the loopback address of the family.
func (f Family) At(port uint16) netip.AddrPort { return netip.AddrPortFrom(f.Loopback(), port) }

// Endpoint is one socket of a scenario, and what the kernel did with it.
type Endpoint struct {
	Cookie uint64 // 0 for a child that was never accepted
	// Local and Remote are the last addresses of the socket. They are zero, or have
	// port 0, if the socket never had one or the kernel has cleared it.
	Local, Remote netip.AddrPort
	Path          Path
	// Substate is that of the timewait socket after the last CLOSE: TimeWait, or FinWait2
	// while the peer's FIN has not come; 0 if there is no timewait socket.
	Substate State
	// Err is the error with which the kernel ended the socket, 0 for none.
	Err unix.Errno

	socket *Socket // nil for a child that was never accepted
}

// Bytes returns how many bytes the process wrote, and how many came for it from the peer,
// read or not; 0, 0 for a child that was never accepted.
func (p *Endpoint) Bytes() (written, arrived uint64) {
	if p.socket == nil {
		return 0, 0
	}
	return p.socket.written, p.socket.read
}

// Outcome is the sockets of a scenario after its end.
type Outcome struct {
	Client   *Endpoint
	Listener *Endpoint // nil if the scenario has none
	Child    *Endpoint // nil if the scenario has none
	Others   []*Endpoint
}

// Endpoints returns all sockets of the outcome.
func (o Outcome) Endpoints() []*Endpoint {
	var all []*Endpoint
	for _, p := range append([]*Endpoint{o.Client, o.Listener, o.Child}, o.Others...) {
		if p != nil {
			all = append(all, p)
		}
	}
	return all
}

// Transitions returns the number of events of the outcome's sockets.
func (o Outcome) Transitions() int {
	count := 0
	for _, p := range o.Endpoints() {
		count += max(len(p.Path)-1, 0)
	}
	return count
}

// conversation is a scenario while it runs.
type conversation struct {
	n                       *Netns
	listener, client, child *Socket
	out                     Outcome
}

// listen begins a conversation with a listener, without a client.
func listen(n *Netns, f Family, options ...func(*Socket)) *conversation {
	n.t.Helper()
	at := f.At(FreshPort())
	if f == Mapped {
		at = f.Anywhere(at.Port())
	}
	c := &conversation{n: n, listener: n.Listen(at, options...)}
	c.out.Listener = endpoint(c.listener)
	c.out.Listener.Path = listened
	c.client = n.Socket(f.Loopback())
	c.out.Client = &Endpoint{Cookie: c.client.Cookie(), socket: c.client}
	return c
}

// target returns the address to which clients of the conversation connect.
func (c *conversation) target(f Family) netip.AddrPort { return f.At(c.out.Listener.Local.Port()) }

// establish begins a conversation with both sides in ESTABLISHED.
func establish(n *Netns, f Family) *conversation {
	n.t.Helper()
	c := listen(n, f)
	c.client.Connect(c.target(f))
	c.accept()
	return c
}

// accept accepts the client's connection and records the addresses of both sides.
func (c *conversation) accept() {
	c.n.t.Helper()
	c.child = c.listener.Accept()
	c.child.Await(Established)
	c.client.Await(Established)
	c.out.Client, c.out.Child = endpoint(c.client), endpoint(c.child)
}

// finish ends a conversation whose client and child are about to reach CLOSE. client and
// child are the paths that these sockets take. It closes what is open and waits for the
// last event.
func (c *conversation) finish(client, child Path) Outcome {
	c.n.t.Helper()
	c.out.Client.Path = client
	if c.out.Child != nil {
		c.out.Child.Path = child
	}
	return c.n.finish(c.out, c.client, c.child, c.listener)
}

// finish closes the sockets that are open, waits for the last event, and returns out.
func (n *Netns) finish(out Outcome, sockets ...*Socket) Outcome {
	n.t.Helper()
	for _, s := range sockets {
		if s != nil && s.FD >= 0 {
			s.Close()
		}
	}
	n.settled(out.Endpoints())
	return out
}

// endpoint records the identity of a socket; a listener has no peer.
func endpoint(s *Socket) *Endpoint {
	s.n.t.Helper()
	p := &Endpoint{Cookie: s.Cookie(), Local: s.Addr(), socket: s}
	if State(s.Info().State) != Listen {
		p.Remote = s.Peer()
	}
	return p
}

// The range of FreshPort.
const (
	FirstFreshPort = 10000
	LastFreshPort  = FirstFreshPort + freshPorts - 1

	freshPorts = 20000
)

var portsTaken atomic.Uint32

// FreshPort returns a port below the ephemeral ports that no other scenario of this
// process uses, in any namespace. A tracer of all namespaces can distinguish scenarios
// by it.
func FreshPort() uint16 {
	spread := uint32(os.Getpid()) * 997 // two test processes may run at once
	return uint16(FirstFreshPort + (spread+portsTaken.Add(1))%freshPorts)
}
