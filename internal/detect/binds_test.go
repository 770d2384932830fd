package detect

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// bindAndConnect opens a connection from a port that the process has bound.
func (h *host) bindAndConnect(key destination, port uint16, by tcp.Owner) {
	h.emit(key, port, by, tcp.Close, tcp.SynSent)
}

// Ports that were bound before connect() are taken for every destination, until the last
// connection and TIME_WAIT on them is gone. The alert names their process.
func TestPortExhaustion_PortsBoundByAnotherProcess(t *testing.T) {
	v4 := destination{netns: testNetns, local: here, peer: there, peerPort: 80}
	v6 := destination{netns: testNetns, local: netip.MustParseAddr("2001:db8::1"), peer: netip.MustParseAddr("2001:db8::2"), peerPort: 80}
	for name, bound := range map[string]destination{"IPv4": v4, "IPv6": v6} {
		h := newHost(t, 20, Config{})
		holder := process(100, "holder")
		for port := range uint16(20) {
			h.bindAndConnect(bound, 20000+port, holder)
		}
		h.pass(2 * time.Second)
		h.limits.Bound = tcp.PortSetOf(20000, 20001) // the kernel's list may or may not have some of them
		h.pass(2 * time.Second)
		fail := func() Alert {
			h.emit(to(9000), 0, curl, tcp.Close, tcp.SynSent)
			h.emit(to(9000), 0, curl, tcp.SynSent, tcp.Close)
			h.pass(100 * time.Millisecond)
			opened := only(h.alerts, "port_exhaustion", Open)
			if len(opened) == 0 {
				t.Fatalf("%s: no alert", name)
			}
			return opened[len(opened)-1]
		}
		if a := fail(); a.Occupancy != a.Capacity || a.Capacity == 0 ||
			!strings.Contains(a.Cause, "most of them by holder") && a.Culprit.Service != "holder" {
			t.Errorf("%s: %d of %d: %s", name, a.Occupancy, a.Capacity, a.Cause)
		}
		h.limits.Bound = nil
		for port := range uint16(20) {
			h.emit(bound, 20000+port, holder, tcp.FinWait2, tcp.TimeWait)
		}
		h.pass(30 * time.Second)
		if ns := h.engine.tracker.ensureNamespace(testNetns); ns.bindCount != 20 {
			t.Errorf("%s: %d ports are bound, want 20 by their TIME_WAITs", name, ns.bindCount)
		}
		h.pass(35 * time.Second)
		if ns := h.engine.tracker.ensureNamespace(testNetns); ns.bindCount != 0 || len(ns.binds) != 0 || h.engine.tracker.binds.total != 0 {
			t.Errorf("%s: %d ports are bound, want 0", name, ns.bindCount)
		}
	}
}

// connect() takes over no TIME_WAIT on a port that was bound, whatever tcp_tw_reuse is; and it
// has chosen the port of a connection that ends while no bound one is open.
func TestPorts_BoundAreNotTakenOver(t *testing.T) {
	h := newHost(t, 100, Config{})
	h.limits.Reuse, h.unreadable, h.uncounted = 1, true, true // this host does not have these sockets
	h.pass(time.Second)
	for port := range uint16(40) {
		h.connect(to(80), curl) // which the engine needs to know the namespace
		h.close(to(80), curl, false)
		h.bindAndConnect(to(80), 20000+port, curl)
		h.emit(to(80), 20000+port, curl, tcp.FinWait2, tcp.TimeWait)
	}
	h.pass(5 * time.Second)
	if got := h.occupancy(to(80)); got != 40 {
		t.Errorf("%.0f ports are taken, want 40", got)
	}
	for range 10 { // now the kernel finds these ports free again
		h.pass(10 * time.Second)
		for port := range uint16(40) {
			h.connect(to(80), curl)
			h.emit(to(80), 20000+port, curl, tcp.FinWait2, tcp.TimeWait)
			h.open[to(80)]--
		}
	}
	h.pass(2 * time.Second)
	if got := len(h.engine.tracker.ensureNamespace(testNetns).binds); got != 0 {
		t.Errorf("%d ports count as bound, want 0", got)
	}
}

