package kernel_test

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/internal/probe"
	"github.com/tcpshift/tcpshift/test/kernel/harness"
	"github.com/tcpshift/tcpshift/test/tcplab"
)

// The state of client sockets is in a table whose slots follow from the socket's
// address (bpf/client_table.h). Some of 1000 clients share a slot; the state of the second
// one is then in its socket storage. No client may lose its state or get another one's.
func TestClientTable_ManyClients(t *testing.T) {
	harness.RequireFeature(t, probe.SocketStorage)
	const clients = 1000
	lines := harness.RecordsByCookie(t, func(n *tcplab.Netns) {
		listener := n.Listen(tcplab.V4.At(7001))
		var open []*tcplab.Socket
		for range clients {
			open = append(open, n.Dial(tcplab.V4.At(7001)), listener.Accept())
		}
		for i := 0; i < len(open); i += 2 {
			open[i].Close()
			open[i+1].ReadEOF()
			open[i+1].Close()
		}
		listener.Close()
	})
	states := map[string]string{} // last new_state of each client
	for _, l := range harness.OfType(lines, "transition") {
		if l.PeerPort != 7001 {
			continue
		}
		if l.Role != "client" || l.PID == nil || *l.PID != uint32(os.Getpid()) {
			t.Fatalf("want role client and pid %d: %s", os.Getpid(), l.Raw)
		}
		if before, known := states[l.Conn]; known && (l.Old != before || l.InState == nil) {
			t.Fatalf("its state was lost after %s: %s", before, l.Raw)
		}
		states[l.Conn] = l.New
	}
	if len(states) != clients {
		t.Errorf("%d clients have transitions, want %d", len(states), clients)
	}
}

// A socket whose connect() failed has a slot in the client table. When it becomes a
// listener, its children must inherit its state.
func TestClientTable_ClientBecomesListener(t *testing.T) {
	harness.RequireFeature(t, probe.SocketStorage)
	lines := harness.RecordsByCookie(t, func(n *tcplab.Netns) {
		s := n.Socket(tcplab.V4.Loopback())
		if err := s.TryConnect(tcplab.V4.At(7001)); !errors.Is(err, unix.ECONNREFUSED) {
			t.Fatal(err)
		}
		s.Bind(tcplab.V4.At(7002))
		if err := unix.Listen(s.FD, 8); err != nil {
			t.Fatal(err)
		}
		client := n.Dial(tcplab.V4.At(7002))
		child := s.Accept()
		client.Close()
		child.ReadEOF()
		child.Close()
		s.Close()
	})
	seen := 0
	for _, l := range harness.OfType(lines, "transition") {
		if l.LocalPort != 7002 || l.PeerPort == 0 {
			continue
		}
		seen++
		if l.Role != "server" || l.PID == nil || *l.PID != uint32(os.Getpid()) {
			t.Errorf("want role server and pid %d: %s", os.Getpid(), l.Raw)
		}
	}
	if seen != 5 {
		t.Errorf("%d transitions of the child, want 5", seen)
	}
}
