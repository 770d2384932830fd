package detect

import (
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sort"
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

const testNetns = 4026532200

// host simulates a kernel for an Engine, on a virtual clock: it opens and closes
// connections, keeps TIME_WAITs for 60 to 62 seconds, and runs out of ports.
type host struct {
	t      testing.TB
	engine *Engine
	now    time.Duration
	limits tcp.Limits
	random *rand.Rand

	ends   map[destination][]timewait // by the time of their end
	open   map[destination]int
	ticked time.Duration

	alerts  []Alert
	inspect func(a Alert)         // nil, or called at the time of each alert
	openFor map[destination]Alert // about the local ports for a destination: the last phase
	failed  time.Duration         // when the first connect() found no port; 0: none did
	cookie  uint64

	waits     []time.Duration // when each half-closed connection to port 80 began to wait
	uncounted bool            // the kernel has no count of TIME_WAITs

	closeWait  map[uint64]tcp.CloseWaitSocket // by cookie
	unreadable bool                           // the kernel's table, except its counts
	missing    bool                           // the namespace: nothing of it can be read
	loses      bool                           // what happens is lost, and the loss is noticed
	lossShare  float64                        // the part of what happens that is lost
	lostTimes  []time.Duration                // when it was lost

	attached []tcp.Socket  // in FIN_WAIT2, and a process has them
	untimed  bool          // the peers have no timestamps
	finAfter time.Duration // how long the peers take to close

	listening listening

	answersAfter time.Duration // how long a count of suspects takes to come
	answers      []lateAnswer
	counted      int // counts of suspects that were requested

	late    bool // transitions do not reach the engine until deliver is called
	delayed []tcp.Transition
}

// lateAnswer is a count of suspects on its way to the engine.
type lateAnswer struct {
	at     time.Duration
	counts *SuspectCounts
}

// timewait is a timewait socket of the simulated kernel.
type timewait struct {
	created time.Duration
	finAt   time.Duration // it is in FIN_WAIT2 until then
	end     time.Duration
}

func newHost(t testing.TB, ports int, c Config) *host {
	h := &host{
		t: t, engine: New(c, time.Hour), now: time.Hour, random: rand.New(rand.NewPCG(1, 2)),
		openFor: make(map[destination]Alert), ends: make(map[destination][]timewait), open: make(map[destination]int), closeWait: make(map[uint64]tcp.CloseWaitSocket),
		limits: tcp.Limits{
			PortLow: 20000, PortHigh: uint16(20000 + ports - 1), Reuse: 2, ReuseDelay: time.Second, Timestamps: true,
			FinTimeout: time.Minute, MaxTimeWaits: 1 << 17,
		},
	}
	h.ticked = h.now
	h.engine.SeedingDone(h.now)
	return h
}

// pass advances the clock, with a tick every 40 ms.
func (h *host) pass(d time.Duration) {
	for end := h.now + d; h.now < end; {
		h.passAnswers()
		next := min(end, h.ticked+40*time.Millisecond)
		h.now = next
		if next < h.ticked+40*time.Millisecond {
			return
		}
		h.ticked = h.now
		for _, a := range h.engine.Tick(h.now) {
			h.take(a)
			if h.inspect != nil {
				h.inspect(a)
			}
		}
		for _, want := range h.engine.Requests(h.now) {
			l := h.limits
			l.TimeWaits = h.timeWaits(want.Netns)
			if h.uncounted {
				l.TimeWaits = -1
			}
			h.answerListeners(want)
			if want.OnlyListeners {
				continue
			}
			if h.missing {
				h.engine.Update(h.now, want.Netns, nil)
				continue
			}
			h.engine.Update(h.now, want.Netns, &l)
			if want.HalfClosed {
				h.answerHalfClosed(want.Netns)
			}
			if want.OpenRequestedAt > 0 && !h.unreadable {
				h.engine.UpdateOpen(h.now, want.OpenRequestedAt, want.Netns, h.openSockets())
			}
			if want.Suspects != nil && !h.unreadable {
				h.answerSuspects(want)
			}
			if want.CloseWait && !h.unreadable {
				h.engine.UpdateCloseWait(h.now, h.now, want.Netns, slices.Collect(maps.Values(h.closeWait)))
			}
		}
	}
}

// answerSuspects counts the sockets of the suspects now, for a later answer.
func (h *host) answerSuspects(want Request) {
	h.counted++
	l := h.limits
	counts := want.Suspects.NewCounts(h.now, &l)
	for _, x := range want.Suspects.list {
		key := x.key
		port := h.limits.PortLow
		add := func(s tcp.Socket) {
			for !l.IsEphemeral(port) {
				port++
			}
			s.Local, s.Peer = tcp.Endpoint{Addr: key.local, Port: port}, tcp.Endpoint{Addr: key.peer, Port: key.peerPort}
			counts.Add(want.Netns, &s)
			port++
		}
		for range h.open[key] {
			add(tcp.Socket{Transition: tcp.Transition{New: tcp.Established}})
		}
		waiting := h.waiting(key)
		if h.reuses(key) { // connect() has taken over the oldest that it could
			waiting = waiting[max(0, len(waiting)+h.open[key]-h.limits.PortCount()):]
		}
		for _, w := range waiting {
			s := tcp.Socket{ExpiresIn: w.finAt + time.Minute - h.now, Transition: tcp.Transition{New: tcp.TimeWait, Substate: tcp.TimeWait}}
			if h.now < w.finAt {
				s.Substate, s.ExpiresIn = tcp.FinWait2, w.end-h.now
			}
			add(s)
		}
	}
	h.answers = append(h.answers, lateAnswer{h.now + h.answersAfter, counts})
	h.passAnswers()
}

func (h *host) passAnswers() {
	for len(h.answers) > 0 && h.answers[0].at <= h.now {
		h.engine.UpdateSuspects(h.now, h.answers[0].counts)
		h.answers = h.answers[1:]
	}
}

func (h *host) openSockets() *OpenSockets {
	var o OpenSockets
	for key, count := range h.open {
		for range count {
			s := tcp.Socket{}
			s.New = tcp.Established
			s.Local, s.Peer = tcp.Endpoint{Addr: key.local, Port: 20001}, tcp.Endpoint{Addr: key.peer, Port: key.peerPort}
			o.Add(key.netns, &s, &h.limits)
		}
	}
	return &o
}

func (h *host) timeWaits(netns uint32) (count int) {
	for key := range h.ends {
		if key.netns == netns {
			count += len(h.waiting(key))
		}
	}
	return count
}

// waiting gives the TIME_WAITs, and drops those that are over.
func (h *host) waiting(key destination) []timewait {
	ends := h.ends[key]
	for len(ends) > 0 && ends[0].end <= h.now {
		ends = ends[1:]
	}
	h.ends[key] = ends
	return ends
}

// take keeps an alert, and checks what is true of all: no two are open about the ports for one
// destination, failures never fall within one, and more is never taken than there is.
func (h *host) take(a Alert) {
	h.t.Helper()
	h.alerts = append(h.alerts, a)
	if a.Kind != timeWaitStorm && a.Kind != "port_exhaustion" || a.CapacityKind == TimeWaitBuckets {
		return
	}
	key := destination{netns: a.Netns, local: a.Local.Addr, peer: a.Peer.Addr, peerPort: a.Peer.Port}
	before, isOpen := h.openFor[key]
	switch {
	case isOpen != (a.Phase != Open) || isOpen && before.ID != a.ID:
		h.t.Errorf("after %v, %s of %s %s comes after %s of %s %s", a.Monotonic-time.Hour, a.Phase, a.Kind, a.ID, before.Phase, before.Kind, before.ID)
	case a.Failures < before.Failures:
		h.t.Errorf("after %v, %s of %s %s: %d failures after %d", a.Monotonic-time.Hour, a.Phase, a.Kind, a.ID, a.Failures, before.Failures)
	case a.CapacityKind != "" && a.Occupancy > a.Capacity:
		h.t.Errorf("after %v, %s of %s %s: %d of %d", a.Monotonic-time.Hour, a.Phase, a.Kind, a.ID, a.Occupancy, a.Capacity)
	}
	if h.openFor[key] = a; a.Phase == Close {
		delete(h.openFor, key)
	}
}

func (h *host) finish() []Alert {
	for _, a := range h.engine.Finish(h.now) {
		h.take(a)
	}
	return h.alerts
}

var (
	here  = netip.MustParseAddr("10.9.0.1")
	there = netip.MustParseAddr("10.9.0.2")
)

func to(port uint16) destination {
	return destination{netns: testNetns, local: here, peer: there, peerPort: port}
}

func process(pid uint32, name string) tcp.Owner {
	o := tcp.Owner{PID: pid, Source: tcp.PIDTask}
	copy(o.Comm[:], name)
	return o
}

func (h *host) emit(key destination, port uint16, by tcp.Owner, old, next tcp.State) {
	t := tcp.Transition{
		Monotonic: h.now, Netns: key.netns, Cookie: h.cookie, Owner: by, Role: tcp.RoleClient, Old: old, New: next,
		Local: tcp.Endpoint{Addr: key.local, Port: port}, Peer: tcp.Endpoint{Addr: key.peer, Port: key.peerPort},
	}
	if next == tcp.TimeWait {
		t.Substate, t.PeerTimestamp = tcp.TimeWait, !h.untimed
		if h.finAfter > 0 {
			t.Substate = tcp.FinWait2
		}
	}
	if next == tcp.Close && port == 0 {
		t.Locked, t.NoPort = true, true
	}
	if h.loses || h.lossShare > 0 && h.random.Float64() < h.lossShare {
		h.engine.AddLost(h.now, 1)
		h.lostTimes = append(h.lostTimes, h.now)
		return
	}
	if h.late {
		h.delayed = append(h.delayed, t)
		return
	}
	h.engine.Observe(&t)
}

// deliver passes on the transitions that are late.
func (h *host) deliver() {
	h.late = false
	for i := range h.delayed {
		h.engine.Observe(&h.delayed[i])
	}
	h.delayed = nil
}

// connect reports whether there was a free port.
func (h *host) connect(key destination, by tcp.Owner) bool {
	h.cookie++
	h.emit(key, 0, by, tcp.Close, tcp.SynSent)
	taken := h.open[key] + len(h.waiting(key))
	if h.reuses(key) {
		taken = h.open[key] + h.young(key)
	}
	if taken >= h.limits.PortCount() {
		h.emit(key, 0, by, tcp.SynSent, tcp.Close)
		if h.failed == 0 {
			h.failed = h.now
		}
		return false
	}
	h.open[key]++
	return true
}

func (h *host) reuses(key destination) bool { return h.limits.AllowsReuse(key.local, key.peer) }

// young counts the TIME_WAITs that connect() would not take over yet. Each gets its peer's FIN
// later than those before it.
func (h *host) young(key destination) int {
	waits := h.waiting(key)
	if h.untimed {
		return len(waits)
	}
	reusable := sort.Search(len(waits), func(i int) bool {
		if w := waits[i]; h.limits.ReusesFinWait2 && h.now < w.finAt {
			return h.now < w.created+h.limits.ReuseDelay
		}
		return h.now < waits[i].finAt+h.limits.ReuseDelay
	})
	return len(waits) - reusable
}

func (h *host) close(key destination, by tcp.Owner, first bool) {
	h.open[key]--
	port := h.limits.PortLow
	if !first {
		h.emit(key, port, by, tcp.CloseWait, tcp.LastAck)
		return
	}
	h.emit(key, port, by, tcp.FinWait2, tcp.TimeWait)
	end := h.now + time.Minute + time.Duration(h.random.Int64N(int64(2*time.Second)))
	h.ends[key] = append(h.ends[key], timewait{created: h.now, finAt: h.now + h.finAfter, end: end})
}

// load is short connections at a rate that may change over time. bursts is how many
// come at once; with chance the time between them is exponentially distributed.
type load struct {
	key     destination
	by      []tcp.Owner
	rate    func(since time.Duration) float64
	bursts  int
	chance  bool
	peer    bool          // the peer closes first
	lasting time.Duration // of each connection
}

func constant(rate float64) func(time.Duration) float64 {
	return func(time.Duration) float64 { return rate }
}

// leaving is a connection that is to be closed at a time.
type leaving struct {
	at  time.Duration
	key destination
	by  tcp.Owner
}

// run applies a load for a time, or, with untilFailed, until a connect() fails.
func (h *host) run(w load, d time.Duration, untilFailed bool) {
	began := h.now
	var pending []leaving
	for n := 0; h.now-began < d && (!untilFailed || h.failed == 0); n++ {
		rate := w.rate(h.now - began)
		if rate <= 0 {
			h.pass(40 * time.Millisecond)
			continue
		}
		wait := float64(max(1, w.bursts)) / rate
		if w.chance {
			wait *= h.random.ExpFloat64()
		}
		h.pass(min(time.Duration(wait*float64(time.Second)), d))
		by := w.by[n%len(w.by)]
		for range max(1, w.bursts) {
			if h.connect(w.key, by) {
				pending = append(pending, leaving{h.now + w.lasting, w.key, by})
			}
		}
		for len(pending) > 0 && pending[0].at <= h.now {
			h.close(pending[0].key, pending[0].by, !w.peer)
			pending = pending[1:]
		}
	}
}

// only gives the alerts of one kind and phase.
func only(alerts []Alert, kind string, phase Phase) (found []Alert) {
	for _, a := range alerts {
		if a.Kind == kind && a.Phase == phase {
			found = append(found, a)
		}
	}
	return found
}

func (h *host) answerHalfClosed(netns uint32) {
	var sockets []tcp.Socket
	for _, since := range h.waits {
		if left := h.limits.FinTimeout - (h.now - since); left > 0 {
			s := tcp.Socket{ExpiresIn: left}
			s.New, s.Substate, s.Cookie, s.NoProcess = tcp.TimeWait, tcp.FinWait2, uint64(since), true
			s.Local, s.Peer = tcp.Endpoint{Addr: here, Port: 20001}, tcp.Endpoint{Addr: there, Port: 80}
			sockets = append(sockets, s)
		}
	}
	for key := range h.ends {
		for _, w := range h.waiting(key) {
			if key.netns == netns && h.now < w.finAt {
				s := tcp.Socket{ExpiresIn: w.end - h.now}
				s.New, s.Substate, s.Cookie, s.NoProcess = tcp.TimeWait, tcp.FinWait2, uint64(w.end), true
				s.Local, s.Peer = tcp.Endpoint{Addr: key.local, Port: 20001}, tcp.Endpoint{Addr: key.peer, Port: key.peerPort}
				sockets = append(sockets, s)
			}
		}
	}
	h.engine.UpdateHalfClosed(h.now, h.now, netns, append(sockets, h.attached...))
}
