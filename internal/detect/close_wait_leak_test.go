package detect

import (
	"strings"
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// Sockets that no process closes are a leak, and the alert closes when they are closed.
func TestCloseWaitLeak_Grows(t *testing.T) {
	java := process(99, "java")
	h := newHost(t, 500, Config{})
	for n := range 100 {
		h.event(uint64(n+1), to(80), java, tcp.Established, tcp.CloseWait)
		h.pass(time.Second)
	}
	a := h.theOnly("close_wait_leak")
	if a.Culprit.PID != 99 || a.Peer.Port != 80 || a.Occupancy < 32 || a.Occupancy > 40 {
		t.Errorf("%+v", a)
	}
	for n := range 100 {
		h.event(uint64(n+1), to(80), java, tcp.CloseWait, tcp.LastAck)
	}
	h.pass(time.Minute)
	if len(only(h.alerts, "close_wait_leak", Close)) != 1 {
		t.Errorf("all sockets are closed, and the alert is not")
	}
}

// Many sockets that are closed before 30 s, and a constant number of older ones, are no
// leak.
func TestCloseWaitLeak_ClosedInTime(t *testing.T) {
	h := newHost(t, 500, Config{})
	for n := range uint64(20_000) {
		h.event(n+1, to(80), process(99, "java"), tcp.Established, tcp.CloseWait, served)
		if n >= 500 { // after 25 s
			h.event(n+1-500, to(80), process(99, "java"), tcp.CloseWait, tcp.LastAck, served)
		}
		h.pass(50 * time.Millisecond)
	}
	for n := uint64(19_500); n < 20_000; n++ {
		h.event(n+1, to(80), process(99, "java"), tcp.CloseWait, tcp.LastAck, served)
	}
	for range 40 { // some stay for long, and are as many at each time
		h.cookie++
		h.event(1e6+h.cookie, to(80), process(98, "tail"), tcp.Established, tcp.CloseWait, served)
		if h.cookie > 20 {
			h.event(1e6+h.cookie-20, to(80), process(98, "tail"), tcp.CloseWait, tcp.LastAck, served)
		}
		h.pass(4 * time.Second)
	}
	h.mustBeSilent()
}

// The rate is that of now at each moment, from the first alert on.
func TestCloseWaitLeak_RateOfNow(t *testing.T) {
	h := newHost(t, 500, Config{})
	for n := range uint64(20 * 70) {
		h.event(n+1, to(80), process(99, "java"), tcp.Established, tcp.CloseWait)
		h.pass(50 * time.Millisecond)
	}
	for _, a := range h.alerts {
		if a.Rate < 15 || a.Rate > 25 || !strings.Contains(a.Cause, "their number grows") {
			t.Errorf("%s after %v: %.1f a second, want 20: %s", a.Phase, a.Lasted, a.Rate, a.Cause)
		}
	}
	h.pass(5 * time.Minute)
	last := h.alerts[len(h.alerts)-1]
	if last.Phase != Update || last.Rate > 0.1 || last.Occupancy != 20*70 || !strings.Contains(last.Cause, "stopped growing") {
		t.Errorf("no more come, and %+v", last)
	}
}

// A host that stalls for a moment, or closes in batches, leaks as fast as before: at every moment the
// rate is that of the last seconds, also at the first alert.
func TestCloseWaitLeak_RateInBursts(t *testing.T) {
	for name, c := range map[string]struct {
		bursts      int // sockets that come at once
		every       time.Duration
		stallsAfter int // bursts
		stall       time.Duration
		from        time.Duration // before it, one batch shows no rate
	}{
		"stalls at the first alert": {1, time.Second / 30, 33, 1500 * time.Millisecond, 0},
		"stalls for two seconds":    {1, time.Second / 30, 200, 2 * time.Second, 0},
		"batches":                   {60, 6 * time.Second, 1 << 20, 0, 12 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, 500, Config{UpdateInterval: time.Millisecond})
			began, n := h.now, 0
			perSecond := float64(c.bursts) / c.every.Seconds()
			for burst := 1; h.now-began < 70*time.Second; burst++ {
				for range c.bursts {
					n++
					h.event(uint64(n), to(80), process(99, "java"), tcp.Established, tcp.CloseWait)
				}
				if h.pass(c.every); burst%c.stallsAfter == 0 {
					h.pass(c.stall)
				}
			}
			for _, a := range h.alerts {
				if a.Lasted < c.from {
					continue
				}
				if a.Rate < perSecond/4 || a.Rate > 4*perSecond {
					t.Fatalf("%s after %v: %.1f a second, want %.1f", a.Phase, a.Lasted, a.Rate, perSecond)
				}
			}
			h.theOnly("close_wait_leak")
		})
	}
}

