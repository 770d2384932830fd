package tcplab

import (
	"net/netip"
	"strconv"

	"golang.org/x/sys/unix"
)

// Refused connects to a port without a listener.
//
//	client  CLOSE SYN_SENT CLOSE, ECONNREFUSED
func Refused(n *Netns, f Family) Outcome {
	n.t.Helper()
	to := f.At(FreshPort())
	client := n.Socket(to.Addr())
	out := Outcome{Client: &Endpoint{socket: client, Cookie: client.Cookie(), Remote: to, Err: unix.ECONNREFUSED}}
	n.mustFail("connect to a closed port", client.TryConnect(to), unix.ECONNREFUSED)
	client.Await(Close)
	out.Client.Path = Path{Close, SynSent, Close}
	return n.finish(out, client)
}

// NoRoute connects to an address without a route. That fails before the state changes:
// there is no event.
//
//	client  CLOSE
func NoRoute(n *Netns, f Family) Outcome {
	n.t.Helper()
	to := netip.AddrPortFrom(f.nowhere(), FreshPort())
	client := n.Socket(to.Addr())
	client.Bind(f.Anywhere(FreshPort())) // an event would have this port
	out := Outcome{Client: &Endpoint{socket: client, Cookie: client.Cookie(), Local: client.Addr(), Remote: to, Path: Path{Close}}}
	n.mustFail("connect without a route", client.TryConnect(to), unix.ENETUNREACH)
	client.Await(Close)
	return n.finish(out, client)
}

// NoPort connects while all ephemeral ports are in use. The event comes before a local
// port is chosen, so it has none.
//
//	client       CLOSE SYN_SENT CLOSE
//	two clients  CLOSE SYN_SENT ESTABLISHED CLOSE
//	two children LISTEN SYN_RECV ESTABLISHED CLOSE, ECONNRESET
func NoPort(n *Netns, f Family) Outcome {
	n.t.Helper()
	const ephemeral = "net.ipv4.ip_local_port_range"
	c := listen(n, f)
	before := n.Sysctl(ephemeral, "40000 40001")
	var clients, children [2]*Socket
	for i := range clients {
		clients[i] = n.Dial(c.target(f))
		children[i] = c.listener.Accept()
		children[i].Await(Established)
		c.out.Others = append(c.out.Others, endpoint(clients[i]), endpoint(children[i]))
	}
	n.mustFail("connect without a free port", c.client.TryConnect(c.target(f)), unix.EADDRNOTAVAIL)
	c.client.Await(Close)
	n.Sysctl(ephemeral, before)
	for i := range clients {
		clients[i].SetLinger(0)
		clients[i].Close()
		children[i].AwaitError(unix.ECONNRESET)
		client, child := c.out.Others[2*i], c.out.Others[2*i+1]
		client.Path, child.Path = connected.Then(Close), accepted.Then(Close)
		child.Err = unix.ECONNRESET
	}
	c.out.Client.Remote = c.target(f)
	return c.finish(Path{Close, SynSent, Close}, nil)
}

// ConnectTimeout connects to a listener that drops every SYN. It takes a second,
// because the first retransmission of a SYN does not come earlier.
//
//	client  CLOSE SYN_SENT CLOSE, ETIMEDOUT
func ConnectTimeout(n *Netns, f Family) Outcome {
	n.t.Helper()
	c := listen(n, f)
	c.listener.DropIncoming()
	c.client.SetsockoptInt(unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 1) // milliseconds
	c.client.StartConnect(c.target(f))
	c.client.Await(SynSent)
	c.out.Client.Local, c.out.Client.Remote = c.client.Addr(), c.target(f)
	c.client.AwaitError(unix.ETIMEDOUT)
	c.out.Client.Err = unix.ETIMEDOUT
	return c.finish(Path{Close, SynSent, Close}, nil)
}

// SelfConnect is a socket that connects to itself, by a simultaneous open, and ends in
// a simultaneous close.
//
//	client  CLOSE SYN_SENT SYN_RECV ESTABLISHED FIN_WAIT1 CLOSING CLOSE, then TIME_WAIT
func SelfConnect(n *Netns, f Family) Outcome {
	n.t.Helper()
	at := f.At(FreshPort())
	client := n.Socket(at.Addr())
	client.Bind(at)
	client.Connect(at)
	client.Await(Established)
	out := Outcome{Client: endpoint(client)}
	client.Close()
	out.Client.Path = Path{Close, SynSent, SynRecv, Established, FinWait1, Closing, Close}
	out.Client.Substate = TimeWait
	return n.finish(out, client)
}

