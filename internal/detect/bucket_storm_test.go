package detect

import (
	"strings"
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

func toTimeWait(t *tcp.Transition) { t.Substate, t.PeerTimestamp = tcp.TimeWait, true }

// The alert names the server that leaves the TIME_WAITs, not a client with more connections
// that are open.
func TestBucketStorm_NamesMostTimeWaits(t *testing.T) {
	h := newHost(t, 5000, Config{})
	h.uncounted = true
	h.limits.MaxTimeWaits = 400
	for range 3000 {
		h.connect(to(81), curl)
	}
	for range 60 * 12 {
		h.event(0, to(80), process(7, "nginx"), tcp.FinWait2, tcp.TimeWait, served, toTimeWait)
		h.pass(time.Second / 12)
	}
	a := h.theOnly("time_wait_storm")
	if a.CapacityKind != TimeWaitBuckets || a.Role != tcp.RoleServer || a.Local.Port != 80 || a.Culprit.PID != 7 {
		t.Errorf("%s, %s %v, process %d: want the server on port 80", a.CapacityKind, a.Role, a.Local, a.Culprit.PID)
	}
}

// closeFully is a server that closes first. The kernel keeps a TIME_WAIT of it, or none if there are MaxTimeWaits.
func (h *host) closeFully() (kept bool) {
	nginx := process(7, "nginx")
	if len(h.waiting(to(80))) >= h.limits.MaxTimeWaits {
		h.limits.TimeWaitOverflows++
		h.event(0, to(80), nginx, tcp.FinWait2, tcp.Close, served)
		return false
	}
	h.ends[to(80)] = append(h.ends[to(80)], timewait{created: h.now, finAt: h.now, end: h.now + 61*time.Second})
	h.event(0, to(80), nginx, tcp.FinWait2, tcp.TimeWait, served, toTimeWait)
	return true
}

// While the kernel keeps no more TIME_WAITs, the rate is that of all closes that would leave one, and the alert counts
// those that have left none since it opened.
func TestBucketStorm_FullTable(t *testing.T) {
	const perSecond = 100
	h := newHost(t, 5000, Config{UpdateInterval: 2 * time.Second})
	h.limits.MaxTimeWaits, h.limits.TimeWaitOverflows = 400, 7000 // from before
	var without, atUpdate, updates uint64
	h.inspect = func(a Alert) {
		if a.Rate < 0.9*perSecond || a.Rate > 1.1*perSecond {
			t.Errorf("after %v, %s: %.1f a second, want %d", a.Monotonic-time.Hour, a.Phase, a.Rate, perSecond)
		}
		if a.Overflows > without || without-a.Overflows > 1.5*perSecond {
			t.Errorf("after %v, %s: %d closed without a TIME_WAIT, want %d", a.Monotonic-time.Hour, a.Phase, a.Overflows, without)
		}
		if a.Phase != Update {
			return
		}
		if updates++; updates > 3 && h.now < time.Hour+time.Minute && a.Overflows <= atUpdate {
			t.Errorf("after %v: %d closed without a TIME_WAIT, before %d", a.Monotonic-time.Hour, a.Overflows, atUpdate)
		}
		if atUpdate = a.Overflows; atUpdate > 0 && !strings.Contains(a.Cause, "connections have closed without one") {
			t.Errorf("the cause is %q", a.Cause)
		}
	}
	for range 100 * perSecond {
		if !h.closeFully() {
			without++
		}
		h.pass(time.Second / perSecond)
	}
	h.theOnly(timeWaitStorm)
	if updates < 40 || without < 8000 {
		t.Errorf("%d updates, %d closed without a TIME_WAIT", updates, without)
	}
}

// A kernel whose counter cannot be read shows no closes without a TIME_WAIT, and one that counts fewer than before is
// another namespace with the same number.
func TestOverflows_Readings(t *testing.T) {
	var o overflows
	for second, count := range []int64{-1, -1} {
		o.add(time.Duration(second)*time.Second, count)
	}
	o.raised(2*time.Second, opens)
	for second, count := range []int64{50, 70, -1, 90, 10, 15} {
		o.add(time.Duration(3+second)*time.Second, count)
		if want := []uint64{0, 20, 20, 40, 0, 5}[second]; o.sinceOpened() != want {
			t.Errorf("after %d readings: %d since the alert opened, want %d", second+1, o.sinceOpened(), want)
		}
	}
	o.raised(9*time.Second, keeps)
	if o.raised(30*time.Second, keeps); o.sinceOpened() != 5 {
		t.Errorf("a claim that opens nothing: %d, want 5", o.sinceOpened())
	}
	if o.raised(30*time.Second, opens|verified); o.sinceOpened() != 0 {
		t.Errorf("another alert: %d since it opened, want 0", o.sinceOpened())
	}
}
