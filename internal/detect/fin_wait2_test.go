package detect

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// shutDown is a connection of the server on port 80 that its process has shut down for
// writing, and still has.
func (h *host) shutDown(cookie uint64, by tcp.Owner) {
	t := tcp.Transition{
		Monotonic: h.now, Netns: testNetns, Cookie: cookie, Owner: by, Role: tcp.RoleServer, Old: tcp.FinWait1, New: tcp.FinWait2,
		Local: tcp.Endpoint{Addr: here, Port: 80}, Peer: tcp.Endpoint{Addr: there, Port: 50000},
	}
	h.engine.Observe(&t)
	s := tcp.Socket{Transition: t}
	s.Old = 0
	h.attached = append(h.attached, s)
}

// Sockets in FIN_WAIT2 that a process has never time out: they pile up at any rate, and the
// alert names the process. Those that it closes do not.
func TestFinWait2Pileup_OfAttachedSockets(t *testing.T) {
	for name, closes := range map[string]bool{"never closes": false, "closes after two seconds": true} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, 28232, Config{})
			server := process(80, "server")
			for n := range 1200 {
				h.shutDown(uint64(n+1), server)
				h.pass(500 * time.Millisecond)
				if closes && len(h.attached) > 3 {
					first := h.attached[0].Transition
					h.attached = h.attached[1:]
					first.Monotonic, first.Old, first.New, first.Substate = h.now, tcp.FinWait2, tcp.TimeWait, tcp.TimeWait
					h.engine.Observe(&first)
				}
			}
			if closes {
				h.mustBeSilent()
				return
			}
			h.pass(10 * time.Minute) // nothing happens any more, and the sockets stay
			opened, closed := only(h.alerts, "fin_wait2_pileup", Open), only(h.alerts, "fin_wait2_pileup", Close)
			if len(opened) != 1 || len(closed) != 0 {
				t.Fatalf("%d alerts opened, %d closed, want 1 and 0", len(opened), len(closed))
			}
			a := opened[0]
			if a.Culprit.PID != 80 || a.Role != tcp.RoleServer || a.Local.Port != 80 || a.Occupancy < 490 || a.Occupancy > 510 ||
				!strings.Contains(a.Cause, "no timeout") {
				t.Errorf("%+v", a)
			}
		})
	}
}

// The table is requested again when its answer is old enough to prove that a socket has waited, and
// not only its request: else a late answer, and a prompt one after it, prove nothing.
func TestFinWait2Pileup_LateAnswer(t *testing.T) {
	h := newHost(t, 28232, Config{HalfClosed: 10})
	for n := range uint64(40) {
		h.shutDown(n+1, process(80, "server"))
	}
	var answered, due time.Duration
	answers := 0
	for ; answers < 6; h.now += 100 * time.Millisecond {
		h.engine.Tick(h.now)
		for _, want := range h.engine.Requests(h.now) {
			if want.HalfClosed {
				if answered > 0 && h.now-answered < minWaiting {
					t.Fatalf("requested %v after the last answer", h.now-answered)
				}
				due = h.now + []time.Duration{0, 900 * time.Millisecond}[answers%2]
			}
		}
		if due > 0 && h.now >= due {
			h.answerHalfClosed(testNetns)
			answered, due, answers = h.now, 0, answers+1
		}
	}
}

// A short TCP_LINGER2 makes no young socket old: its timer begins with a few seconds.
func TestFinWait2Pileup_ShortLinger2(t *testing.T) {
	h := newHost(t, 28232, Config{})
	h.uncounted = true
	for range 4000 {
		h.event(0, to(80), curl, tcp.Close, tcp.SynSent)
		h.event(0, to(80), curl, tcp.FinWait2, tcp.TimeWait, func(t *tcp.Transition) { t.Substate = tcp.FinWait2 })
		h.waits = append(h.waits, h.now-57*time.Second) // 3 s are left of a minute
		for len(h.waits) > 0 && h.waits[0] < h.now-59*time.Second {
			h.waits = h.waits[1:] // the peer closes after 2 s
		}
		h.pass(3 * time.Millisecond)
	}
	h.mustBeSilent()
}

// The sockets that the detector keeps are bounded.
func TestFinWait2Pileup_BoundedMemory(t *testing.T) {
	t.Parallel()
	h := newHost(t, 28232, Config{})
	server := process(80, "server")
	for n := range maxWaiting + 1000 {
		h.shutDown(uint64(n+1), server)
	}
	h.pass(15 * time.Second)
	for _, d := range h.engine.detectors {
		if d, ok := d.(*finWait2Pileup); ok {
			if len(d.attached.sockets) > maxWaiting || len(d.sightings[testNetns].first) > maxWaiting || d.sighted.total > maxWaiting {
				t.Errorf("%d attached, %d sighted sockets, at most %d", len(d.attached.sockets), d.sighted.total, maxWaiting)
			}
		}
	}
}

