package kernel_test

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/tcpshift/tcpshift/test/kernel/harness"
	"github.com/tcpshift/tcpshift/test/tcplab"
)

func TestSequence_AllScenarios(t *testing.T) {
	stories, told := harness.RunScenarios(t)
	for _, s := range stories {
		t.Run(fmt.Sprintf("%s %v", s.Name, s.Family), func(t *testing.T) {
			for _, lines := range told {
				harness.CheckSequence(t, s, harness.OfType(s.Of(lines), "transition"))
			}
		})
	}
}

// The zone of a link-local address is a device of its namespace, and is not told.
func TestSequence_LinkLocalAddress(t *testing.T) {
	const bare, loopback = "fe80::1", "%1"
	told := harness.OfType(harness.RecordsOf(t, func(n *tcplab.Netns) {
		n.AddAddr(netip.MustParseAddr(bare))
		at := netip.AddrPortFrom(netip.MustParseAddr(bare+loopback), 7100)
		listener := n.Listen(at)
		client := n.Dial(at)
		child := listener.Accept()
		client.Close()
		child.ReadEOF()
		child.Close()
		listener.Close()
	}), "transition")
	for _, l := range told {
		if l.LocalAddr != bare && l.Old != "CLOSE" || l.PeerAddr != bare && l.Role != "listener" && l.Old != "LISTEN" {
			t.Errorf("%s on both sides is wanted: %s", bare, l.Raw)
		}
	}
	if len(told) != 12 {
		t.Errorf("%d transitions, want 12", len(told))
	}
}
