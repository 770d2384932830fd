package detect

import (
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// Where the limits are read and the list of bound ports is not renewed, its growth and its ports raise no alert for
// ever. Once a new list shows that all ports are bound there is an alert again.
func TestBindExhaustion_OldList(t *testing.T) {
	for _, c := range []struct {
		ports  uint16
		within time.Duration
	}{{290, 50 * time.Second}, {301, 80 * time.Second}} { // the growth counts for 30 s, all ports bound for 60 s
		h := newHost(t, 300, Config{})
		h.bindOnly(c.ports)
		h.theOnly("port_exhaustion")
		last := h.limits.BoundReadAt
		h.pass(40 * time.Minute)
		closed := only(h.alerts, "port_exhaustion", Close)
		if len(closed) != 1 || closed[0].Monotonic-last > c.within || closed[0].Monotonic-last < 35*time.Second {
			t.Fatalf("%d ports bound: %v", c.ports, h.phases())
		}
		if all := c.ports > 300; all {
			h.limits.BoundReadAt = h.now
			h.pass(2 * time.Second)
			if opened := only(h.alerts, "port_exhaustion", Open); len(opened) != 2 {
				t.Errorf("a new list: %v", h.phases())
			}
		}
	}
}

// Where the lists come once in 70 s, because each reading costs much, the alert stays open from one to the next.
func TestBindExhaustion_RareLists(t *testing.T) {
	h := newHost(t, 2000, Config{})
	h.limits.Bound, h.limits.BindBuckets = &tcp.PortSet{}, &tcp.PortSet{}
	for n := range uint16(1950) {
		if n%350 == 0 { // every 70 s
			bound := &tcp.PortSet{}
			for port := range n {
				bound.Add(20000 + port)
			}
			h.limits.Bound, h.limits.BoundReadAt = bound, h.now
		}
		if n%50 == 0 {
			h.emit(to(80), 0, curl, tcp.Close, tcp.SynSent)
			h.emit(to(80), 21999, curl, tcp.CloseWait, tcp.LastAck)
		}
		if n == 1900 {
			break
		}
		h.pass(200 * time.Millisecond)
	}
	h.theOnly("port_exhaustion")
	if closed := only(h.alerts, "port_exhaustion", Close); len(closed) > 0 {
		t.Errorf("%v", h.phases())
	}
}