// Sockets whose ends were lost count as attached no longer than the kernel's table has them, and
// those that it has stay.
func TestFinWait2Pileup_LostEndsOfAttached(t *testing.T) {
	h := newHost(t, 28232, Config{})
	for n := range uint64(700) {
		h.shutDown(n+1, process(80, "server"))
	}
	h.pass(15 * time.Second)
	h.attached = h.attached[600:] // and the events are lost
	h.pass(15 * time.Second)
	for _, d := range h.engine.detectors {
		if d, ok := d.(*finWait2Pileup); ok && len(d.attached.sockets) != 100 {
			t.Errorf("%d sockets count as attached, want 100", len(d.attached.sockets))
		}
	}
}

// The alert names the service and the local address that most of the sockets are of, also where
// others reach the same peer from another address.
func TestFinWait2Pileup_AddressOfMost(t *testing.T) {
	for _, lightFirst := range []bool{true, false} {
		h := newHost(t, 28232, Config{})
		h.uncounted, h.finAfter = true, time.Hour
		heavy, light := to(80), to(80)
		light.local = here.Next()
		run := func(key destination, by tcp.Owner, count int) {
			for range count {
				h.connect(key, by)
				h.close(key, by, true)
			}
		}
		if lightFirst {
			run(light, process(2, "light"), 20)
		}
		run(heavy, process(1, "heavy"), 600)
		run(light, process(2, "light"), 20)
		h.pass(20 * time.Second)
		if a := h.theOnly("fin_wait2_pileup"); a.Local.Addr != heavy.local || a.Culprit.Service != "heavy" || a.Peer.Port != 80 {
			t.Errorf("light first: %v: from %v, by %s", lightFirst, a.Local.Addr, a.Culprit.Service)
		}
	}
}

// halfClosedFor lets connections enter FIN_WAIT2 at a rate, for a time. Of every `of` one stays; the peers of the others
// close after a tenth of a second.
func (h *host) halfClosedFor(d time.Duration, perSecond, of int) {
	var short []time.Duration
	for n := range int(d.Seconds() * float64(perSecond)) {
		h.event(0, to(80), curl, tcp.Close, tcp.SynSent)
		h.event(0, to(80), curl, tcp.FinWait2, tcp.TimeWait, func(t *tcp.Transition) { t.Substate = tcp.FinWait2 })
		if h.waits = append(h.waits, h.now); n%of != 0 {
			short = append(short, h.now)
		}
		if len(short) > 0 && h.now-short[0] >= 100*time.Millisecond {
			closed := short[0]
			short, h.waits = short[1:], slices.DeleteFunc(h.waits, func(since time.Duration) bool { return since == closed })
		}
		h.pass(time.Second / time.Duration(perSecond))
	}
}

// The rate is that of the sockets that stay, in the first report as well: not that of all that enter FIN_WAIT2, as each
// connection does whose process has closed it and whose peer answers a moment later.
func TestFinWait2Pileup_RateWhenItOpens(t *testing.T) {
	for _, c := range []struct{ perSecond, of int }{{10, 1}, {40, 1}, {200, 1}, {400, 10}} {
		t.Run(fmt.Sprintf("one of %d stays, %d a second", c.of, c.perSecond), func(t *testing.T) {
			h := newHost(t, 28232, Config{})
			h.uncounted, h.limits.FinTimeout = true, 2*time.Minute
			h.halfClosedFor(75*time.Second, c.perSecond, c.of)
			want := float64(c.perSecond) / float64(c.of)
			opened, updates := only(h.alerts, "fin_wait2_pileup", Open), only(h.alerts, "fin_wait2_pileup", Update)
			if len(opened) != 1 || len(updates) == 0 && want > 10 {
				t.Fatalf("%d alerts opened, with %d updates: %v", len(opened), len(updates), summaries(h.alerts))
			}
			for _, a := range append(opened, updates...) {
				if a.Rate < 0.8*want || a.Rate > 1.2*want {
					t.Errorf("%s: %.1f more sockets a second, want %.1f", a.Phase, a.Rate, want)
				}
			}
		})
	}
	t.Run("attached", func(t *testing.T) {
		h := newHost(t, 28232, Config{})
		for n := range uint64(40 * 30) {
			h.shutDown(n+1, process(80, "server"))
			h.pass(25 * time.Millisecond)
		}
		if a := h.theOnly("fin_wait2_pileup"); a.Rate < 32 || a.Rate > 48 {
			t.Errorf("%.1f more sockets a second, want 40", a.Rate)
		}
	})
	t.Run("they came at once", func(t *testing.T) {
		h := newHost(t, 28232, Config{})
		for n := range uint64(600) {
			h.shutDown(n+1, process(80, "server"))
		}
		h.pass(10 * time.Second)
		if a := h.theOnly("fin_wait2_pileup"); a.Rate != 0 {
			t.Errorf("%.1f more sockets a second, and none comes", a.Rate)
		}
	})
}

