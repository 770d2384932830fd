package kernel_test

import (
	"errors"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/internal/filter"
	"github.com/tcpshift/tcpshift/internal/probe"
	"github.com/tcpshift/tcpshift/test/tcplab"
)

// recordsWith gives the records of one socket and of one type.
func recordsWith(lines []line, recordType string, cookie uint64) []line {
	var mine []line
	for _, l := range ofType(lines, recordType) {
		if l.Conn == conn(cookie) {
			mine = append(mine, l)
		}
	}
	return mine
}

// A client that tries again with the same socket, as many do: at each attempt's first
// transition no port has been chosen yet, so none may be told.
func TestConnection_RetryHasNoLocalPort(t *testing.T) {
	for _, f := range tcplab.Families {
		t.Run(f.String(), func(t *testing.T) {
			var cookie uint64
			lines := recordsOf(t, func(n *tcplab.Netns) {
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
			for _, l := range recordsWith(lines, "transition", cookie) {
				if l.Old == "CLOSE" {
					attempts++
					if l.LocalPort != 0 {
						t.Errorf("attempt %d: local port of the one before: %s", attempts, l.raw)
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
	lines := recordsOf(t, func(n *tcplab.Netns) {
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
	ends := recordsWith(lines, "connection", cookie)
	if len(ends) != 2 {
		t.Fatalf("%d ends, want 2", len(ends))
	}
	if l := ends[1]; l.ClosedBy != "no_port" && l.ClosedBy != "" || l.LocalPort != 0 {
		t.Errorf("closed_by %q, local port %d, want no_port and none: %s", l.ClosedBy, l.LocalPort, l.raw)
	}
}

// A socket that was a client listens: a listener has no peer, and unless bound the
// port is not chosen at its first transition.
func TestConnection_ClientBecomesListener(t *testing.T) {
	for _, f := range tcplab.Families {
		t.Run(f.String(), func(t *testing.T) {
			var cookie uint64
			lines := recordsOf(t, func(n *tcplab.Netns) {
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
			for _, l := range recordsWith(lines, "transition", cookie) {
				if l.Role != "listener" {
					continue
				}
				if l.PeerAddr != "" || l.PeerPort != 0 {
					t.Errorf("a listener's peer: %s", l.raw)
				}
				if l.New == "LISTEN" && l.LocalPort != 0 {
					t.Errorf("a port before one was chosen: %s", l.raw)
				}
			}
		})
	}
}

// Of a connection that a filter on ports leaves out nothing need be remembered. When its
// socket connects to where the filter wants it, the time since it was closed is told or is
// not, but never the time since it was opened.
func TestFilter_ReusedSocketHasNoOldTime(t *testing.T) {
	requireFeature(t, probe.SocketStorage)
	n := tcplab.NewNetns(t)
	listener := n.Listen(tcplab.V4.At(7001))
	o := in(n)
	o.BufferSize = 1 << 20
	o.Filter.PeerPorts = []filter.PortRange{{First: 7002, Last: 7002}}
	tr := startTracer(t, o)
	s := n.Dial(tcplab.V4.At(7001))
	child := listener.Accept()
	time.Sleep(50 * time.Millisecond) // so long it was open
	began := time.Now()
	s.Disconnect()
	if err := s.TryConnect(tcplab.V4.At(7002)); !errors.Is(err, unix.ECONNREFUSED) {
		t.Fatal(err)
	}
	closed := time.Since(began)
	s.Close()
	child.Close()
	opened := 0
	for _, l := range ofType(tr.stop(), "transition") {
		switch {
		case l.PeerPort != 7002:
			t.Errorf("told although the filter is on port 7002: %s", l.raw)
		case l.New == "SYN_SENT":
			opened++
			if l.InState != nil && time.Duration(*l.InState) > closed {
				t.Errorf("it was closed for %v at most: %s", closed, l.raw)
			}
		}
	}
	if opened != 1 {
		t.Errorf("%d connections were opened to port 7002, want 1", opened)
	}
}
