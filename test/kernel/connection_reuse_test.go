package kernel_test

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/test/kernel/harness"
	"github.com/tcpshift/tcpshift/test/tcplab"
)

// A client that tries again with the same socket, as many do: at each attempt's first
// transition no port has been chosen yet, so none may be told.
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
						t.Errorf("attempt %d: local port of the one before: %s", attempts, l.Raw)
					}
				}
			}
			if attempts != 3 {
				t.Errorf("%d attempts, want 3", attempts)
			}
		})
	}
}

// The second connection of a socket finds no port: it has none, and was not reset.
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
		t.Fatalf("%d ends, want 2", len(ends))
	}
	if l := ends[1]; l.ClosedBy != "no_port" && l.ClosedBy != "" || l.LocalPort != 0 {
		t.Errorf("closed_by %q, local port %d, want no_port and none: %s", l.ClosedBy, l.LocalPort, l.Raw)
	}
}

// A socket that was a client listens: a listener has no peer, and unless bound the
// port is not chosen at its first transition.
func TestConnection_ClientBecomesListener(t *testing.T) {
	for _, f := range tcplab.Families {
		t.Run(f.String(), func(t *testing.T) {
			var cookie uint64
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
				s.Close()
			})
			for _, l := range harness.RecordsWith(lines, "transition", cookie) {
				if l.Role != "listener" {
					continue
				}
				if l.PeerAddr != "" || l.PeerPort != 0 {
					t.Errorf("a listener's peer: %s", l.Raw)
				}
				if l.New == "LISTEN" && l.LocalPort != 0 {
					t.Errorf("a port before one was chosen: %s", l.Raw)
				}
			}
		})
	}
}