// One socket in an hour is a leak, too.
func TestCloseWaitLeak_OneAnHour(t *testing.T) {
	h := newHost(t, 500, Config{UpdateInterval: time.Hour})
	for n := range uint64(40) {
		h.event(n+1, to(80), process(99, "java"), tcp.Established, tcp.CloseWait)
		for range 60 { // a tick a minute
			h.now += time.Minute
			h.ticked = h.now
			h.pass(40 * time.Millisecond)
		}
	}
	a := h.theOnly("close_wait_leak")
	if perHour := a.Rate * 3600; a.Occupancy != 32 || perHour < 0.8 || perHour > 1.2 {
		t.Errorf("%d sockets, %.2f an hour", a.Occupancy, perHour)
	}
}

// A process that still sends, or whose peer does not read, has not forgotten its sockets,
// however long the peers have shut down.
func TestCloseWaitLeak_StillSending(t *testing.T) {
	for name, send := range map[string]func(s *tcp.CloseWaitSocket, at, now time.Duration){
		"all the time":   func(s *tcp.CloseWaitSocket, _, _ time.Duration) { s.SinceSent = 0 },
		"once a minute":  func(s *tcp.CloseWaitSocket, at, now time.Duration) { s.SinceSent = (now - at) % time.Minute },
		"and is blocked": func(s *tcp.CloseWaitSocket, at, now time.Duration) { s.SinceSent, s.SendQueued = now-at, true },
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, 500, Config{})
			came := make(map[uint64]time.Duration)
			for n := range uint64(600) {
				h.event(n+1, to(80), process(99, "sender"), tcp.Established, tcp.CloseWait)
				came[n+1] = h.now
				for cookie, at := range came {
					s := h.closeWait[cookie]
					send(&s, at, h.now)
					h.closeWait[cookie] = s
				}
				h.pass(time.Second)
			}
			h.mustBeSilent()
		})
	}
}

// Sockets whose ends were lost keep no alert open, and open none.
func TestCloseWaitLeak_LostEnds(t *testing.T) {
	h := newHost(t, 500, Config{})
	leave := func(from, to uint64) { // and the events are lost
		for n := from; n < to; n++ {
			delete(h.closeWait, n+1)
		}
	}
	for n := range uint64(300) {
		h.event(n+1, to(80), process(99, "java"), tcp.Established, tcp.CloseWait)
		if n >= 20 {
			leave(n-20, n-19)
		}
		h.pass(time.Second)
	}
	h.mustBeSilent()
	for n := range uint64(100) {
		h.event(1000+n, to(80), process(99, "java"), tcp.Established, tcp.CloseWait)
		h.pass(time.Second)
	}
	h.theOnly("close_wait_leak")
	clear(h.closeWait)
	h.pass(time.Minute)
	if len(only(h.alerts, "close_wait_leak", Close)) != 1 {
		t.Error("all sockets are gone, and the alert is open")
	}
}

// Without the kernel's table an alert opens as well, a little later, and says so.
func TestCloseWaitLeak_Unverified(t *testing.T) {
	h := newHost(t, 500, Config{})
	h.unreadable = true
	for n := range uint64(150) {
		h.event(n+1, to(80), process(99, "java"), tcp.Established, tcp.CloseWait)
		h.pass(time.Second)
	}
	if a := h.theOnly("close_wait_leak"); !a.Unverified {
		t.Errorf("%+v", a)
	}
}

// An alert is approximate while a socket of its own leak is not counted, for lack of room: not if one
// of another leak was not, and not for longer.
func TestCloseWaitLeak_ApproximateWhileFull(t *testing.T) {
	h := newHost(t, 500, Config{UpdateInterval: time.Second, CloseWaitAge: time.Second})
	arrive := func(from, until int, by tcp.Owner, uid uint32) {
		for n := from; n < until; n++ {
			h.event(uint64(n), to(80), by, tcp.Established, tcp.CloseWait, func(t *tcp.Transition) { t.UID = uid })
			if n%16 == 0 || until-from < 1000 {
				h.pass(20 * time.Millisecond)
			}
		}
	}
	last := func(pid uint32) (a Alert) {
		for _, each := range h.alerts {
			if each.Kind == "close_wait_leak" && each.Culprit.PID == pid {
				a = each
			}
		}
		return a
	}
	arrive(1, maxWaiting+100, process(1, "many"), 1)
	arrive(1e6, 1e6+200, process(2, "few"), 2)
	h.pass(15 * time.Second)
	if a := last(1); a.Phase == "" || a.Phase == Close || !a.Approximate {
		t.Errorf("sockets were left out, and the alert is %s, approximate %v", a.Phase, a.Approximate)
	}
	if a := last(2); a.Phase == "" || a.Approximate {
		t.Errorf("all sockets are counted, and the alert is %s, approximate %v", a.Phase, a.Approximate)
	}
	for n := maxWaiting - 1000; n < maxWaiting+100; n++ {
		h.event(uint64(n), to(80), process(1, "many"), tcp.CloseWait, tcp.LastAck)
	}
	h.pass(15 * time.Second)
	if a := last(1); a.Phase == Close || a.Approximate {
		t.Errorf("the sockets that were left out are closed, and the alert is %s, approximate %v", a.Phase, a.Approximate)
	}
}

