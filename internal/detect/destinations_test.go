package detect

import (
	"net/netip"
	"testing"
	"time"
)

// Destinations come with the ports that they use, the largest share first, and with the time that is left if they use more
// and more.
func TestDestinations_LargestShareFirst(t *testing.T) {
	h := newHost(t, 500, Config{})
	growing := destination{local: netip.MustParseAddr("192.0.2.1"), peer: netip.MustParseAddr("192.0.2.2"), netns: testNetns, peerPort: 80}
	steady := growing
	steady.peerPort = 81
	h.limits.Reuse = 0
	for range 30 {
		h.connect(steady, curl)
	}
	for range 10 {
		h.pass(time.Second)
		for range 20 {
			h.connect(growing, curl)
			h.close(growing, curl, true)
		}
	}
	got := h.engine.Destinations(h.now, 10)
	if len(got) != 2 {
		t.Fatalf("the destinations are %+v", got)
	}
	first, second := got[0], got[1]
	if first.Peer != growing.peer || first.PeerPort != 80 || first.Local != growing.local || first.Netns != testNetns || first.Assumed ||
		first.PortsUsed < 195 || first.PortsUsed > 205 || first.Ports != 500 || first.Rate < 15 || first.Rate > 25 {
		t.Errorf("the first is %+v, want 200 of 500 ports at 20 connections a second", first)
	}
	if left := first.ExhaustedIn; !first.Exhausts || left < 11*time.Second || left > 18*time.Second {
		t.Errorf("500 ports last for %v more, want about 15s", left)
	}
	if second.PeerPort != 81 || second.PortsUsed != 30 || second.Exhausts {
		t.Errorf("the second is %+v, want 30 ports that last", second)
	}
	if limited := h.engine.Destinations(h.now, 1); len(limited) != 1 || limited[0] != first {
		t.Errorf("the first one alone is %+v", limited)
	}
}
