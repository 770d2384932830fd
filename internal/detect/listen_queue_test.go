package detect

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// listening simulates the listeners of the kernel, in testNetns.
type listening struct {
	list       []*simListener
	overflows  uint64
	nextCookie uint64

	gone         bool // the namespace cannot be read
	read         int  // how often the listeners were read
	unaccepted   int  // how often the connections that wait were read
	byTransition bool // only listeners whose transition was observed count
}

type simListener struct {
	tcp.Listener
	queue []uint64 // cookies, oldest first
}

// listen opens a listener. Nobody observes that if by is the zero Owner.
func (h *host) listen(local tcp.Endpoint, backlog uint32, by tcp.Owner) *simListener {
	s := &simListener{Listener: tcp.Listener{Cookie: 1<<40 + h.listening.nextCookie, Local: local, Backlog: backlog, Inode: 1}}
	h.listening.nextCookie++
	h.listening.list = append(h.listening.list, s)
	if by.Source != tcp.PIDUnknown {
		h.observeListener(s, by, tcp.Close, tcp.Listen)
	}
	return s
}

func (h *host) observeListener(s *simListener, by tcp.Owner, old, next tcp.State) {
	h.engine.Observe(&tcp.Transition{
		Monotonic: h.now, Netns: testNetns, Cookie: s.Cookie, Owner: by, Role: tcp.RoleListener, Old: old, New: next, Local: s.Local,
	})
}

// stopListening closes a listener.
func (h *host) stopListening(s *simListener, by tcp.Owner) {
	h.listening.list = nil
	h.observeListener(s, by, tcp.Listen, tcp.Close)
}

// arrive lets connections arrive at a listener.
func (h *host) arrive(s *simListener, count int) {
	for range count {
		if s.IsFull() {
			s.Drops++
			h.listening.overflows++
			continue
		}
		h.cookie++
		s.queue = append(s.queue, h.cookie)
		s.Queued = uint32(len(s.queue))
	}
}

func (s *simListener) accept(count int) {
	s.queue = s.queue[max(0, min(count, len(s.queue))):]
	s.Queued = uint32(len(s.queue))
}

func (h *host) answerListeners(want Request) {
	l := &h.listening
	if want.Listeners == nil || want.Netns != testNetns {
		return
	}
	if l.gone {
		h.engine.UpdateListeners(h.now, want.Netns, nil)
		return
	}
	l.read++
	t := &ListenTable{ReadAt: h.now, Overflows: l.overflows, KnownOnly: l.byTransition}
	for _, s := range l.list {
		t.Listeners = append(t.Listeners, s.Listener)
	}
	if len(want.Listeners.Unaccepted) > 0 {
		l.unaccepted++
		t.HasUnaccepted = true
		for _, port := range want.Listeners.Unaccepted {
			for _, s := range l.list {
				for _, cookie := range s.queue {
					if s.Local.Port == port {
						local := s.Local
						if local.Addr.IsUnspecified() {
							local.Addr = here
						}
						t.Unaccepted = append(t.Unaccepted, tcp.UnacceptedSocket{Cookie: cookie, Local: local})
					}
				}
			}
		}
	}
	h.engine.UpdateListeners(h.now, want.Netns, t)
}

// overflowing is a table with one listener whose queue is always full.
func overflowing(now time.Duration) *ListenTable {
	drops := uint32(now / time.Second)
	return &ListenTable{
		ReadAt: now, Overflows: uint64(drops),
		Listeners: []tcp.Listener{{Cookie: 1 << 41, Local: tcp.Endpoint{Addr: here, Port: 80}, Queued: 129, Backlog: 128, Drops: drops}},
	}
}

var (
	web       = tcp.Endpoint{Addr: netip.IPv4Unspecified(), Port: 80}
	webServer = process(99, "server")
)

// serve has perSecond connections arrive each second, and accepts as accept does.
func (h *host) serve(s *simListener, d time.Duration, perSecond int, accept func(second int)) {
	for second := range int(d / time.Second) {
		for range 4 {
			h.arrive(s, perSecond/4)
			h.pass(250 * time.Millisecond)
		}
		if accept != nil {
			accept(second)
		}
	}
}

