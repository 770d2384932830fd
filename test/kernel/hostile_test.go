package kernel_test

import (
	"os"
	"testing"

	"github.com/tcpshift/tcpshift/internal/probe"
	"github.com/tcpshift/tcpshift/test/kernel/harness"
	"github.com/tcpshift/tcpshift/test/kernelmatrix/expect"
	"github.com/tcpshift/tcpshift/test/tcplab"
)

// Who leaves the kernel no room for the state of his sockets, in a network namespace of his own,
// hides their owner. Every transition is still recorded, and those without a state are counted.
func TestHostile_NoRoomForState(t *testing.T) {
	tcplab.RequireRoot(t)
	harness.RequireFeature(t, probe.SocketStorage)
	n := tcplab.NewNetns(t)
	const sysctl = "net.core.optmem_max"
	var err error
	n.Do(func() { _, err = os.Stat("/proc/sys/net/core/optmem_max") })
	if err != nil { // the whole host has one: no user can set it
		harness.SkipUnlessRequired(t, expect.OwnOptmem, err)
	}
	talk := func() {
		listener := n.Listen(tcplab.V4.At(7001))
		client := n.Dial(tcplab.V4.At(7001))
		child := listener.Accept()
		client.Close()
		child.ReadEOF()
		child.Close()
		listener.Close()
	}
	count := func() (transitions int, unavailable uint64) {
		tr := harness.StartTracer(t, harness.InNamespace(n))
		talk()
		lines := tr.Stop()
		return len(harness.OfType(lines, "transition")), lines[len(lines)-1].StateUnavailable
	}
	all, none := count()
	if all == 0 || none != 0 {
		t.Fatalf("with the usual room, %d transitions, %d without a state; want none", all, none)
	}
	n.Sysctl(sysctl, "0")
	transitions, without := count()
	if transitions != all {
		t.Errorf("%d transitions without room for states, %d with it", transitions, all)
	}
	const fewest = 2 + 5 // those of the listener and of the child; the client may have a slot of the table
	if without < fewest || without > uint64(all) {
		t.Errorf("%d transitions without a state, want from %d to %d", without, fewest, all)
	}
}