// A port counts at the end of a connection as it counted at the start, whatever listens or
// is bound meanwhile.
func TestPorts_BoundMeanwhile(t *testing.T) {
	h := newHost(t, 100, Config{})
	h.pass(time.Second)
	bound := &tcp.PortSet{}
	for port := range uint16(30) {
		h.bindAndConnect(to(80), 20000+port, curl)
		h.emit(to(80), 0, curl, tcp.Close, tcp.SynSent)
		bound.Add(20000 + port)
		bound.Add(20050 + port)
		h.limits.Bound = bound
		h.pass(2 * time.Second)
		h.emit(to(80), 20000+port, curl, tcp.CloseWait, tcp.LastAck)
		h.emit(to(80), 20050+port, curl, tcp.CloseWait, tcp.LastAck)
	}
	if got := openPorts(h.engine); got != 0 {
		t.Errorf("%d connections are open, want 0", got)
	}
}

// The ports of sockets with IP_LOCAL_PORT_RANGE are not those of the sysctl: the alert names
// no capacity, and gives the advice for them.
func TestPortExhaustion_OwnPortRange(t *testing.T) {
	h := newHost(t, 5000, Config{})
	h.pass(time.Second)
	own := func(old, next tcp.State, noPort bool) {
		transition := tcp.Transition{
			Monotonic: h.now, Netns: testNetns, Owner: curl, Role: tcp.RoleClient, Old: old, New: next, OwnPortRange: true,
			Local: tcp.Endpoint{Addr: here}, Peer: tcp.Endpoint{Addr: there, Port: 80}, NoPort: noPort, Locked: noPort,
		}
		if next == tcp.TimeWait {
			transition.Local.Port, transition.Substate = 20001, tcp.TimeWait
		}
		h.engine.Observe(&transition)
	}
	for range 100 {
		own(tcp.Close, tcp.SynSent, false)
		own(tcp.FinWait2, tcp.TimeWait, false)
		h.pass(50 * time.Millisecond)
	}
	own(tcp.Close, tcp.SynSent, false)
	own(tcp.SynSent, tcp.Close, true)
	h.pass(time.Second)
	opened := only(h.alerts, "port_exhaustion", Open)
	if len(opened) != 1 {
		t.Fatalf("%d alerts, want 1", len(opened))
	}
	if a := opened[0]; a.Capacity != 0 || a.Occupancy != 100 || strings.Contains(a.Advice, "ip_local_port_range") ||
		!strings.Contains(a.Advice, "IP_LOCAL_PORT_RANGE") {
		t.Errorf("%d of %d: %s; %s", a.Occupancy, a.Capacity, a.Cause, a.Advice)
	}
}

// What connect() has just failed to find is not there, whatever the model counts; and never
// is more occupied than there is.
func TestPorts_OccupancyWithinCapacity(t *testing.T) {
	h := newHost(t, 200, Config{})
	h.run(load{key: to(80), by: []tcp.Owner{curl}, rate: constant(20)}, 30*time.Second, true)
	h.limits.PortHigh -= 100
	h.pass(3 * time.Second)
	h.emit(to(80), 0, curl, tcp.Close, tcp.SynSent)
	h.emit(to(80), 0, curl, tcp.SynSent, tcp.Close)
	h.pass(12 * time.Second)
	for _, a := range h.finish() {
		if a.Occupancy > a.Capacity {
			t.Errorf("%s %s: %d of %d", a.Kind, a.Phase, a.Occupancy, a.Capacity)
		}
		if a.Kind == "port_exhaustion" && a.Phase == Open && a.Occupancy != a.Capacity {
			t.Errorf("%d of %d when connect() has failed", a.Occupancy, a.Capacity)
		}
	}
}

// The capacity is that of the ports, whether or not tcp_max_tw_buckets is lower, and whatever
// few ports are bound.
func TestPortExhaustion_FewTimeWaitBuckets(t *testing.T) {
	h := newHost(t, 200, Config{})
	h.limits.MaxTimeWaits = 100
	h.bindAndConnect(to(9000), 20000, process(100, "holder"))
	for range 199 {
		h.connect(to(80), curl) // and they stay open
	}
	h.pass(2 * time.Second)
	h.emit(to(80), 0, curl, tcp.Close, tcp.SynSent)
	h.emit(to(80), 0, curl, tcp.SynSent, tcp.Close)
	h.pass(100 * time.Millisecond)
	if a := h.theOnly("port_exhaustion"); a.Capacity != 199 || a.Occupancy != 199 {
		t.Errorf("%d of %d, want 199 of 199", a.Occupancy, a.Capacity)
	}
}