// passWithTables advances the clock. The namespace can be read, and its table comes only if tableDue says so.
func (h *host) passWithTables(d time.Duration, tableDue func() bool) {
	for end := h.now + d; h.now < end; {
		h.now += 40 * time.Millisecond
		h.ticked = h.now
		for _, a := range h.engine.Tick(h.now) {
			h.take(a)
		}
		for _, want := range h.engine.Requests(h.now) {
			l := h.limits
			h.engine.Update(h.now, want.Netns, &l)
			if want.HalfClosed && tableDue() {
				h.answerHalfClosed(want.Netns)
			}
		}
	}
}

// pileup has an open alert about 200 sockets that a process has.
func pileup(t *testing.T) *host {
	h := newHost(t, 28232, Config{HalfClosed: 100})
	for n := range uint64(200) {
		h.shutDown(n+1, process(80, "server"))
	}
	h.pass(20 * time.Second)
	h.theOnly("fin_wait2_pileup")
	return h
}

// An alert stays while its sockets do, although the tables come late, or nothing comes for a while: it is unverified
// until a table comes. It also opens if tables are far apart.
func TestFinWait2Pileup_LateTables(t *testing.T) {
	mustStay := func(t *testing.T, h *host) {
		t.Helper()
		if opened, closed := only(h.alerts, "fin_wait2_pileup", Open), only(h.alerts, "fin_wait2_pileup", Close); len(opened) != 1 || len(closed) != 0 {
			t.Fatalf("%d alerts opened, %d closed, want 1 and 0: %v", len(opened), len(closed), h.phases())
		}
		if a := h.alerts[len(h.alerts)-1]; a.Unverified || a.Occupancy != 200 {
			t.Errorf("%d sockets, unverified %v, want 200, confirmed by the newest table", a.Occupancy, a.Unverified)
		}
	}
	for _, stall := range []time.Duration{15 * time.Second, 25 * time.Second, 45 * time.Second} {
		t.Run(fmt.Sprintf("a stall of %v", stall), func(t *testing.T) {
			h := pileup(t)
			h.now += stall
			h.ticked = h.now - 40*time.Millisecond
			h.pass(time.Minute)
			mustStay(t, h)
		})
	}
	every := func(h *host, interval time.Duration) func() bool {
		last := h.now
		return func() bool {
			if h.now-last < interval {
				return false
			}
			last = h.now
			return true
		}
	}
	t.Run("a table every 25 s", func(t *testing.T) {
		h := pileup(t)
		h.passWithTables(5*time.Minute, every(h, 25*time.Second))
		unverified := 0
		for _, a := range only(h.alerts, "fin_wait2_pileup", Update) {
			if a.Unverified {
				unverified++
			}
		}
		if unverified == 0 {
			t.Error("no update says that the number is old")
		}
		h.pass(15 * time.Second)
		mustStay(t, h)
	})
	t.Run("opens with a table every 25 s", func(t *testing.T) {
		h := newHost(t, 28232, Config{HalfClosed: 100})
		for n := range uint64(200) {
			h.shutDown(n+1, process(80, "server"))
		}
		h.passWithTables(90*time.Second, every(h, 25*time.Second))
		h.pass(15 * time.Second)
		mustStay(t, h)
	})
	t.Run("missing for a moment", func(t *testing.T) {
		h := pileup(t)
		h.passWithTables(24*time.Second, func() bool { return false })
		h.engine.Update(h.now, testNetns, nil)
		h.passWithTables(4*time.Second, func() bool { return false })
		h.pass(15 * time.Second)
		mustStay(t, h)
	})
}

// Everything is gone, and the transitions that ended it are lost: the alert closes once a table shows it; if the
// namespace is missing within 30 s, and within 75 s if no answer comes at all.
func TestFinWait2Pileup_GoneInALoss(t *testing.T) {
	never := func() bool { return false }
	for _, c := range []struct {
		name   string
		within time.Duration
		pass   func(h *host)
	}{
		{"a table shows it", 20 * time.Second, func(h *host) { h.pass(3 * time.Minute) }},
		{"the namespace is missing", 30 * time.Second, func(h *host) { h.missing = true; h.pass(3 * time.Minute) }},
		{"tables do not come", 75 * time.Second, func(h *host) { h.passWithTables(3*time.Minute, never) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			for wait := time.Duration(0); wait < 6*time.Second; wait += 700 * time.Millisecond { // a table comes every 5 s
				h := pileup(t)
				h.pass(wait)
				h.engine.AddLost(h.now, 1000)
				h.attached = nil
				gone := h.now
				c.pass(h)
				closed := only(h.alerts, "fin_wait2_pileup", Close)
				if len(closed) != 1 || closed[0].Monotonic-gone > c.within || closed[0].Reason != Resolved {
					t.Errorf("after %v: closed %v, want within %v", wait, summaries(closed), c.within)
				}
				for _, a := range closed {
					t.Logf("%v: closes after %v", wait, a.Monotonic-gone)
				}
			}
		})
	}
}
