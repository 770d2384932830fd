package kernel_test

import (
	"errors"
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/internal/filter"
	"github.com/tcpshift/tcpshift/internal/probe"
	"github.com/tcpshift/tcpshift/internal/tcp"
	"github.com/tcpshift/tcpshift/test/tcplab"
)

// A port is bound for [probe.Probe.BoundPorts] if, and only if, connect() to another destination
// does not choose it: the port of a listener, of its child after the listener was closed, of a
// socket that was bound before connect(), and of its TIME_WAIT; but not one that connect() has
// chosen, nor its TIME_WAIT.
func TestBoundPorts_AsConnectDecides(t *testing.T) {
	for _, family := range []tcplab.Family{tcplab.V4, tcplab.V6} {
		t.Run(fmt.Sprint(family), func(t *testing.T) {
			n := tcplab.NewNetns(t)
			p, err := probe.Open(probe.Options{Filter: filter.Filter{Netns: []uint32{n.Inode()}}, BoundPorts: true})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { p.Close() })
			n.Sysctl("net.ipv4.tcp_tw_reuse", "0")
			n.Sysctl("net.ipv4.tcp_fin_timeout", "60")
			to := n.Listen(family.At(80))
			want := map[string]struct {
				port  uint16
				bound bool
			}{}
			note := func(what string, s *tcplab.Socket, bound bool) {
				want[what] = struct {
					port  uint16
					bound bool
				}{s.Addr().Port(), bound}
			}
			// dial returns a client, and its server's socket.
			dial := func(bind bool) (c, s *tcplab.Socket) {
				c = n.Socket(family.Loopback())
				if bind {
					c.Bind(family.At(0))
				}
				c.Connect(family.At(80))
				return c, to.Accept()
			}
			listener := n.Listen(family.At(0))
			note("a listener", listener, true)
			closed := n.Listen(family.At(0))
			n.Dial(closed.Addr())
			note("the child of a closed listener", closed.Accept(), true)
			closed.Close()
			for what, bind := range map[string]bool{"bound before connect()": true, "chosen by connect()": false} {
				c, _ := dial(bind)
				note(what, c, bind)
			}
			for what, bind := range map[string]bool{"a TIME_WAIT of a bound port": true, "a TIME_WAIT of a chosen port": false} {
				c, s := dial(bind)
				note(what, c, bind)
				c.Close()
				s.ReadEOF()
				s.Close()
			}
			var ports *tcp.PortSet
			n.Do(func() { ports, err = p.BoundPorts() })
			if err != nil {
				t.Fatal(err)
			}
			other := n.Listen(family.At(81))
			for what, w := range want {
				n.Sysctl("net.ipv4.ip_local_port_range", fmt.Sprintf("%d %d", w.port, w.port))
				c := n.Socket(family.Loopback())
				failed := c.TryConnect(family.At(81))
				if failed == nil {
					other.Accept()
				}
				if skips := errors.Is(failed, unix.EADDRNOTAVAIL); skips != w.bound || failed != nil && !skips {
					t.Errorf("the test is wrong: %s: connect() says %v", what, failed)
				}
				if ports.Has(w.port) != w.bound {
					t.Errorf("%s: bound is %v, want %v", what, !w.bound, w.bound)
				}
			}
			if ports.Has(0) || !ports.Has(80) || ports.Len() != 5 {
				t.Errorf("%d ports are bound, want port 80 and four others", ports.Len())
			}
		})
	}
}
