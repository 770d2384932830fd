package detection_test

import (
	"fmt"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/test/tcplab"
)

// dialAndClose makes a connection that the client closes first.
func dialAndClose(n *tcplab.Netns, listener *tcplab.Socket, at netip.AddrPort) {
	c := n.Dial(at)
	s := listener.Accept()
	c.Close()
	s.ReadEOF()
	s.Close()
}

// loseEnds opens connections to port 80, and closes them at the server while the tracer is
// stopped and its ring buffer, of 64 KiB, is full. So it loses their ends.
func loseEnds(t *testing.T, tr *tracer, n *tcplab.Netns, listener *tcplab.Socket, count int) {
	t.Helper()
	at := tcplab.V4.At
	var clients, servers []*tcplab.Socket
	for range count {
		clients = append(clients, n.Dial(at(80)))
		servers = append(servers, listener.Accept())
	}
	time.Sleep(2 * time.Second) // until the tracer has read that
	if err := tr.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	for range 1500 { // fill the ring buffer
		s := n.Socket(at(0).Addr())
		_ = s.TryConnect(at(1))
		s.Close()
	}
	for i, s := range servers {
		s.Close()
		clients[i].ReadEOF()
		clients[i].Close()
	}
	if err := tr.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
}

// Connections that end while the tracer loses everything do not stay in its model: they would
// make a load that fits for ever look like a storm.
func TestAlert_LostEnds(t *testing.T) {
	tcplab.RequireRoot(t)
	t.Parallel()
	n := tcplab.NewNetns(t)
	n.Sysctl("net.ipv4.ip_local_port_range", "40000 40499")
	n.Sysctl("net.ipv4.tcp_tw_reuse", "0")
	tr := startTracer(t, "alerts", "--netns", fmt.Sprint(n.Inode()), "--buffer-size", "64KiB")
	at := tcplab.V4.At
	listener := n.Listen(at(80))
	loseEnds(t, tr, n, listener, 240)
	for range 225 { // 45 s
		dialAndClose(n, listener, at(80))
		time.Sleep(200 * time.Millisecond)
	}
	if opened := pick(tr.of(n.Inode()), "time_wait_storm", "open"); len(opened) > 0 {
		t.Errorf("of the 500 ports 300 will be in use: %+v", opened)
	}
	listener.Close()
}