// A server that never accepts: the alert has the numbers of the kernel, names the process, and
// resolves when the process accepts at last.
func TestListenQueue_NeverAccepts(t *testing.T) {
	h := newHost(t, 500, Config{})
	s := h.listen(web, 128, webServer)
	h.serve(s, time.Minute, 40, nil)
	a := h.theOnly("listen_queue_full")
	if a.Role != tcp.RoleListener || a.Local != web || a.Culprit.PID != 99 || a.Severity != Critical || a.Unverified {
		t.Errorf("%+v", a)
	}
	if a.Occupancy != 129 || a.Capacity != 129 || a.CapacityKind != AcceptQueue || a.OccupancySource != FromKernel || a.Drops == 0 {
		t.Errorf("%d of %d, %d dropped", a.Occupancy, a.Capacity, a.Drops)
	}
	updates := only(h.alerts, "listen_queue_full", Update)
	if len(updates) == 0 {
		t.Fatal("no update")
	}
	last := updates[len(updates)-1]
	if last.Drops > uint64(s.Drops) || last.Drops < uint64(s.Drops)/2 || last.Rate < 35 || last.Rate > 45 || !strings.Contains(last.Cause, "30s") {
		t.Errorf("%d dropped of %d, rate %v: %s", last.Drops, s.Drops, last.Rate, last.Cause)
	}
	s.accept(1000)
	h.pass(30 * time.Second)
	if closed := only(h.alerts, "listen_queue_full", Close); len(closed) != 1 || closed[0].Reason != Resolved {
		t.Errorf("%+v", closed)
	}
}

// Clients that give up and do not try again leave a queue that is not full. Nobody accepts.
func TestListenQueue_FewConnections(t *testing.T) {
	h := newHost(t, 500, Config{})
	s := h.listen(web, 100, webServer)
	for range 75 {
		h.arrive(s, 1)
		h.pass(time.Second)
	}
	a := h.theOnly("listen_queue_full")
	if a.Severity != Warning || a.Drops != 0 || a.Occupancy < 30 || a.Capacity != 101 || a.Monotonic-time.Hour > time.Minute {
		t.Errorf("%+v", a)
	}
	h.stopListening(s, webServer)
	h.pass(15 * time.Second)
	if closed := only(h.alerts, "listen_queue_full", Close); len(closed) != 1 || closed[0].Reason != Resolved {
		t.Errorf("%+v", closed)
	}
}

// Nothing is wrong with a queue that is full in a burst, or never empty because its server
// is busy, or full without a connection that finds no room.
func TestListenQueue_Harmless(t *testing.T) {
	for name, tt := range map[string]struct {
		backlog   uint32
		perSecond int
		accept    func(s *simListener) func(second int)
	}{
		"a burst every ten seconds": {4, 0, func(s *simListener) func(second int) {
			return func(second int) {
				s.accept(1)
				if second%10 == 0 {
					s.Drops += 100
					s.queue = []uint64{1, 2, 3, 4, 5}
					s.Queued = 5
				}
			}
		}},
		"busy, one by one":        {128, 4, func(s *simListener) func(int) { return func(int) { s.accept(len(s.queue) - 1) } }},
		"a constant queue":        {128, 20, func(s *simListener) func(int) { return func(int) { s.accept(len(s.queue) - 90) } }},
		"drops, but no overflow":  {128, 20, func(s *simListener) func(int) { return func(int) { s.Drops += 10; s.accept(20) } }},
		"always full, none waits": {0, 0, func(s *simListener) func(int) { return func(n int) { s.queue, s.Queued = []uint64{uint64(n)}, 1 } }},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, 500, Config{})
			s := h.listen(web, tt.backlog, webServer)
			h.serve(s, 3*time.Minute, tt.perSecond, tt.accept(s))
			h.mustBeSilent()
		})
	}
}

