package detect

import (
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/internal/detect/topk"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// A count that comes verifies the numbers again when a namespace could not be read for a while, also if its entry was
// evicted meanwhile.
func TestUnreadable_VerifiedAgain(t *testing.T) {
	for _, evicted := range []bool{false, true} {
		h := newHost(t, 3000, Config{})
		h.limits.Reuse = 0
		key := destination{netns: testNetns, local: here, peer: there, peerPort: 80}
		w := load{key: key, by: []tcp.Owner{{PID: 7}}, rate: constant(60)}
		h.run(w, 36*time.Second, false)
		if a, isOpen := h.openFor[key]; !isOpen || a.Unverified {
			t.Fatalf("open: %v, unverified: %v", isOpen, a.Unverified)
		}
		h.missing = true
		h.run(w, 10*time.Second, false)
		if a, isOpen := h.openFor[key]; !isOpen || !a.Unverified {
			t.Errorf("while it cannot be read: open: %v, unverified: %v", isOpen, a.Unverified)
		}
		if evicted {
			h.engine.tracker.namespaces.Sweep(func(e *topk.Entry[uint32, namespace]) bool { return e.Key != testNetns })
		}
		h.missing = false
		h.run(w, 3*time.Second, false)
		if a, isOpen := h.openFor[key]; !isOpen || a.Unverified {
			t.Errorf("evicted %v: afterwards: open: %v, unverified: %v", evicted, isOpen, a.Unverified)
		}
	}
}

// A recording may have any number as a timeout.
func TestFinWait2Timeout_AnyNumber(t *testing.T) {
	for _, timeout := range []time.Duration{-1 << 63, -1 << 62, -time.Second, 1, 1<<63 - 1} {
		e := New(Config{}, time.Hour)
		e.SeedingDone(time.Hour)
		e.Observe(&tcp.Transition{
			Monotonic: time.Hour, Old: tcp.FinWait2, New: tcp.TimeWait, Substate: tcp.FinWait2, FinWait2Timeout: timeout, Role: tcp.RoleClient,
			Local: tcp.Endpoint{Addr: here, Port: 40000}, Peer: tcp.Endpoint{Addr: there, Port: 80}, Netns: testNetns,
		})
		done := make(chan struct{})
		go func() {
			for i := range 20 {
				e.Tick(time.Hour + time.Duration(i)*time.Second)
			}
			close(done)
		}()
		select {
		case <-done:
		case <-time.After(10 * time.Second):
			t.Fatalf("%d: hangs", timeout)
		}
	}
}