// fails has a connect() find no port, and returns the alert.
func (h *host) fails(key destination) Alert {
	h.t.Helper()
	h.emit(key, 0, curl, tcp.Close, tcp.SynSent)
	h.emit(key, 0, curl, tcp.SynSent, tcp.Close)
	h.pass(100 * time.Millisecond)
	opened := only(h.alerts, "port_exhaustion", Open)
	if len(opened) == 0 {
		h.t.Fatal("no alert")
	}
	return opened[len(opened)-1]
}

// Ports that bind() took before the tracer started, and those of the children of listeners that
// have closed, are free for no destination. They count until the kernel's list does not have
// them any more, each of them once, and not at the destination of their connections.
func TestPorts_BoundBeforeStart(t *testing.T) {
	h := newHost(t, 20, Config{})
	h.engine = New(Config{}, h.now)
	h.limits.BindBuckets, h.limits.BoundReadAt = tcp.PortSetOf(80, 20000, 20001, 20002, 20003, 20004, 20005), h.now
	h.limits.Bound = tcp.PortSetOf(80, 20005) // listeners
	l := h.limits
	h.engine.Update(h.now, testNetns, &l)
	for n := range uint16(10) { // four of them bound
		s := tcp.Socket{}
		s.New, s.Cookie = tcp.Established, uint64(1000+n)
		s.Local, s.Peer = tcp.Endpoint{Addr: here, Port: 20001 + n}, tcp.Endpoint{Addr: there, Port: 80}
		h.engine.Seed(h.now, testNetns, &s)
	}
	h.engine.SeedingDone(h.now)
	if got := openPorts(h.engine); got != 5 {
		t.Errorf("%d connections count at their destination, want the 5 whose ports connect() chose", got)
	}
	h.pass(2 * time.Second)
	if a := h.fails(to(9000)); a.Capacity != 14 || a.Occupancy != 14 || !strings.Contains(a.Cause, "5 ports are taken for all destinations") ||
		!strings.Contains(a.Cause, "(5 by sockets that are older") || strings.Contains(a.Cause, "most of them by") {
		t.Errorf("%d of %d: %s", a.Occupancy, a.Capacity, a.Cause)
	}
	older := tcp.Transition{Monotonic: h.now, Netns: testNetns, Cookie: 1000, Old: tcp.CloseWait, New: tcp.LastAck,
		Local: tcp.Endpoint{Addr: here, Port: 20001}, Peer: tcp.Endpoint{Addr: there, Port: 80}}
	h.engine.Observe(&older)
	if got := openPorts(h.engine); got != 5 {
		t.Errorf("a bound connection has ended, and %d others count, want 5", got)
	}
	h.limits.BindBuckets, h.limits.BoundReadAt = tcp.PortSetOf(80, 20000, 20005), h.now
	h.pass(25 * time.Second)
	if a := h.fails(to(9000)); a.Capacity != 18 {
		t.Errorf("%d of %d: %s", a.Occupancy, a.Capacity, a.Cause)
	}
}

// A port that the kernel's list has before its transition is observed counts once. One whose end
// was lost is free again when the list does not have it.
func TestPorts_ListAndTransitions(t *testing.T) {
	h := newHost(t, 20, Config{})
	h.limits.BindBuckets, h.limits.BoundReadAt = tcp.PortSetOf(20000, 20001), h.now
	h.pass(2 * time.Second)
	holder := process(100, "holder")
	h.bindAndConnect(to(80), 20000, holder)
	h.bindAndConnect(to(80), 20001, holder)
	h.bindAndConnect(to(80), 20002, holder)
	h.pass(2 * time.Second)
	ns := h.engine.tracker.ensureNamespace(testNetns)
	if ns.bindCount != 3 || ns.bindsOther != 0 {
		t.Errorf("%d ports are bound, %d of them unobserved, want 3 and 0", ns.bindCount, ns.bindsOther)
	}
	h.limits.BindBuckets, h.limits.BoundReadAt = tcp.PortSetOf(20002), h.now
	h.run(load{key: to(81), by: []tcp.Owner{curl}, rate: constant(1), peer: true}, 15*time.Second, false)
	if ns.bindCount != 1 || len(ns.binds) != 1 {
		t.Errorf("%d ports are bound, want 1", ns.bindCount)
	}
}