// Connections that no process has accepted when the peer closes are not a leak of descriptors:
// the alert says that the server does not accept. Their transitions have the process of a
// listener that is older than the tracer.
func TestListenQueue_ClientsThatGaveUp(t *testing.T) {
	h := newHost(t, 500, Config{})
	s := h.listen(web, 100, tcp.Owner{})
	for range 100 {
		h.arrive(s, 1)
		by := webServer
		by.Source = tcp.PIDListener
		h.event(h.cookie, to(80), by, tcp.Established, tcp.CloseWait, served, func(t *tcp.Transition) { t.NoProcess = true })
		h.pass(time.Second)
	}
	a := h.theOnly("listen_queue_full")
	if strings.Contains(a.Cause, "descriptor") || a.Culprit.PID != 99 || a.Local != web {
		t.Errorf("%+v", a)
	}
	if len(only(h.alerts, "close_wait_leak", Open)) > 0 {
		t.Errorf("%+v", h.alerts)
	}
}

// A server that accepts too slowly: its queue overflows for as long as the load lasts.
func TestListenQueue_AcceptsSlowly(t *testing.T) {
	h := newHost(t, 500, Config{})
	s := h.listen(web, 8, webServer)
	h.serve(s, time.Minute, 20, func(int) { s.accept(2) })
	a := h.theOnly("listen_queue_full")
	if a.Severity != Critical || a.Drops == 0 || a.Occupancy > a.Capacity || a.Culprit.PID != 99 || !strings.Contains(a.Advice, "faster") {
		t.Errorf("%+v", a)
	}
	if after := a.Monotonic - time.Hour; after < overloadedFor || after > 35*time.Second {
		t.Errorf("it opened after %v", after)
	}
	h.serve(s, 40*time.Second, 0, func(int) { s.accept(2) })
	if closed := only(h.alerts, "listen_queue_full", Close); len(closed) != 1 || closed[0].Reason != Resolved {
		t.Errorf("%+v", closed)
	}
}

// A queue that turns a client away every two seconds is read often enough, and from the first reading on: also if the
// listener is older than the tracer and had dropped nothing before.
func TestListenQueue_TurnsAwayNowAndThen(t *testing.T) {
	for _, by := range []tcp.Owner{webServer, {}} {
		h := newHost(t, 500, Config{})
		s := h.listen(web, 0, by)
		h.engine.UpdateListeners(h.now, testNetns, &ListenTable{ReadAt: h.now, Listeners: []tcp.Listener{s.Listener}})
		for range 30 {
			h.arrive(s, 2)
			s.accept(1)
			h.pass(2 * time.Second)
		}
		a := h.theOnly("listen_queue_full")
		if after := a.Monotonic - time.Hour; after > 24*time.Second || a.Drops < 8 {
			t.Errorf("it opened after %v, with %d dropped", after, a.Drops)
		}
	}
}

// A listener whose transition was lost is found once its namespace has another one.
func TestListenQueue_LostTransition(t *testing.T) {
	h := newHost(t, 500, Config{})
	s := h.listen(web, 16, tcp.Owner{})
	h.engine.AddLost(h.now, 1)
	h.connect(to(80), curl)
	h.serve(s, time.Minute, 20, nil)
	if a := h.theOnly("listen_queue_full"); a.Local != web || a.Monotonic-time.Hour > 35*time.Second {
		t.Errorf("%+v", a)
	}
}

// Of a group with SO_REUSEPORT the alert names the member that does not accept.
func TestListenQueue_StuckMemberOfGroup(t *testing.T) {
	h := newHost(t, 500, Config{})
	var members []*simListener
	for n := range uint32(4) {
		members = append(members, h.listen(web, 64, process(100+n, "server")))
	}
	stuck := members[2]
	for range 90 {
		for _, s := range members {
			h.arrive(s, 3)
		}
		h.pass(time.Second)
		for _, s := range members {
			if s != stuck {
				s.accept(len(s.queue) - 1)
			}
		}
	}
	a := h.theOnly("listen_queue_full")
	if a.Culprit.PID != 102 || a.Culprit.Share != 1 || a.Capacity != 65 || !strings.Contains(a.Cause, "of the 4 listeners") {
		t.Errorf("%+v", a)
	}
}

