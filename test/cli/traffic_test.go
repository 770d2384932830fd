package cli_test

import (
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/tcpshift/tcpshift/test/tcplab"
)

// connection is one connection of the traffic. Both ends have ports that no other
// connection has.
type connection struct {
	name     string
	from, to netip.AddrPort
}

func newConnection(name, from, to string) connection {
	return connection{name, netip.MustParseAddrPort(from), netip.MustParseAddrPort(to)}
}

// The connections of the traffic. Every filter matches some of them and not others.
var (
	plain   = newConnection("plain", "127.0.0.1:18001", "127.0.0.1:17001")
	crossed = newConnection("crossed", "127.0.0.2:18002", "127.0.0.3:17002")
	ipv6    = newConnection("ipv6", "[::1]:18003", "[::1]:17003")
	mapped  = newConnection("mapped", "[::ffff:127.0.0.4]:18004", "[::ffff:127.0.0.4]:17004")
	private = newConnection("private", "[fd00:1::1]:18005", "[fd00:2::1]:17005")
	// The client is another process.
	foreign = newConnection("foreign", "127.0.0.1:18006", "127.0.0.1:17006")
	// In another network namespace, with the addresses of plain.
	elsewhere = newConnection("elsewhere", "127.0.0.1:18001", "127.0.0.1:17001")
)

const peerComm = "tcpshift peer"

// traffic makes connections in two network namespaces, one of them by another process.
// Its namespaces separate it from the rest of the host.
type traffic struct {
	t        testing.TB
	n, other *tcplab.Netns
	peer     *peer
}

func newTraffic(t testing.TB, adjustPeer ...func(*exec.Cmd)) *traffic {
	t.Helper()
	return newTrafficWith(t, peerComm, adjustPeer...)
}

// newTrafficWith names the other process.
func newTrafficWith(t testing.TB, comm string, adjustPeer ...func(*exec.Cmd)) *traffic {
	t.Helper()
	requireRoot(t)
	s := &traffic{t: t, n: tcplab.NewNetns(t), other: tcplab.NewNetns(t)}
	s.n.AddLoopbackAddr(private.from.Addr())
	s.n.AddLoopbackAddr(private.to.Addr())
	s.peer = startPeer(t, s.n, comm, foreign.from, foreign.to, adjustPeer...)
	return s
}

// byNetns returns the flags that filter by the namespaces of the traffic.
func (s *traffic) byNetns() []string {
	return flags("--netns", fmt.Sprintf("%d,%d", s.n.Inode(), s.other.Inode()))
}

// makeConnections makes all connections and returns when their last events have been emitted.
func (s *traffic) makeConnections() {
	s.t.Helper()
	for _, c := range []connection{plain, crossed, ipv6, mapped, private} {
		s.connect(s.n, c)
	}
	s.connect(s.other, elsewhere)
	s.connectPeer()
	s.n.Settle(0)
	s.other.Settle(0)
}

// connect opens and closes one connection, the client first.
func (s *traffic) connect(n *tcplab.Netns, c connection) {
	s.t.Helper()
	listener := n.Listen(c.to)
	client := n.Socket(c.from.Addr())
	client.Bind(c.from)
	client.Connect(c.to)
	server := listener.Accept()
	client.Close()
	server.ReadEOF()
	server.Close()
	listener.Close()
}

func (s *traffic) connectPeer() {
	s.t.Helper()
	listener := s.n.Listen(foreign.to)
	s.peer.connect()
	server := listener.Accept()
	s.peer.end()
	server.ReadEOF()
	server.Close()
	listener.Close()
}

// end returns the name of a transition's socket, such as "plain client", or "" if the
// socket is not of the traffic.
func (s *traffic) end(r *record) string {
	var made []connection
	switch r.Netns {
	case s.n.Inode():
		made = []connection{plain, crossed, ipv6, mapped, private, foreign}
	case s.other.Inode():
		made = []connection{elsewhere}
	}
	for _, c := range made {
		switch {
		case r.LocalPort == c.from.Port():
			return c.name + " client"
		case r.LocalPort != c.to.Port():
		case r.NewState == "LISTEN", r.OldState == "LISTEN" && r.NewState != "SYN_RECV":
			return c.name + " listener"
		default:
			return c.name + " server"
		}
	}
	return ""
}

// transition is what must be equal in the records of two tracers.
type transition struct {
	record
	end string
}

// String formats the transition for a failure message.
func (t transition) String() string {
	return fmt.Sprintf("%-20s %s %s → %s, %s:%d → %s:%d, %s mapped=%t %s pid %d", t.end, t.Conn, t.OldState, t.NewState,
		t.LocalAddr, t.LocalPort, t.PeerAddr, t.PeerPort, t.Family, t.Mapped, t.Role, t.PID)
}

// transitions returns those of the traffic, socket by socket: between sockets there is
// no order.
func (s *traffic) transitions(from stream) []transition {
	var all []transition
	for _, r := range from.of("transition") {
		if end := s.end(&r); end != "" {
			all = append(all, transition{r, end})
		}
	}
	slices.SortStableFunc(all, func(a, b transition) int { return strings.Compare(a.end, b.end) })
	return all
}

func ends(all []transition) []string {
	var names []string
	for _, t := range all {
		names = append(names, t.end)
	}
	return slices.Compact(names)
}

func lines(all []transition) string {
	var b strings.Builder
	for _, t := range all {
		fmt.Fprintln(&b, t)
	}
	return b.String()
}
