package detect

import (
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/internal/detect/rate"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// updatesAfterLoss runs each second until the alert of h has been updated for two minutes after a loss, and returns how
// long after the loss the first and the last update that reported it came.
func updatesAfterLoss(t *testing.T, h *host, kind string, each func(second int)) (first, last time.Duration) {
	t.Helper()
	h.theOnly(kind)
	lostAt := h.now
	h.engine.AddLost(h.now, 17)
	before := len(h.alerts)
	for second := range 120 {
		each(second)
		h.pass(time.Second)
	}
	updates := only(h.alerts[before:], kind, Update)
	if len(updates) < 50 || updates[len(updates)-1].Monotonic < lostAt+110*time.Second {
		t.Fatalf("%d updates", len(updates))
	}
	for _, a := range updates {
		if since := a.Monotonic - lostAt; a.Lost > 0 && !a.Unverified {
			if last = since; first == 0 {
				first = since
			}
		}
	}
	return first, last
}

// After a loss a leak reports it until a newer table of the kernel has confirmed the sockets: one, if it has no socket
// that is not known, else two; and within the minute if some sockets stay unknown, because their beginnings were lost.
func TestCloseWaitLeak_LostUntilRead(t *testing.T) {
	for name, c := range map[string]struct {
		unknown     func(h *host, second int)
		least, most time.Duration
	}{
		"all known": {func(*host, int) {}, 0, activeInterval + 2*time.Second},
		"some come and go": {func(h *host, second int) {
			delete(h.closeWait, uint64(1e6+second-1))
			h.closeWait[uint64(1e6+second)] = tcp.CloseWaitSocket{Cookie: uint64(1e6 + second), Accepted: true}
		}, activeInterval, 2*activeInterval + 3*time.Second},
		"some are not known": {func(h *host, _ int) {
			h.closeWait[1e6] = tcp.CloseWaitSocket{Cookie: 1e6, Accepted: true, SinceSent: time.Hour}
		}, rate.TimeWaitHold - 2*time.Second, rate.TimeWaitHold + time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, 500, Config{UpdateInterval: time.Second})
			leak := func(n int) { h.event(uint64(n+1), to(80), process(99, "java"), tcp.Established, tcp.CloseWait) }
			for n := range 100 {
				leak(n)
				h.pass(time.Second)
			}
			first, last := updatesAfterLoss(t, h, "close_wait_leak", func(second int) {
				leak(100 + second)
				c.unknown(h, second)
			})
			if first == 0 || first > 2*time.Second || last < c.least || last > c.most {
				t.Errorf("the loss was reported from %v to %v, want until %v to %v", first, last, c.least, c.most)
			}
		})
	}
}

// A pile of sockets in FIN_WAIT2 is counted in the kernel's tables alone: the first one that is read after a loss is complete.
func TestFinWait2Pileup_LostUntilRead(t *testing.T) {
	h := newHost(t, 28232, Config{HalfClosed: 100, UpdateInterval: time.Second})
	shut := func(n int) { h.shutDown(uint64(n+1), process(80, "server")) }
	for n := range 200 {
		shut(n)
		h.pass(time.Second)
	}
	first, last := updatesAfterLoss(t, h, "fin_wait2_pileup", func(second int) { shut(200 + second) })
	if first == 0 || first > 2*time.Second || last > activeInterval+2*time.Second {
		t.Errorf("the loss was reported from %v to %v", first, last)
	}
}

// The kernel counts all TIME_WAITs of a namespace: nothing is missing from its number after a loss, nor from the rate
// once that does not cover the time of the loss any more.
func TestBucketStorm_LostUntilCounted(t *testing.T) {
	h := newHost(t, 5000, Config{UpdateInterval: time.Second})
	h.limits.MaxTimeWaits = 400
	second := func(int) {
		for range 20 {
			h.closeFully()
		}
	}
	for n := range 30 {
		second(n)
		h.pass(time.Second)
	}
	first, last := updatesAfterLoss(t, h, timeWaitStorm, second)
	if first == 0 || first > 2*time.Second || last < rate.MaxWindow-2*time.Second || last > rate.MaxWindow+2*time.Second {
		t.Errorf("the loss was reported from %v to %v", first, last)
	}
}
