package detect

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// event is one transition of a connection that has no other.
func (h *host) event(cookie uint64, key destination, by tcp.Owner, old, next tcp.State, change ...func(*tcp.Transition)) {
	t := tcp.Transition{
		Monotonic: h.now, Netns: key.netns, Cookie: cookie, Owner: by, Role: tcp.RoleClient, Old: old, New: next,
		Local: tcp.Endpoint{Addr: key.local, Port: 20001}, Peer: tcp.Endpoint{Addr: key.peer, Port: key.peerPort},
	}
	for _, f := range change {
		f(&t)
	}
	switch {
	case next == tcp.CloseWait:
		h.closeWait[cookie] = tcp.CloseWaitSocket{Cookie: cookie, SinceSent: time.Hour, Accepted: !t.NoProcess}
	case old == tcp.CloseWait:
		delete(h.closeWait, cookie)
	}
	h.engine.Observe(&t)
}

func fails(err unix.Errno) func(*tcp.Transition) {
	return func(t *tcp.Transition) { t.Error = tcp.Errno(err) }
}

func served(t *tcp.Transition) {
	t.Role, t.Local.Port, t.Peer.Port = tcp.RoleServer, 80, 50000
}

// theOnly gives the only alert that was opened, and checks its kind and texts.
func (h *host) theOnly(kind string) Alert {
	h.t.Helper()
	var opened []Alert
	for _, a := range h.alerts {
		if a.Phase == Open {
			opened = append(opened, a)
		}
	}
	if len(opened) != 1 || opened[0].Kind != kind {
		h.t.Fatalf("%d alerts were opened, want one %s: %+v", len(opened), kind, opened)
	}
	if opened[0].Cause == "" || opened[0].Advice == "" || len(opened[0].Cause) > 480 || len(opened[0].Advice) > 480 {
		h.t.Errorf("cause %q, advice %q", opened[0].Cause, opened[0].Advice)
	}
	return opened[0]
}

// An alert reports why most connects to a peer fail.
func TestConnectFailures_ByReason(t *testing.T) {
	for _, tt := range []struct {
		err  unix.Errno
		word string
	}{{unix.ECONNREFUSED, "refused"}, {unix.ETIMEDOUT, "not answered"}, {unix.EHOSTUNREACH, "unreachable"}} {
		t.Run(tt.word, func(t *testing.T) {
			h := newHost(t, 500, Config{})
			for range 300 {
				h.event(0, to(81), curl, tcp.Close, tcp.SynSent)
				h.event(0, to(81), curl, tcp.SynSent, tcp.Close, fails(tt.err))
				h.pass(100 * time.Millisecond)
			}
			a := h.theOnly("connect_failures")
			if a.Culprit.PID != curl.PID || a.Peer.Port != 81 || !strings.Contains(a.Cause, tt.word) || a.Rate < 4 || a.Rate > 11 {
				t.Errorf("%+v", a)
			}
		})
	}
}

// The alert names the local address that most failed connects are from, not that of the last
// connect.
func TestConnectFailures_AddressOfMost(t *testing.T) {
	h := newHost(t, 500, Config{ConnectFailures: 20})
	other := to(81)
	other.local = here.Next()
	for range 100 {
		h.failTo(to(81), 2)
		h.event(0, other, process(2, "other"), tcp.Close, tcp.SynSent)
		h.event(0, other, process(2, "other"), tcp.SynSent, tcp.Established)
		h.pass(100 * time.Millisecond)
	}
	if a := h.theOnly("connect_failures"); a.Local.Addr != here || a.Culprit.PID != curl.PID {
		t.Errorf("from %v, by %d: want %v and %d", a.Local.Addr, a.Culprit.PID, here, curl.PID)
	}
}

// foundInUse makes a transition the failed connect() from a bound port.
func foundInUse(t *tcp.Transition) { t.NoPort, t.Locked = true, true }

// A process half of whose connects fail because its bound port has such a connection is
// reported. A connect that finds no port at all is none of them: it is a port_exhaustion.
func TestConnectFailures_AddressInUse(t *testing.T) {
	h := newHost(t, 500, Config{})
	for range 300 {
		h.event(0, to(81), curl, tcp.Close, tcp.SynSent)
		h.event(0, to(81), curl, tcp.SynSent, tcp.Established)
		h.event(0, to(81), curl, tcp.Close, tcp.SynSent)
		h.event(0, to(81), curl, tcp.SynSent, tcp.Close, foundInUse)
		h.pass(100 * time.Millisecond)
	}
	a := h.theOnly("connect_failures")
	if a.Culprit.PID != curl.PID || a.Peer.Port != 81 || !strings.Contains(a.Cause, "bound port") || a.Rate < 4 || a.Rate > 11 {
		t.Errorf("%+v", a)
	}
	if !strings.Contains(a.Advice, "bind()") {
		t.Errorf("the advice is %q", a.Advice)
	}
}

