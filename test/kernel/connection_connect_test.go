package kernel_test

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/internal/probe"
	"github.com/tcpshift/tcpshift/test/kernel/harness"
	"github.com/tcpshift/tcpshift/test/tcplab"
)

// wantEnd checks the record of a connect() that did not become a connection.
func wantEnd(t *testing.T, l harness.Record, closedBy, errno string, port uint16) {
	t.Helper()
	if l.ClosedBy != closedBy || l.Error != errno || l.LocalPort != port {
		t.Errorf("closed_by %q, error %q, local_port %d, want %q, %q, %d: %s", l.ClosedBy, l.Error, l.LocalPort, closedBy, errno, port, l.Raw)
	}
	wantBytes(t, l, 0, 0)
}

// lastEnd returns the last of a number of connection records of a socket.
func lastEnd(t *testing.T, lines []harness.Record, cookie uint64, lives int) harness.Record {
	t.Helper()
	ends := harness.RecordsWith(lines, "connection", cookie)
	if len(ends) != lives {
		t.Fatalf("%d connection records, want %d", len(ends), lives)
	}
	return ends[lives-1]
}

// listenAt is where a listener of the family listens.
func listenAt(f tcplab.Family, port uint16) netip.AddrPort {
	if f == tcplab.Mapped {
		return f.Anywhere(port)
	}
	return f.At(port)
}

// A routing rule refuses the connection once its port is known. IPv6 has no such case: it
// does not look up the route again after connect() has chosen the port.
func TestConnection_RouteRefusedAfterPort(t *testing.T) {
	harness.RequireFeature(t, probe.SocketStorage)
	for name, row := range map[string]struct {
		action uint8
		err    unix.Errno
	}{"prohibit": {unix.FR_ACT_PROHIBIT, unix.EACCES}, "unreachable": {unix.FR_ACT_UNREACHABLE, unix.ENETUNREACH}} {
		for _, f := range []tcplab.Family{tcplab.V4, tcplab.Mapped} {
			t.Run(fmt.Sprintf("%s %v", name, f), func(t *testing.T) {
				var cookie uint64
				var port uint16
				lines := harness.RecordsByCookie(t, func(n *tcplab.Netns) {
					n.RefuseRoutes(row.action, 1024)
					s := n.Socket(f.Loopback())
					cookie = s.Cookie()
					if err := s.TryConnect(f.At(7001)); !errors.Is(err, row.err) {
						t.Fatalf("connect: %v, want %v", err, row.err)
					}
					port = s.Addr().Port()
					s.Close()
					n.AllowRoutes()
				})
				if port == 0 {
					t.Fatal("getsockname: no port")
				}
				wantEnd(t, end(t, lines, cookie), "local", "", port)
			})
		}
	}
}

// A connection between these addresses and ports exists already: connect() from the
// bound port fails, in the first life of the socket and in the second.
func TestConnection_AddressInUse(t *testing.T) {
	for lives := 1; lives <= 2; lives++ {
		for _, f := range tcplab.Families {
			t.Run(fmt.Sprintf("life %d %v", lives, f), func(t *testing.T) {
				if lives > 1 {
					harness.RequireFeature(t, probe.SocketStorage)
				}
				var cookie uint64
				lines := harness.RecordsByCookie(t, func(n *tcplab.Netns) {
					listener, other := n.Listen(listenAt(f, 7001)), n.Listen(listenAt(f, 7002))
					first, second := n.Socket(f.Loopback()), n.Socket(f.Loopback())
					cookie = second.Cookie()
					for _, s := range []*tcplab.Socket{first, second} {
						s.ReuseAddr()
						s.Bind(f.At(7200))
					}
					first.Connect(f.At(7001))
					for range lives - 1 {
						second.Connect(f.At(7002))
						second.Disconnect()
					}
					if err := second.TryConnect(f.At(7001)); !errors.Is(err, unix.EADDRNOTAVAIL) {
						t.Fatalf("connect: %v", err)
					}
					for _, s := range []*tcplab.Socket{first, second, listener, other} {
						s.SetLinger(0)
						s.Close()
					}
				})
				wantEnd(t, lastEnd(t, lines, cookie, lives), "address_in_use", "", 7200)
			})
		}
	}
}

