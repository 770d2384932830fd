package detect

import (
	"net/netip"
	"testing"
	"time"
)

// The usage of a namespace is that of its fullest destination, and the kernel's count of TIME_WAITs. It is not known
// before the limits were read.
func TestUsage_FullestDestination(t *testing.T) {
	h := newHost(t, 500, Config{})
	key := destination{local: netip.MustParseAddr("192.0.2.1"), peer: netip.MustParseAddr("192.0.2.2"), netns: testNetns, peerPort: 80}
	emptier := key
	emptier.peerPort = 81
	h.limits.Reuse = 0
	if got := h.engine.Usage(h.now); len(got) != 0 {
		t.Errorf("before anything happened the usage is %+v", got)
	}
	for range 100 {
		h.connect(key, curl)
		h.close(key, curl, true)
	}
	for range 50 {
		h.connect(key, curl)
	}
	h.connect(emptier, curl)
	h.pass(12 * time.Second)
	got := h.engine.Usage(h.now)
	if len(got) != 1 {
		t.Fatalf("the usage is %+v, want that of one namespace", got)
	}
	u := got[0]
	if u.Netns != testNetns || u.Ports != 500 || u.PortsUsed < 145 || u.PortsUsed > 155 || u.MaxTimeWaits != 1<<17 || u.TimeWaits != 100 {
		t.Errorf("the usage is %+v, want 150 of 500 ports and 100 TIME_WAITs", u)
	}
	if share := u.PortsShare(); share < 0.29 || share > 0.31 || u.Share() != share {
		t.Errorf("the share is %v and %v, want 0.3", share, u.Share())
	}
}
