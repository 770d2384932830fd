package kernel_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/test/kernel/harness"
	"github.com/tcpshift/tcpshift/test/tcplab"
)

// A client tries to connect three times with one socket. At the first transition of
// each attempt no port is chosen yet, so local_port is absent.
func TestConnection_RetryHasNoLocalPort(t *testing.T) {
	for _, f := range tcplab.Families {
		t.Run(f.String(), func(t *testing.T) {
			var cookie uint64
			lines := harness.RecordsByCookie(t, func(n *tcplab.Netns) {
				s := n.Socket(f.Loopback())
				cookie = s.Cookie()
				for range 3 {
					if err := s.TryConnect(f.At(7001)); !errors.Is(err, unix.ECONNREFUSED) {
						t.Fatal(err)
					}
				}
				s.Close()
			})
			attempts := 0
			for _, l := range harness.RecordsWith(lines, "transition", cookie) {
				if l.Old == "CLOSE" {
					attempts++
					if l.LocalPort != 0 {
						t.Errorf("attempt %d has the local port of the attempt before: %s", attempts, l.Raw)
					}
				}
			}
			if attempts != 3 {
				t.Errorf("%d attempts, want 3", attempts)
			}
		})
	}
}

// The second connection of a socket finds no free port: closed_by is no_port or
// absent, not reset_sent, and local_port is absent.
func TestConnection_ReusedSocketFindsNoPort(t *testing.T) {
	var cookie uint64
	lines := harness.RecordsByCookie(t, func(n *tcplab.Netns) {
		n.Sysctl("net.ipv4.ip_local_port_range", "40000 40001")
		listener := n.Listen(tcplab.V4.At(7001))
		s := n.Dial(tcplab.V4.At(7001))
		cookie = s.Cookie()
		child := listener.Accept()
		s.Disconnect()
		child.AwaitError(unix.ECONNRESET)
		child.Close()
		var others []*tcplab.Socket
		for range 2 {
			others = append(others, n.Dial(tcplab.V4.At(7001)), listener.Accept())
		}
		if err := s.TryConnect(tcplab.V4.At(7001)); !errors.Is(err, unix.EADDRNOTAVAIL) {
			t.Fatal(err)
		}
		for _, o := range append(others, s, listener) {
			o.SetLinger(0)
			o.Close()
		}
	})
	ends := harness.RecordsWith(lines, "connection", cookie)
	if len(ends) != 2 {
		t.Fatalf("%d connection records, want 2", len(ends))
	}
	if l := ends[1]; l.ClosedBy != "no_port" && l.ClosedBy != "" || l.LocalPort != 0 {
		t.Errorf("closed_by %q, local port %d, want no_port and none: %s", l.ClosedBy, l.LocalPort, l.Raw)
	}
}

// A socket whose connect() failed becomes a listener. Its records have no peer, and no other
// port than that of listen(), which is not known if the socket is closed before the reader
// asks for it.
func TestConnection_ClientBecomesListener(t *testing.T) {
	for _, f := range tcplab.Families {
		t.Run(f.String(), func(t *testing.T) {
			var cookie uint64
			var port uint16
			lines := harness.RecordsByCookie(t, func(n *tcplab.Netns) {
				s := n.Socket(f.Loopback())
				cookie = s.Cookie()
				if err := s.TryConnect(f.At(7001)); !errors.Is(err, unix.ECONNREFUSED) {
					t.Fatal(err)
				}
				n.Do(func() {
					if err := unix.Listen(s.FD, 1); err != nil {
						t.Error(err)
					}
				})
				port = s.Addr().Port()
				s.Close()
			})
			for _, l := range harness.RecordsWith(lines, "transition", cookie) {
				if l.Role != "listener" {
					continue
				}
				if l.PeerAddr != "" || l.PeerPort != 0 {
					t.Errorf("a listener has no peer: %s", l.Raw)
				}
				if l.LocalPort != port && (l.New != "LISTEN" || l.LocalPort != 0) {
					t.Errorf("local_port %d, want %d: %s", l.LocalPort, port, l.Raw)
				}
			}
		})
	}
}

// A client disconnects while data is in flight, and becomes a listener. The numbers of its
// sequence stay until it connects again, but the listener has sent nothing.
func TestConnection_ListenerAfterDataInFlight(t *testing.T) {
	for _, f := range tcplab.Families {
		t.Run(f.String(), func(t *testing.T) {
			var cookie uint64
			lines := harness.RecordsByCookie(t, func(n *tcplab.Netns) {
				listener := n.Listen(listenAt(f, 7001))
				s := n.Dial(f.At(7001))
				cookie = s.Cookie()
				child := listener.Accept()
				child.DropIncoming()
				s.Write(strings.Repeat("x", portion))
				s.AwaitInfo("data in flight", func(i *unix.TCPInfo) bool { return i.Unacked > 0 })
				s.Disconnect()
				n.Do(func() {
					if err := unix.Listen(s.FD, 1); err != nil {
						t.Error(err)
					}
				})
				for _, each := range []*tcplab.Socket{s, child, listener} {
					each.SetLinger(0)
					each.Close()
				}
			})
			type life struct {
				role, closedBy, error string
				sent, received, rtt   uint64
			}
			var got []life
			for _, l := range harness.RecordsWith(lines, "connection", cookie) {
				got = append(got, life{l.Role, l.ClosedBy, l.Error, l.Sent, l.Received, min(l.RTT, 1)})
			}
			want := []life{
				{"client", "reset_sent", "", portion, 0, 1},
				{"listener", "local", "", 0, 0, 0},
			}
			if !slices.Equal(got, want) {
				t.Errorf("the socket's lives: %+v, want %+v", got, want)
			}
		})
	}
}

// A socket of IPv6 with mapped addresses becomes one of IPv4 while it is connected. Its transitions, owner and
// TIME_WAIT are those of the connection before.
func TestConnection_MappedBecomesIPv4(t *testing.T) {
	var cookie uint64
	lines := harness.RecordsByCookie(t, func(n *tcplab.Netns) {
		listener := n.Listen(tcplab.V4.At(7001))
		s := n.Dial(tcplab.Mapped.At(7001))
		cookie = s.Cookie()
		child := listener.Accept()
		s.SetsockoptInt(unix.IPPROTO_IPV6, unix.IPV6_ADDRFORM, unix.AF_INET)
		s.Close()
		child.ReadEOF()
		child.Close()
		listener.Close()
	})
	var got []string
	for _, l := range harness.RecordsWith(lines, "transition", cookie) {
		got = append(got, l.New)
		if l.Family != "ipv4" || l.PeerPort != 7001 || l.PID == nil {
			t.Errorf("family %q: %s", l.Family, l.Raw)
		}
	}
	if want := []string{"SYN_SENT", "ESTABLISHED", "FIN_WAIT1", "FIN_WAIT2", "TIME_WAIT"}; !slices.Equal(got, want) {
		t.Errorf("the transitions are to %q, want %q", got, want)
	}
}