// No port is free: closed_by is no_port, and local_port is absent, in the first life of
// a socket and in the second.
func TestConnection_NoPort(t *testing.T) {
	for lives := 1; lives <= 2; lives++ {
		for _, f := range tcplab.Families {
			t.Run(fmt.Sprintf("life %d %v", lives, f), func(t *testing.T) {
				if lives > 1 {
					harness.RequireFeature(t, probe.SocketStorage)
				}
				var cookie uint64
				lines := harness.RecordsByCookie(t, func(n *tcplab.Netns) {
					n.Sysctl("net.ipv4.ip_local_port_range", "40000 40001")
					listener := n.Listen(listenAt(f, 7001))
					s := n.Socket(f.Loopback())
					cookie = s.Cookie()
					for range lives - 1 {
						s.Connect(f.At(7001))
						s.SetLinger(0)
						s.Disconnect()
					}
					open := []*tcplab.Socket{n.Dial(f.At(7001)), n.Dial(f.At(7001)), s, listener}
					if err := s.TryConnect(f.At(7001)); !errors.Is(err, unix.EADDRNOTAVAIL) {
						t.Fatalf("connect: %v", err)
					}
					for _, s := range open {
						s.SetLinger(0)
						s.Close()
					}
					n.Sysctl("net.ipv4.ip_local_port_range", "32768 60999")
				})
				wantEnd(t, lastEnd(t, lines, cookie, lives), "no_port", "", 0)
			})
		}
	}
}

// A second listen() on a port fails after the kernel has set LISTEN: closed_by is absent,
// also if the socket was a listener before.
func TestConnection_ListenFails(t *testing.T) {
	for lives := 1; lives <= 2; lives++ {
		for _, f := range tcplab.Families {
			t.Run(fmt.Sprintf("life %d %v", lives, f), func(t *testing.T) {
				var cookie uint64
				lines := harness.RecordsByCookie(t, func(n *tcplab.Netns) {
					first, second := n.Socket(f.Loopback()), n.Socket(f.Loopback())
					cookie = second.Cookie()
					for _, s := range []*tcplab.Socket{first, second} {
						s.ReuseAddr()
						s.Bind(listenAt(f, 7001))
					}
					for range lives - 1 {
						if err := unix.Listen(second.FD, 1); err != nil {
							t.Fatal(err)
						}
						second.Shutdown(unix.SHUT_RD)
					}
					if err := unix.Listen(first.FD, 1); err != nil {
						t.Fatal(err)
					}
					if err := unix.Listen(second.FD, 1); !errors.Is(err, unix.EADDRINUSE) {
						t.Fatalf("listen: %v", err)
					}
					second.Close()
					first.Close()
				})
				wantEnd(t, lastEnd(t, lines, cookie, lives), "", "", 7001)
				var path []string
				for _, l := range harness.RecordsWith(lines, "transition", cookie) {
					path = append(path, l.Old+" "+l.New)
				}
				if got, want := strings.Join(path, ", "), strings.Repeat(", CLOSE LISTEN, LISTEN CLOSE", lives)[2:]; got != want {
					t.Errorf("transitions %s, want %s", got, want)
				}
			})
		}
	}
}

// listen() without bind() chooses the port after the transition to LISTEN, whose record
// has it. The reader may ask for the port before it is chosen, so many sockets listen.
func TestConnection_ListenWithoutBind(t *testing.T) {
	const sockets = 50
	for _, f := range []tcplab.Family{tcplab.V4, tcplab.V6} {
		t.Run(f.String(), func(t *testing.T) {
			ports := make(map[uint64]uint16) // by cookie
			lines := harness.RecordsByCookie(t, func(n *tcplab.Netns) {
				var listeners []*tcplab.Socket
				var cookie uint64
				for range sockets {
					s := n.Socket(f.Loopback())
					listeners, cookie = append(listeners, s), s.Cookie()
					if err := unix.Listen(s.FD, 1); err != nil {
						t.Fatal(err)
					}
					ports[cookie] = s.Addr().Port()
				}
				harness.AwaitRecord(t, cookie) // the reader asks for the port as long as the socket exists
				for _, s := range listeners {
					s.Close()
				}
			})
			for cookie, port := range ports {
				transitions := harness.RecordsWith(lines, "transition", cookie)
				if len(transitions) != 2 {
					t.Errorf("%d transitions, want 2", len(transitions))
				}
				for _, l := range append(transitions, end(t, lines, cookie)) {
					if l.LocalPort != port {
						t.Errorf("local_port %d, want %d: %s", l.LocalPort, port, l.Raw)
					}
				}
			}
		})
	}
}