// giveUp opens connects at once and gives all of them up after a while, except the first ones, which succeed.
func (h *host) giveUp(count, succeed int, after time.Duration) {
	for range count {
		h.event(0, to(81), curl, tcp.Close, tcp.SynSent)
	}
	h.pass(after)
	for n := range count {
		if n < succeed {
			h.event(0, to(81), curl, tcp.SynSent, tcp.Established)
			continue
		}
		h.event(0, to(81), curl, tcp.SynSent, tcp.Close, func(t *tcp.Transition) { t.InState, t.Locked = after, true })
	}
}

// Connects that are given up in less than a second are failures if no connect to the peer succeeds.
func TestConnectFailures_GivenUpEarly(t *testing.T) {
	h := newHost(t, 28232, Config{})
	began := h.now
	for range 100 {
		h.giveUp(20, 0, 500*time.Millisecond)
		h.pass(500 * time.Millisecond)
	}
	a := h.theOnly("connect_failures")
	if a.Culprit.PID != curl.PID || a.Local.Addr != here || a.Peer.Port != 81 || !strings.Contains(a.Cause, "most of them given up") ||
		!strings.Contains(a.Advice, "how long") || a.Monotonic-began > 8*time.Second {
		t.Errorf("after %v: %+v", a.Monotonic-began, a)
	}
	updates := only(h.alerts, "connect_failures", Update)
	if last := updates[len(updates)-1]; last.Rate < 15 || last.Rate > 25 || last.Failures < 150 || last.Failures > 250 {
		t.Errorf("%+v", last)
	}
	ended := h.now
	h.pass(30 * time.Second)
	if closed := only(h.alerts, "connect_failures", Close); len(closed) != 1 || closed[0].Monotonic-ended > 25*time.Second {
		t.Errorf("%v", h.phases())
	}
}

// A client that races connects gives up those that lose. They are no failures while others of the same destination
// succeed, also if few do, and if the winner began a second later.
func TestConnectFailures_RacingConnects(t *testing.T) {
	for _, c := range []struct {
		count, succeed int
		pause          time.Duration
	}{{2, 1, 10 * time.Millisecond}, {20, 1, 300 * time.Millisecond}, {60, 1, 11 * time.Second}, {100, 50, 20 * time.Second}} {
		h := newHost(t, 28232, Config{})
		for h.now < time.Hour+2*time.Minute {
			h.giveUp(c.count, c.succeed, 300*time.Millisecond)
			h.pass(c.pause)
		}
		h.mustBeSilent()
	}
	h := newHost(t, 28232, Config{})
	for range 10 {
		h.pass(h.now.Truncate(time.Second) + 2*time.Second - 100*time.Millisecond - h.now)
		began := h.now
		for range 60 {
			h.event(0, to(81), curl, tcp.Close, tcp.SynSent)
		}
		h.pass(900 * time.Millisecond)
		h.event(0, to(81), curl, tcp.Close, tcp.SynSent)
		h.pass(50 * time.Millisecond)
		h.event(0, to(81), curl, tcp.SynSent, tcp.Established)
		for range 60 {
			h.event(0, to(81), curl, tcp.SynSent, tcp.Close, func(t *tcp.Transition) { t.InState, t.Locked = h.now-began, true })
		}
		h.pass(20 * time.Second)
	}
	h.mustBeSilent()
}

// A health check that fails once a second and a port scan raise no alert.
func TestConnectFailures_HealthChecksAndScans(t *testing.T) {
	t.Parallel()
	h := newHost(t, 5000, Config{})
	for n := range 60_000 / floodDivisor {
		if n%100 == 0 { // once a second, to a peer that is down
			h.event(0, to(81), curl, tcp.Close, tcp.SynSent)
			h.event(0, to(81), curl, tcp.SynSent, tcp.Close, fails(unix.ECONNREFUSED))
		}
		scanned := to(uint16(n))
		h.event(0, scanned, process(5, "nmap"), tcp.Close, tcp.SynSent)
		h.event(0, scanned, process(5, "nmap"), tcp.SynSent, tcp.Close, fails(unix.ECONNREFUSED))
		h.pass(10 * time.Millisecond)
	}
	h.mustBeSilent()
}

// An alert reports a server whose connections are mostly reset.
func TestResetBurst_MostOfOneEndpoint(t *testing.T) {
	h := newHost(t, 500, Config{})
	for n := range 400 {
		h.event(0, to(80), process(7, "nginx"), tcp.Established, tcp.Close, served, fails(unix.ECONNRESET))
		if n%4 == 0 {
			h.event(0, to(80), process(7, "nginx"), tcp.CloseWait, tcp.LastAck, served)
		}
		h.pass(50 * time.Millisecond)
	}
	if a := h.theOnly("reset_burst"); a.Culprit.PID != 7 || a.Local.Port != 80 || a.Role != tcp.RoleServer || a.Peer.Addr.IsValid() {
		t.Errorf("%+v", a)
	}
}