// The namespace is gone, with the ends of all its sockets lost: its alert does not stay for ever.
func TestCloseWaitLeak_NamespaceGone(t *testing.T) {
	h := newHost(t, 500, Config{})
	for n := range uint64(150) {
		h.event(n+1, to(80), process(99, "java"), tcp.Established, tcp.CloseWait)
		h.pass(time.Second)
	}
	h.theOnly("close_wait_leak")
	h.unreadable = true
	h.pass(unreadableFor / 2)
	if len(only(h.alerts, "close_wait_leak", Close)) != 0 {
		t.Error("the alert closes while the namespace may be unreadable for a moment")
	}
	h.pass(unreadableFor)
	if len(only(h.alerts, "close_wait_leak", Close)) != 1 {
		t.Error("the namespace is gone, and the alert is open")
	}
}

// A container ends, and the ends of its sockets are lost. Its namespace is missing from then on, and the alert closes
// within two minutes if most of the sockets may have ended.
func TestCloseWaitLeak_NamespaceGoneInALoss(t *testing.T) {
	const sockets = 100
	for _, c := range []struct {
		name      string
		lost      uint64
		afterLoss int // sockets that have entered CLOSE_WAIT after it
		churn     int // sockets that have entered CLOSE_WAIT after it, and left
		missing   bool
		closes    bool
	}{
		{"all ends may be lost", 1000, 0, 0, true, true},
		{"most ends may be lost", sockets - 16, 0, 0, true, true},
		{"too few transitions were lost", sockets - 17, 0, 0, true, false},
		{"nothing was lost", 0, 0, 0, true, false},
		{"enough sockets are newer than the loss", 1000, 17, 0, true, false},
		{"few sockets are newer than the loss", 1000, 16, 0, true, true},
		{"the newer sockets have ended", 1000, 0, 40, true, true},
		{"the namespace can be read, but not the table", 1000, 0, 0, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHost(t, 500, Config{})
			h.unreadable = true
			h.forgetSockets(0, sockets-c.afterLoss, time.Second)
			h.engine.AddLost(h.now, c.lost)
			h.pass(time.Second)
			h.forgetSockets(sockets-c.afterLoss, sockets, time.Second)
			for n := range uint64(c.churn) {
				h.event(sockets+n+1, to(80), process(99, "java"), tcp.Established, tcp.CloseWait)
				h.pass(time.Second)
				h.event(sockets+n+1, to(80), process(99, "java"), tcp.CloseWait, tcp.LastAck)
			}
			h.missing = c.missing
			h.pass(2 * time.Minute)
			if got := len(only(h.alerts, "close_wait_leak", Close)) == 1; got != c.closes {
				t.Errorf("the alert closes: %v, want %v: %v", got, c.closes, summaries(h.alerts))
			}
		})
	}
}

// forgetSockets makes sockets enter CLOSE_WAIT: those from a number up to another one, with a time between them.
func (h *host) forgetSockets(first, end int, each time.Duration) {
	for n := first; n < end; n++ {
		h.event(uint64(n)+1, to(80), process(99, "java"), tcp.Established, tcp.CloseWait)
		h.pass(each)
	}
}

// A namespace that was never read is not missing, however many transitions were lost elsewhere; nor is one that is found
// again at once.
func TestCloseWaitLeak_NamespaceNotGone(t *testing.T) {
	t.Run("never read", func(t *testing.T) {
		h := newHost(t, 500, Config{})
		h.missing = true
		h.forgetSockets(0, 60, 20*time.Second)
		h.engine.AddLost(h.now, 1000)
		h.forgetSockets(60, 90, 90*time.Second)
		if opened, closed := only(h.alerts, "close_wait_leak", Open), only(h.alerts, "close_wait_leak", Close); len(opened) != 1 || len(closed) != 0 {
			t.Errorf("%d alerts open, %d close, want 1 and 0: %v", len(opened), len(closed), summaries(h.alerts))
		}
	})
	t.Run("missing once", func(t *testing.T) {
		h := newHost(t, 500, Config{})
		h.forgetSockets(0, 150, time.Second)
		h.unreadable = true
		h.engine.AddLost(h.now, 1000)
		h.pass(70 * time.Second)
		h.engine.Update(h.now, testNetns, nil)
		h.pass(time.Minute)
		if closed := only(h.alerts, "close_wait_leak", Close); len(closed) != 0 {
			t.Errorf("the namespace was missing for a moment, and the alert closes: %v", summaries(closed))
		}
	})
	t.Run("counts after five minutes", func(t *testing.T) {
		h := newHost(t, 500, Config{CloseWaitAge: 5 * time.Minute})
		h.missing = true
		h.forgetSockets(0, 200, 100*time.Millisecond)
		h.engine.AddLost(h.now, 1000)
		h.pass(15 * time.Minute)
		if opened := only(h.alerts, "close_wait_leak", Open); len(opened) != 1 {
			t.Errorf("%d alerts open, want 1", len(opened))
		}
	})
}

