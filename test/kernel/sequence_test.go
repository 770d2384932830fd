package kernel_test

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/tcpshift/tcpshift/test/kernel/harness"
	"github.com/tcpshift/tcpshift/test/tcplab"
)

// Every socket of every scenario has all its transitions, from the first to the last,
// in order.
func TestSequence_AllScenarios(t *testing.T) {
	runs, records := harness.RunScenarios(t)
	for _, s := range runs {
		t.Run(fmt.Sprintf("%s %v", s.Name, s.Family), func(t *testing.T) {
			for _, lines := range records {
				harness.CheckSequence(t, s, harness.OfType(s.Of(lines), "transition"))
			}
		})
	}
}

// A link-local address has no zone in records: the zone is a device of its namespace.
func TestSequence_LinkLocalAddress(t *testing.T) {
	const bare, loopback = "fe80::1", "%1"
	records := harness.OfType(harness.RecordsOf(t, func(n *tcplab.Netns) {
		n.AddLoopbackAddr(netip.MustParseAddr(bare))
		at := netip.AddrPortFrom(netip.MustParseAddr(bare+loopback), 7100)
		listener := n.Listen(at)
		client := n.Dial(at)
		child := listener.Accept()
		client.Close()
		child.ReadEOF()
		child.Close()
		listener.Close()
	}), "transition")
	for _, l := range records {
		if l.LocalAddr != bare && l.Old != "CLOSE" || l.PeerAddr != bare && l.Role != "listener" && l.Old != "LISTEN" {
			t.Errorf("want %s on both sides: %s", bare, l.Raw)
		}
	}
	if len(records) != 12 {
		t.Errorf("%d transitions, want 12", len(records))
	}
}