// Connections with their own range that are older than the tracer are counted with those without
// one, because the kernel's table does not show it, and taken off there.
func TestPorts_OlderOwnRangeEnds(t *testing.T) {
	h := newHost(t, 500, Config{})
	h.engine = New(Config{}, h.now)
	l := h.limits
	h.engine.Update(h.now, testNetns, &l)
	for n := range uint16(100) {
		s := tcp.Socket{}
		s.New, s.Cookie = tcp.Established, uint64(1000+n)
		s.Local, s.Peer = tcp.Endpoint{Addr: here, Port: 20001 + n}, tcp.Endpoint{Addr: there, Port: 80}
		h.engine.Seed(h.now, testNetns, &s)
	}
	h.engine.SeedingDone(h.now)
	for n := range uint16(100) {
		next := []tcp.State{tcp.LastAck, tcp.TimeWait}[n%2]
		h.engine.Observe(&tcp.Transition{
			Monotonic: h.now, Netns: testNetns, Cookie: uint64(1000 + n), Role: tcp.RoleClient, OwnPortRange: true,
			Old: tcp.CloseWait, New: next, Substate: tcp.TimeWait,
			Local: tcp.Endpoint{Addr: here, Port: 20001 + n}, Peer: tcp.Endpoint{Addr: there, Port: 80},
		})
	}
	if got := openPorts(h.engine); got != 0 {
		t.Errorf("%d connections are open, want 0", got)
	}
}

// Connections to many destinations that bind a port before connect() use up one pool of ports,
// and bind() is what fails. The alert comes before the last port is taken.
func TestBindExhaustion_ManyDestinations(t *testing.T) {
	const ports = 300
	h := newHost(t, ports, Config{})
	h.limits.BindBuckets, h.limits.BoundReadAt = &tcp.PortSet{}, h.now
	holder := process(100, "holder")
	var exhausted time.Duration
	for n := 0; n < 3000 && exhausted == 0; n++ {
		if n >= ports {
			exhausted = h.now // bind() fails, and nothing is observed
			break
		}
		port := uint16(20000 + n)
		key := to(uint16(1000 + n%50))
		h.bindAndConnect(key, port, holder)
		h.limits.BindBuckets.Add(port)
		h.emit(key, port, holder, tcp.FinWait2, tcp.TimeWait)
		h.limits.BoundReadAt = h.now
		h.pass(100 * time.Millisecond)
	}
	h.pass(2 * time.Second)
	a := h.theOnly("port_exhaustion")
	if a.Monotonic >= exhausted || a.Peer.Addr.IsValid() || a.Capacity != ports || a.Occupancy < ports/2 || a.Occupancy > ports*9/10 ||
		a.Culprit.PID != 100 || a.Unverified || a.OccupancySource != FromKernel {
		t.Errorf("%v before the last: %+v", exhausted-a.Monotonic, a)
	}
	if err := (exhausted - a.Monotonic - a.ExhaustionIn).Abs(); err > (exhausted-a.Monotonic)/10 {
		t.Errorf("forecast %v, it was %v", a.ExhaustionIn, exhausted-a.Monotonic)
	}
}

// bindOnly binds five ports a second, less one, without a transition. The kernel's list of them
// is read every ten seconds. A client that connects keeps the namespace in use.
func (h *host) bindOnly(ports uint16) {
	h.limits.Bound, h.limits.BindBuckets, h.limits.BoundPartial = &tcp.PortSet{}, &tcp.PortSet{}, true
	for n := range ports {
		if n%50 == 0 { // every ten seconds
			bound := &tcp.PortSet{}
			for port := range n {
				bound.Add(20000 + port)
			}
			h.limits.Bound, h.limits.BoundReadAt = bound, h.now
		}
		if n%10 == 0 {
			h.emit(to(80), 0, curl, tcp.Close, tcp.SynSent)
			h.emit(to(80), 20299, curl, tcp.CloseWait, tcp.LastAck)
		}
		h.pass(200 * time.Millisecond)
	}
}

// Sockets that are bound and never connected are known from the kernel's lists alone.
func TestBindExhaustion_NeverConnected(t *testing.T) {
	h := newHost(t, 300, Config{})
	h.bindOnly(300)
	if a := h.theOnly("port_exhaustion"); a.Culprit.Known || a.Capacity != 300 || a.Occupancy < 200 || a.Occupancy > 299 || !a.Approximate {
		t.Errorf("%+v", a)
	}
}