// No alert is raised while a third of the connections are reset.
func TestResetBurst_OneInThree(t *testing.T) {
	t.Parallel()
	h := newHost(t, 5000, Config{})
	for n := range 20_000 {
		next := []func(*tcp.Transition){served}
		if n%3 == 0 {
			next = append(next, fails(unix.ECONNRESET))
			h.event(0, to(80), process(7, "nginx"), tcp.Established, tcp.Close, next...)
		} else {
			h.event(0, to(80), process(7, "nginx"), tcp.CloseWait, tcp.LastAck, next...)
		}
		h.pass(20 * time.Millisecond)
	}
	h.mustBeSilent()
}

// Closed connections pile up only if the kernel's table still has them: the peer may
// have closed without a transition.
func TestFinWait2Pileup_CountedByKernel(t *testing.T) {
	for _, stay := range []bool{true, false} {
		t.Run(fmt.Sprintf("they stay: %v", stay), func(t *testing.T) {
			h := newHost(t, 28232, Config{})
			h.uncounted = true
			for range 3000 {
				h.event(0, to(80), curl, tcp.Close, tcp.SynSent)
				h.event(0, to(80), curl, tcp.FinWait2, tcp.TimeWait, func(t *tcp.Transition) { t.Substate = tcp.FinWait2 })
				h.waits = append(h.waits, h.now)
				if !stay && len(h.waits) > 2 {
					h.waits = h.waits[1:]
				}
				h.pass(20 * time.Millisecond)
			}
			if !stay {
				h.mustBeSilent()
				return
			}
			a := h.theOnly("fin_wait2_pileup")
			if a.Culprit.PID != curl.PID || a.Peer.Port != 80 || a.Occupancy < 500 {
				t.Errorf("%+v", a)
			}
		})
	}
}

// The sockets and owners that the detector of leaks keeps are bounded.
func TestCloseWaitLeak_BoundedMemory(t *testing.T) {
	h := newHost(t, 500, Config{MaxDestinations: 64})
	d := newCloseWaitLeak(h.engine.tracker).(*closeWaitLeak)
	for n := range uint64(200_000) {
		d.observe(&tcp.Transition{
			Cookie: n + 1, Netns: uint32(n), Owner: process(uint32(n+1), "x"), Old: tcp.Established, New: tcp.CloseWait, Monotonic: time.Hour,
		})
	}
	if len(d.waiting) > maxWaiting || len(d.queue) > 4*maxWaiting || len(d.leaks) > 64 {
		t.Errorf("%d wait, %d in the queue, %d owners", len(d.waiting), len(d.queue), len(d.leaks))
	}
}

// A socket counts for the leak of its own owner, also after leaks that are over have been
// dropped.
func TestCloseWaitLeak_OneForEachOwner(t *testing.T) {
	random := rand.New(rand.NewPCG(13, 14))
	d := newCloseWaitLeak(newTracker(Config{}.withDefaults())).(*closeWaitLeak)
	keys := make(map[*leak]leakKey)
	for range 10_000 {
		key := leakKey{netns: random.Uint32N(2), pid: random.Uint32N(3)}
		l := d.leakFor(key, 0)
		if known, found := keys[l]; d.leaks[key] != l || found && known != key {
			t.Fatalf("%+v is the leak of %+v, want that of %+v", l, known, key)
		}
		keys[l] = key
		l.lastArrival = d.now
		d.now += d.CloseWaitAge * []time.Duration{0, 1, 3}[random.IntN(3)]
		d.check(func(cause, claim, func() Finding) {}) // drops the leaks that are over
		for l, key := range keys {
			if d.leaks[key] != l {
				delete(keys, l)
			}
		}
	}
}

// Advice names the cure first, and never a setting that does harm.
func TestAdvice_CureFirstAndHarmless(t *testing.T) {
	advice := portAdvice(&namespace{limits: tcp.Limits{PortLow: 32768, PortHigh: 60999}})
	at := 0
	for _, part := range []string{"reuse connections", "addresses", "ip_local_port_range"} {
		next := strings.Index(advice[at:], part)
		if next < 0 {
			t.Fatalf("%q does not come where it should: %s", part, advice)
		}
		at += next
	}
	for _, all := range []string{advice, failureAdvice[refused], failureAdvice[unanswered], failureAdvice[unreachable], failureAdvice[inUse]} {
		for _, harm := range []string{"recycle", "tcp_max_tw_buckets", "SO_LINGER"} {
			if strings.Contains(all, harm) {
				t.Errorf("%q has %q", all, harm)
			}
		}
	}
}

func BenchmarkObserve(b *testing.B) {
	e := New(Config{}, time.Hour)
	t := tcp.Transition{
		Netns: testNetns, Owner: curl, Role: tcp.RoleClient, Local: tcp.Endpoint{Addr: here}, Peer: tcp.Endpoint{Addr: there, Port: 80},
	}
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		t.Monotonic = time.Hour + time.Duration(n)*10*time.Microsecond
		if t.Old, t.New, t.Local.Port = tcp.Close, tcp.SynSent, 0; n%2 == 1 {
			t.Old, t.New, t.Substate, t.Local.Port = tcp.FinWait2, tcp.TimeWait, tcp.TimeWait, 40000
		}
		e.Observe(&t)
		if n%4000 == 0 {
			e.Tick(t.Monotonic)
		}
	}
}