// A listener that is older than the tracer counts, without its process; with a filter by owner
// it does not, because it may not pass.
func TestListenQueue_OlderThanTracer(t *testing.T) {
	for _, byTransition := range []bool{false, true} {
		h := newHost(t, 500, Config{})
		h.listening.byTransition = byTransition
		s := h.listen(web, 16, tcp.Owner{})
		h.arrive(s, 40)
		s.Drops, h.listening.overflows = 500, 500
		h.engine.UpdateListeners(h.now, testNetns, &ListenTable{ReadAt: h.now, Overflows: 500, Listeners: []tcp.Listener{s.Listener}, KnownOnly: byTransition})
		h.serve(s, time.Minute, 4, nil)
		if byTransition {
			h.mustBeSilent()
			continue
		}
		a := h.theOnly("listen_queue_full")
		if a.Culprit.Known || a.Drops > uint64(s.Drops)-500 || a.Drops == 0 {
			t.Errorf("%d dropped: %+v", a.Drops, a)
		}
	}
}

// A namespace with listeners and no traffic is read every ten seconds, and not the connections
// in it; one that is gone is forgotten.
func TestListenQueue_QuietNamespace(t *testing.T) {
	h := newHost(t, 500, Config{})
	h.listen(web, 16, webServer)
	h.pass(5 * time.Minute)
	if l := &h.listening; l.read < 25 || l.read > 31 || l.unaccepted > 0 {
		t.Errorf("read %d and %d times in five minutes", l.read, l.unaccepted)
	}
	h.listening.gone = true
	h.pass(2 * time.Minute)
	h.listening.gone, h.listening.read = false, 0
	h.pass(time.Minute)
	if h.listening.read > 0 {
		t.Error("the namespace is gone, and its listeners are still requested")
	}
}

// Listeners that come and go leave nothing behind, with and without cookies.
func TestListenQueue_ForgetsListeners(t *testing.T) {
	for _, cookies := range []bool{true, false} {
		h := newHost(t, 500, Config{})
		for n := range 1000 {
			s := h.listen(tcp.Endpoint{Addr: here, Port: uint16(1 + n)}, 16, tcp.Owner{})
			if !cookies {
				s.Cookie = 0
			}
			h.observeListener(s, webServer, tcp.Close, tcp.Listen)
			h.stopListening(s, webServer)
			h.pass(20 * time.Millisecond)
		}
		for _, d := range h.engine.detectors {
			if d, ok := d.(*listenQueue); ok && (len(d.netns) > 0 || d.room.total > 0 || len(d.queued) > 0) {
				t.Errorf("cookies %v: %d namespaces and %d listeners are left", cookies, len(d.netns), d.room.total)
			}
		}
	}
}

// On a kernel that gives no cookies to the programs the endpoint shows the owner, unless
// several listeners share it.
func TestListenQueue_WithoutCookies(t *testing.T) {
	for _, several := range []bool{false, true} {
		h := newHost(t, 500, Config{})
		s := h.listen(web, 16, tcp.Owner{})
		cookie := s.Cookie
		s.Cookie = 0
		h.observeListener(s, webServer, tcp.Close, tcp.Listen)
		if several {
			h.observeListener(s, process(100, "other"), tcp.Close, tcp.Listen)
		}
		s.Cookie = cookie
		h.serve(s, time.Minute, 4, nil)
		if a := h.theOnly("listen_queue_full"); a.Culprit.Known == several {
			t.Errorf("several %v: %+v", several, a.Culprit)
		}
	}
}

// A table that was read before the newest one changes nothing, whenever it comes: the drops of a listener do not fall.
func TestListenQueue_OlderTable(t *testing.T) {
	h := newHost(t, 500, Config{})
	for range 60 {
		h.pass(time.Second)
		for _, ago := range []time.Duration{0, 3 * time.Second} {
			h.engine.UpdateListeners(h.now, testNetns+1, overflowing(h.now-ago))
		}
	}
	opened := only(h.alerts, "listen_queue_full", Open)
	if len(opened) != 1 || opened[0].Drops > 60 || opened[0].Rate > 2 {
		t.Errorf("one segment is dropped each second: %+v", opened)
	}
}