// bind() makes no transition: while all ports are bound, the alert stays open although nothing
// happens in the namespace.
func TestBindExhaustion_QuietNamespace(t *testing.T) {
	h := newHost(t, 300, Config{})
	h.bindOnly(301)
	h.theOnly("port_exhaustion")
	for range 30 {
		h.pass(10 * time.Second)
		h.limits.BoundReadAt = h.now
	}
	if closed := only(h.alerts, "port_exhaustion", Close); len(closed) > 0 {
		t.Errorf("all ports are bound, and the alert closes: %v", summaries(closed))
	}
}

// Bound ports that are many and do not grow in number raise no alert, nor does a load whose
// TIME_WAITs end in time.
func TestBindExhaustion_Stable(t *testing.T) {
	h := newHost(t, 300, Config{})
	bound := &tcp.PortSet{}
	for port := range uint16(285) {
		bound.Add(20000 + port)
	}
	h.limits.BindBuckets, h.limits.BoundReadAt = bound, h.now
	h.run(load{key: to(80), by: []tcp.Owner{curl}, rate: constant(1), peer: true}, time.Minute, false)
	h.mustBeSilent()

	h = newHost(t, 300, Config{})
	for n := range 1000 { // 4 a second for 61 s: 244 of 300
		port := uint16(20000 + n%300)
		h.bindAndConnect(to(uint16(1000+n%50)), port, curl)
		h.emit(to(uint16(1000+n%50)), port, curl, tcp.FinWait2, tcp.TimeWait)
		h.pass(250 * time.Millisecond)
	}
	h.mustBeSilent()
}

// Where all ports are bound, one alert has both: who has bound them, and the connects that fail.
func TestBindExhaustion_OneAlertWithFailures(t *testing.T) {
	for _, bindsFirst := range []bool{true, false} {
		h := newHost(t, 20, Config{})
		h.limits.BindBuckets, h.limits.BoundReadAt = &tcp.PortSet{}, h.now
		h.connect(to(81), curl)
		h.close(to(81), curl, false)
		h.pass(2 * time.Second) // the limits are known then
		binds := func() {
			for port := range uint16(20) {
				h.bindAndConnect(to(80+port%4), 20000+port, process(100, "holder"))
			}
		}
		connects := func() {
			h.emit(to(9000), 0, curl, tcp.Close, tcp.SynSent)
			h.emit(to(9000), 0, curl, tcp.SynSent, tcp.Close)
		}
		binds()
		if bindsFirst {
			h.pass(2 * time.Second)
		}
		for range 20 {
			connects()
			h.pass(time.Second)
		}
		a := h.theOnly("port_exhaustion")
		if !strings.Contains(a.Cause, "bound before connect()") || a.Capacity != 20 || a.Occupancy != 20 {
			t.Errorf("%+v", a)
		}
		updates := only(h.alerts, "port_exhaustion", Update)
		if len(updates) == 0 || updates[len(updates)-1].Failures < 10 || (a.Culprit.PID == 100) != bindsFirst {
			t.Errorf("binds first %v: %+v, %+v", bindsFirst, a, updates)
		}
	}
}

// While all ports are bound the occupancy is their number, also when no connect() has failed lately.
func TestPortExhaustion_AllBoundAndNoFailureLately(t *testing.T) {
	h := newHost(t, 20, Config{UpdateInterval: time.Second})
	h.pass(time.Second)
	for port := range uint16(20) {
		h.bindAndConnect(to(80), 20000+port, process(100, "holder"))
	}
	h.emit(to(9000), 0, curl, tcp.Close, tcp.SynSent)
	h.emit(to(9000), 0, curl, tcp.SynSent, tcp.Close)
	h.pass(8 * time.Second)
	updates := 0
	for _, a := range only(h.alerts, "port_exhaustion", Update) {
		if a.Peer.Port != 9000 {
			continue
		}
		updates++
		if a.Capacity != 20 || a.Occupancy != 20 || !a.Exhausts {
			t.Errorf("%d of %d, exhausted %v", a.Occupancy, a.Capacity, a.Exhausts)
		}
	}
	if updates < 5 {
		t.Errorf("there are %d updates", updates)
	}
}
