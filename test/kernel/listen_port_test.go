package kernel_test

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/internal/filter"
	"github.com/tcpshift/tcpshift/internal/probe"
	"github.com/tcpshift/tcpshift/test/kernel/harness"
	"github.com/tcpshift/tcpshift/test/tcplab"
)

// A listener that was not bound has its port although its first child was created before
// the event of its listen() was read.
func TestListenPort_ChildBeforeRead(t *testing.T) {
	harness.RequireFeature(t, probe.SocketCookie)
	n := tcplab.NewNetns(t)
	p := openProbe(t, filter.Filter{Netns: []uint32{n.Inode()}})
	listener := n.Socket(tcplab.V4.Loopback())
	if err := unix.Listen(listener.FD, 1); err != nil {
		t.Fatal(err)
	}
	port := listener.Addr().Port()
	n.Dial(tcplab.V4.At(port))
	listener.Accept()
	if got := p.ListenPort(listener.Cookie()); got != port {
		t.Errorf("port %d, want %d", got, port)
	}
}
