package detect

import (
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// sendOn makes the kernel's table say when the processes of all sockets sent last.
func (h *host) sendOn(since time.Duration) {
	for cookie, s := range h.closeWait {
		s.SinceSent = since
		h.closeWait[cookie] = s
	}
}

// Sockets on which the process has sent until lately become a leak when it forgets them, long
// after the last one has come.
func TestCloseWaitLeak_ForgottenLater(t *testing.T) {
	h := newHost(t, 500, Config{})
	for n := range uint64(40) {
		h.event(n+1, to(80), process(99, "java"), tcp.Established, tcp.CloseWait)
	}
	h.sendOn(0)
	h.pass(5 * time.Minute)
	if len(h.alerts) > 0 {
		t.Fatalf("the process still sends: %+v", h.alerts)
	}
	h.sendOn(time.Hour)
	h.pass(5 * time.Minute)
	if a := h.theOnly("close_wait_leak"); a.Occupancy != 40 {
		t.Errorf("%+v", a)
	}
}

// The queue is bounded however often its sockets come back to it.
func TestCloseWaitLeak_BoundedQueue(t *testing.T) {
	d := newCloseWaitLeak(newTracker(Config{}.withDefaults())).(*closeWaitLeak)
	d.now = time.Hour
	sockets := make([]tcp.CloseWaitSocket, maxWaiting)
	for i := range sockets {
		sockets[i].Cookie = uint64(i + 1)
		d.observe(&tcp.Transition{
			Cookie: uint64(i + 1), Netns: testNetns, Owner: process(9, "x"), Old: tcp.Established, New: tcp.CloseWait, Monotonic: d.now,
		})
	}
	for range 5 {
		d.now += d.CloseWaitAge + time.Second
		d.check(func(cause, claim, func() Finding) {})
		d.takeTable(d.now, testNetns, sockets) // the process still sends on all of them
	}
	if len(d.queue) > 4*maxWaiting || len(d.waiting) != maxWaiting {
		t.Errorf("%d in the queue, at most %d; %d wait, want %d", len(d.queue), 4*maxWaiting, len(d.waiting), maxWaiting)
	}
}

// An alert that was right resolves: when the process closes all sockets, and when it closes
// most of them and goes on sending on another.
func TestCloseWaitLeak_TrueAlertIsNotRefuted(t *testing.T) {
	closes := func(h *host, count uint64) {
		for cookie := range count {
			h.event(cookie+1, to(80), process(99, "server"), tcp.CloseWait, tcp.LastAck, served)
		}
	}
	for name, end := range map[string]func(h *host){
		"closed": func(h *host) { closes(h, 100) },
		"closed, all but some": func(h *host) {
			closes(h, 80)
			h.sendOn(0)
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, 500, Config{})
			for n := range uint64(100) {
				h.event(n+1, to(80), process(99, "server"), tcp.Established, tcp.CloseWait, served)
				h.pass(time.Second)
			}
			h.theOnly("close_wait_leak")
			h.pass(30 * time.Second)
			end(h)
			h.pass(25 * time.Second)
			closed := only(h.alerts, "close_wait_leak", Close)
			if len(closed) != 1 || closed[0].Reason != Resolved {
				t.Errorf("%+v, want one that is resolved", closed)
			}
		})
	}
}

// A leak that ends beside streams on which the process sends now and then is resolved: these
// streams never counted, and refute nothing.
func TestCloseWaitLeak_BesideSenders(t *testing.T) {
	h := newHost(t, 500, Config{})
	const leaked, sending = 40, 60
	send := func() { // once a minute, at first more often
		interval := min(time.Minute, 20*time.Second+(h.now-time.Hour)/2)
		for cookie := uint64(1000); cookie < 1000+sending; cookie++ {
			h.closeWait[cookie] = tcp.CloseWaitSocket{Cookie: cookie, Accepted: true, SinceSent: h.now % interval}
		}
	}
	for n := range uint64(sending) {
		h.event(1000+n, to(80), process(99, "server"), tcp.Established, tcp.CloseWait, served)
	}
	for n := range 600 {
		if n < leaked {
			h.event(uint64(n+1), to(80), process(99, "server"), tcp.Established, tcp.CloseWait, served)
		}
		send()
		h.pass(time.Second)
	}
	h.theOnly("close_wait_leak")
	for _, a := range h.alerts {
		if a.Occupancy > leaked {
			t.Errorf("%s after %v: %d sockets, and %d have leaked", a.Phase, a.Lasted, a.Occupancy, leaked)
		}
	}
	for n := range uint64(leaked) {
		h.event(n+1, to(80), process(99, "server"), tcp.CloseWait, tcp.LastAck, served)
	}
	for range 60 {
		send()
		h.pass(time.Second)
	}
	closed := only(h.alerts, "close_wait_leak", Close)
	if len(closed) != 1 || closed[0].Reason != Resolved {
		t.Errorf("%+v, want one that is resolved", closed)
	}
}

// A socket counts once, although it leaves CLOSE_WAIT and comes back with its cookie, or is
// read from the kernel's table before its transition is observed.
func TestCloseWaitLeak_EachSocketOnce(t *testing.T) {
	for name, before := range map[string]func(h *host, cookie uint64){
		"came back": func(h *host, cookie uint64) {
			h.event(cookie, to(80), process(99, "java"), tcp.Established, tcp.CloseWait)
			h.event(cookie, to(80), process(99, "java"), tcp.CloseWait, tcp.Close)
		},
		"seeded": func(h *host, cookie uint64) {
			s := seedOpen(cookie)
			s.New = tcp.CloseWait
			h.engine.Seed(h.now, testNetns, s)
		},
		"its end was lost": func(h *host, cookie uint64) {
			h.event(cookie, to(80), process(98, "java"), tcp.Established, tcp.CloseWait)
			h.engine.AddLost(h.now, 1)
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, 500, Config{CloseWaitCount: 20})
			h.engine = New(Config{CloseWaitCount: 20}, h.now)
			for n := range uint64(100) {
				before(h, n+1)
				h.pass(500 * time.Millisecond)
				h.event(n+1, to(80), process(99, "java"), tcp.Established, tcp.CloseWait)
				h.pass(500 * time.Millisecond)
			}
			h.pass(time.Minute)
			h.theOnly("close_wait_leak")
			if last := h.alerts[len(h.alerts)-1]; last.Phase != Update || last.Occupancy != 100 {
				t.Errorf("%s: %d sockets, want 100", last.Phase, last.Occupancy)
			}
			for _, d := range h.engine.detectors {
				if d, ok := d.(*closeWaitLeak); ok && len(d.queue)-d.next != 0 {
					t.Errorf("%d are still in the queue", len(d.queue)-d.next)
				}
			}
		})
	}
}

// Where the ends of thousands of connections are lost, more of them reach the age of a leak after each table than one
// takes: a table that has refuted those before them proves nothing of them.
func TestCloseWaitLeak_ManyLostEnds(t *testing.T) {
	h := newHost(t, 20000, Config{})
	for n := range uint64(3000) {
		h.event(n+1, to(80), curl, tcp.Established, tcp.CloseWait)
		delete(h.closeWait, n+1)
		if n%60 == 59 {
			h.pass(40 * time.Millisecond)
		}
	}
	h.pass(time.Minute)
	for _, a := range h.alerts {
		t.Errorf("%s %s after %v: %d", a.Kind, a.Phase, a.Monotonic-time.Hour, a.Occupancy)
	}
}
