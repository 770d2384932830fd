package detect

import (
	"net/netip"
	"strings"
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

// A namespace that a detector asks for takes no entry that an alert of the same tick refers to.
func TestRequests_FullTable(t *testing.T) {
	h := newHost(t, 500, Config{MaxDestinations: 4, UpdateInterval: time.Millisecond}) // room for one namespace
	h.run(load{key: to(80), by: []tcp.Owner{curl}, rate: constant(30)}, 13*time.Second, false)
	for n := range uint64(40) {
		h.event(n+1, destination{netns: testNetns + 1, local: here, peer: there, peerPort: 80}, curl, tcp.Established, tcp.CloseWait)
	}
	h.run(load{key: to(80), by: []tcp.Owner{curl}, rate: constant(30)}, 40*time.Second, false)
	count := 0
	for _, a := range h.alerts {
		if a.Kind != "time_wait_storm" || a.Phase == Close {
			continue
		}
		count++
		if !strings.Contains(a.Advice, "now 20000 to 20499") {
			t.Fatalf("%s after %v: %s", a.Phase, a.Monotonic-time.Hour, a.Advice)
		}
	}
	if count < 100 {
		t.Errorf("%d alerts: this proves nothing", count)
	}
}
