package detect

import (
	"net/netip"
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// The limits of the namespace with the most transitions are requested first. Transitions count
// until the next request.
func TestRequests_BusiestFirst(t *testing.T) {
	now := time.Hour
	e := New(Config{}, now)
	connect := func(netns uint32, times int) {
		for range times {
			e.Observe(&tcp.Transition{
				Monotonic: now, Netns: netns, Role: tcp.RoleClient, Old: tcp.Close, New: tcp.SynSent,
				Local: tcp.Endpoint{Addr: netip.MustParseAddr("192.0.2.1"), Port: 40000},
				Peer:  tcp.Endpoint{Addr: netip.MustParseAddr("192.0.2.2"), Port: 80},
			})
		}
	}
	check := func(want ...uint32) {
		t.Helper()
		now += time.Millisecond
		requests := e.Requests(now)
		if len(requests) != len(want) {
			t.Fatalf("the requests are %v, want those of %v", requests, want)
		}
		for i, r := range requests {
			if r.Netns != want[i] {
				t.Errorf("request %d is for %d, want %d", i, r.Netns, want[i])
			}
		}
	}
	connect(1, 5)
	connect(2, 1)
	connect(3, 9)
	connect(4, 1)
	check(3, 1, 2, 4)
	now += activeInterval
	connect(1, 2)
	connect(2, 3)
	connect(3, 1)
	check(2, 1, 3)
}
