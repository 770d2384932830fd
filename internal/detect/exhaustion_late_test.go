package detect

import (
	"testing"
	"time"
)

// Connects that fail while the timers of a burst's TIME_WAITs expire belong to the storm: these timers are up to two
// seconds late. There is no port_exhaustion, and the storm is not refuted.
func TestExhaustion_WhileTimersExpire(t *testing.T) {
	for at := 58 * time.Second; at <= 61500*time.Millisecond; at += 500 * time.Millisecond {
		h := newHost(t, 500, Config{})
		h.limits.Reuse = 0
		began := h.now
		h.burst(490)
		h.pass(began + at - h.now)
		if failed := h.attempts(to(80), 20); failed == 0 {
			t.Fatalf("after %v: no connect() has failed", at)
		}
		h.pass(30 * time.Second)
		h.onlyStorms(1)
	}
}

// The same for bursts that come once a minute, about when the TIME_WAITs of the one before expire.
func TestExhaustion_BurstEachMinute(t *testing.T) {
	for _, size := range []int{300, 490} {
		for _, every := range []time.Duration{60 * time.Second, 61 * time.Second} {
			h := newHost(t, 500, Config{})
			h.limits.Reuse = 0
			for range 4 {
				next := h.now + every
				h.burst(size)
				h.pass(next - h.now)
			}
			h.pass(time.Minute)
			h.onlyStorms(2)
		}
	}
}

// burst connects and closes so many times within a second.
func (h *host) burst(size int) {
	for range size / 5 {
		for range 5 {
			if h.connect(to(80), curl) {
				h.close(to(80), curl, true)
			}
		}
		h.pass(10 * time.Millisecond)
	}
}

// onlyStorms checks that all alerts are storms, at least so many, and close as resolved.
func (h *host) onlyStorms(atLeast int) {
	h.t.Helper()
	if opened := only(h.alerts, timeWaitStorm, Open); len(opened) < atLeast {
		h.t.Errorf("%d storms open, want at least %d", len(opened), atLeast)
	}
	for _, a := range h.alerts {
		if a.Kind != timeWaitStorm || a.Phase == Close && a.Reason != Resolved {
			h.t.Errorf("%s %s %s after %v: %s", a.Kind, a.Phase, a.Reason, a.Monotonic-time.Hour, a.Cause)
		}
	}
}