// Each of many short-lived processes closes one socket, and the transition is lost. They leave no leaks in the table, so
// there is room for a true one.
func TestCloseWaitLeak_ManySmallLosses(t *testing.T) {
	h := newHost(t, 500, Config{})
	for n := range uint64(6000) {
		h.event(n+1, to(80), process(uint32(n+1000), "curl"), tcp.Established, tcp.CloseWait)
		if n%100 == 0 {
			h.pass(40 * time.Millisecond)
		}
	}
	clear(h.closeWait)
	h.engine.AddLost(h.now, 6000)
	h.pass(2 * time.Minute)
	d := leakDetectorOf(h)
	if len(d.leaks) > 0 || len(d.waiting) > 0 {
		t.Errorf("%d leaks with %d sockets are left", len(d.leaks), len(d.waiting))
	}
	for n := range 200 {
		h.event(uint64(n)+10001, to(80), process(99, "java"), tcp.Established, tcp.CloseWait)
		h.pass(time.Second)
	}
	if len(only(h.alerts, "close_wait_leak", Open)) != 1 {
		t.Errorf("a leak of 200 sockets has no alert: %v", summaries(h.alerts))
	}
}

// The same where the processes take their namespace with them.
func TestCloseWaitLeak_SmallLossesOfNamespacesGone(t *testing.T) {
	h := newHost(t, 500, Config{})
	for n := range uint64(100) {
		h.event(n+1, to(80), process(uint32(n+1000), "curl"), tcp.Established, tcp.CloseWait)
	}
	h.pass(time.Second)
	h.engine.AddLost(h.now, 100)
	h.missing = true
	h.pass(unreadableFor + 2*time.Minute)
	if d := leakDetectorOf(h); len(d.leaks) > 0 {
		t.Errorf("%d leaks are left", len(d.leaks))
	}
}

func leakDetectorOf(h *host) *closeWaitLeak {
	for _, each := range h.engine.detectors {
		if d, is := each.(*closeWaitLeak); is {
			return d
		}
	}
	return nil
}

// Sockets of before the start count, and are no growth. Connections that no process has
// accepted are no leak, but their listener's queue; those that a process accepts after all count.
func TestCloseWaitLeak_BeforeStart(t *testing.T) {
	h := newHost(t, 500, Config{})
	h.engine = New(Config{}, h.now)
	h.limits.Bound = &tcp.PortSet{}
	h.limits.Bound.Add(80)
	l := h.limits
	h.engine.Update(h.now, testNetns, &l)
	for n := range uint64(100) {
		s := tcp.Socket{}
		s.New, s.Cookie, s.NoProcess = tcp.CloseWait, n+1, true
		s.Local, s.Peer = tcp.Endpoint{Addr: here, Port: 80}, tcp.Endpoint{Addr: there, Port: uint16(50000 + n)}
		h.engine.Seed(h.now, testNetns, &s)
		h.closeWait[n+1] = tcp.CloseWaitSocket{Cookie: n + 1, SinceSent: time.Hour}
	}
	h.engine.SeedingDone(h.now)
	unaccepted := func(t *tcp.Transition) {
		served(t)
		t.NoProcess = true
	}
	for n := range uint64(100) {
		h.event(1000+n, to(80), tcp.Owner{}, tcp.Established, tcp.CloseWait, unaccepted)
		h.pass(time.Second)
	}
	h.mustBeSilent()
	for cookie, s := range h.closeWait {
		s.Accepted = true
		h.closeWait[cookie] = s
	}
	h.pass(3 * time.Minute)
	a := h.theOnly("close_wait_leak")
	if a.Role != tcp.RoleServer || a.Local.Port != 80 || a.Occupancy < 125 || a.Occupancy > 200 || !strings.Contains(a.Cause, "descriptor") {
		t.Errorf("they are accepted now: %+v", a)
	}
}