// SimultaneousOpen is two sockets that connect to each other, without a listener. The
// first drops the reset that its first SYN gets.
//
//	client      CLOSE SYN_SENT SYN_RECV ESTABLISHED FIN_WAIT1 FIN_WAIT2 CLOSE, then TIME_WAIT
//	Others[0]   CLOSE SYN_SENT ESTABLISHED CLOSE_WAIT LAST_ACK CLOSE
func SimultaneousOpen(n *Netns, f Family) Outcome {
	n.t.Helper()
	here, there := f.At(FreshPort()), f.At(FreshPort())
	first, second := n.Socket(here.Addr()), n.Socket(there.Addr())
	first.Bind(here)
	second.Bind(there)
	first.DropIncoming()
	first.StartConnect(there)
	first.AllowIncoming()
	second.Connect(here)
	first.Await(Established)
	out := Outcome{Client: endpoint(first), Others: []*Endpoint{endpoint(second)}}
	first.Close()
	second.ReadEOF()
	second.Close()
	out.Client.Path = Path{Close, SynSent, SynRecv, Established, FinWait1, FinWait2, Close}
	out.Client.Substate = TimeWait
	out.Others[0].Path = connected.Then(CloseWait, LastAck, Close)
	return n.finish(out, first, second)
}

// FastOpen is a client that sends its first data in the SYN, and closes first. The kernel
// makes the child when the SYN arrives, not at the end of the handshake, so the child stays in
// SYN_RECV for some time.
//
//	client  CLOSE SYN_SENT ESTABLISHED FIN_WAIT1 FIN_WAIT2 CLOSE, then TIME_WAIT
//	child   LISTEN SYN_RECV ESTABLISHED CLOSE_WAIT LAST_ACK CLOSE
func FastOpen(n *Netns, f Family) Outcome {
	n.t.Helper()
	c := listenFastOpen(n, f)
	c.client.WriteFastOpen("early", c.target(f), 0)
	const synDataAcked = 32 // TCPI_OPT_SYN_DATA
	if c.client.Info().Options&synDataAcked == 0 {
		n.t.Fatal("TCP fast open: the SYN's data was not acknowledged")
	}
	return c.readAndClose("early")
}

// FastOpenAbandoned is a fast open whose client drops the answer. The server accepts
// the child in SYN_RECV and resets it; the client disconnects.
//
//	client  CLOSE SYN_SENT CLOSE, with a local port and no error
//	child   LISTEN SYN_RECV CLOSE
func FastOpenAbandoned(n *Netns, f Family) Outcome {
	n.t.Helper()
	c := listenFastOpen(n, f)
	c.client.DropIncoming()
	c.client.WriteFastOpen("early", c.target(f), unix.MSG_DONTWAIT)
	c.child = c.listener.Accept()
	c.child.Await(SynRecv)
	c.client.Await(SynSent)
	if got := c.child.Read(); got != "early" { // FIONREAD is 0 in SYN_RECV
		n.t.Fatalf("read in SYN_RECV: got %q", got)
	}
	c.out.Child = endpoint(c.child)
	c.out.Client.Local, c.out.Client.Remote = c.client.Addr(), c.target(f)
	c.child.SetLinger(0)
	c.child.Close()
	c.client.Close()
	return c.finish(Path{Close, SynSent, Close}, Path{Listen, SynRecv, Close})
}

// listenFastOpen sets up fast open without cookies: to get one takes a connection.
func listenFastOpen(n *Netns, f Family) *conversation {
	n.t.Helper()
	const client, server, withoutCookie = 0x1, 0x2, 0x4 | 0x200
	n.Sysctl("net.ipv4.tcp_fastopen", strconv.Itoa(client|server|withoutCookie))
	return listen(n, f, func(s *Socket) { s.SetsockoptInt(unix.IPPROTO_TCP, unix.TCP_FASTOPEN, 16) })
}

// DeferAccept is a listener with TCP_DEFER_ACCEPT: the client is in ESTABLISHED, but
// the kernel makes no child before the first data.
//
//	client  CLOSE SYN_SENT ESTABLISHED FIN_WAIT1 FIN_WAIT2 CLOSE, then TIME_WAIT
//	child   LISTEN SYN_RECV ESTABLISHED CLOSE_WAIT LAST_ACK CLOSE
func DeferAccept(n *Netns, f Family) Outcome {
	n.t.Helper()
	c := listen(n, f, func(s *Socket) { s.SetsockoptInt(unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, 30) }) // seconds
	c.client.Connect(c.target(f))
	if c.listener.Readable() {
		n.t.Fatal("TCP_DEFER_ACCEPT: there is a child before the first data")
	}
	c.client.Write("data")
	return c.readAndClose("data")
}

func (c *conversation) readAndClose(want string) Outcome {
	c.n.t.Helper()
	c.accept()
	if got := c.child.Read(); got != want {
		c.n.t.Fatalf("read: got %q, want %q", got, want)
	}
	c.client.Close()
	c.child.ReadEOF()
	c.child.Close()
	c.out.Client.Substate = TimeWait
	return c.finish(closesFirst, closesLast)
}
