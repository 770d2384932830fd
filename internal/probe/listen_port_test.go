package probe

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/internal/filter"
	"github.com/tcpshift/tcpshift/test/tcplab"
)

// The reader waits 100 ms at once, and 5 % of the time in the long run.
func TestListenPort_WaitsAreBounded(t *testing.T) {
	const wait = time.Millisecond
	var b waitBudget
	waits := func(now time.Time) (n int) {
		for b.take(now, wait) {
			n++
		}
		return n
	}
	now := time.Now()
	for _, step := range []struct {
		later time.Duration
		want  int
	}{{0, 100}, {0, 0}, {10 * time.Millisecond, 0}, {10 * time.Millisecond, 1}, {time.Second, 50}, {time.Hour, 100}} {
		now = now.Add(step.later)
		if got := waits(now); got != step.want {
			t.Errorf("%v later: %d waits of %v, want %d", step.later, got, wait, step.want)
		}
	}
}

// A listener that was not bound has its port although its first child was created before
// the event of its listen() was read.
func TestListenPort_ChildBeforeRead(t *testing.T) {
	tcplab.RequireRoot(t)
	n := tcplab.NewNetns(t)
	p := openWith(t, filter.Filter{Netns: []uint32{n.Inode()}}, false)
	if !p.features.has(SocketCookie) {
		t.Skip("this kernel has no socket cookies: the port is not known")
	}
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
