package detect

import (
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// seedOpen is a socket that the kernel's table has: an open connection to port 80.
func seedOpen(cookie uint64) *tcp.Socket {
	s := &tcp.Socket{}
	s.New, s.Cookie = tcp.Established, cookie
	s.Local, s.Peer = tcp.Endpoint{Addr: here, Port: 20001}, tcp.Endpoint{Addr: there, Port: 80}
	return s
}

// newSeededHost is a host whose sockets are being read.
func newSeededHost(t *testing.T) *host {
	h := newHost(t, 100, Config{})
	h.engine = New(Config{}, h.now)
	return h
}

func openPorts(e *Engine) int64 {
	key := to(80)
	if found := e.tracker.destinations.Find(key, key.hash()); found != nil {
		return found.Value.OpenCount()
	}
	return 0
}

// A socket that is read from the kernel's table counts once: not if its connect() was
// observed, and not if its end was observed before the engine gets the socket.
func TestSeed_CountsNoSocketTwiceNorAfterItsEnd(t *testing.T) {
	for _, cookies := range []bool{true, false} {
		h := newSeededHost(t)
		l := h.limits
		h.engine.Update(h.now, testNetns, &l)
		number := func(n uint64) uint64 {
			if cookies {
				return n
			}
			return 0
		}
		transition := func(cookie uint64, old, next tcp.State, port uint16) {
			h.cookie = number(cookie)
			h.emit(to(80), port, curl, old, next)
		}
		transition(1, tcp.Close, tcp.SynSent, 0)         // opened, and stays open
		transition(2, tcp.CloseWait, tcp.LastAck, 20002) // older than the tracer, and ended
		transition(3, tcp.Close, tcp.SynSent, 0)         // opened and ended
		transition(3, tcp.CloseWait, tcp.LastAck, 20003)
		for cookie := range uint64(4) {
			h.engine.Seed(h.now, testNetns, seedOpen(cookie+1))
		}
		want := int64(2) // the first, and the fourth, which only the table has
		if !cookies {
			want = 0 // no end can be connected with its connect(), so too few count, never too many
		}
		if got := openPorts(h.engine); got != want {
			t.Errorf("cookies %v: %d open connections, want %d", cookies, got, want)
		}
	}
}

// Where more sockets were observed than the engine remembers, it takes none from the table.
func TestSeed_ManyConnectsMeanwhile(t *testing.T) {
	t.Parallel()
	h := newSeededHost(t)
	l := h.limits
	h.engine.Update(h.now, testNetns, &l)
	for n := range maxSeedObserved + 1 {
		h.cookie = uint64(n + 1)
		h.emit(to(81), 0, curl, tcp.Close, tcp.SynSent)
		h.emit(to(81), 20001, curl, tcp.CloseWait, tcp.LastAck)
	}
	h.engine.Seed(h.now, testNetns, seedOpen(1<<40))
	if got := openPorts(h.engine); got != 0 {
		t.Errorf("%d open connections, want 0", got)
	}
	h.engine.SeedingDone(h.now)
	h.pass(time.Second)
}

// A socket whose end was observed before the engine gets it from the kernel's table does not
// count: neither in CLOSE_WAIT nor in FIN_WAIT2, neither of a client nor of a server.
func TestSeed_EndedMeanwhile(t *testing.T) {
	for name, old := range map[string]tcp.State{"CLOSE_WAIT": tcp.CloseWait, "FIN_WAIT2": tcp.FinWait2} {
		for role, change := range map[string]func(*tcp.Transition){"client": func(*tcp.Transition) {}, "server": served} {
			t.Run(name+" of a "+role, func(t *testing.T) {
				h := newSeededHost(t)
				l := h.limits
				l.Bound = tcp.PortSetOf(80)
				h.engine.Update(h.now, testNetns, &l)
				for cookie := range uint64(2) {
					s := seedOpen(cookie + 1)
					s.New = old
					change(&s.Transition)
					if cookie == 0 {
						h.event(cookie+1, to(80), curl, old, tcp.Close, change)
					}
					h.engine.Seed(h.now, testNetns, s)
				}
				h.engine.SeedingDone(h.now)
				count := 0
				for _, d := range h.engine.detectors {
					switch d := d.(type) {
					case *closeWaitLeak:
						count += len(d.waiting)
					case *finWait2Pileup:
						count += len(d.attached.sockets)
					}
				}
				if count != 1 {
					t.Errorf("%d sockets count, want one: the other one has ended", count)
				}
			})
		}
	}
}

// The hooks are attached some time before the engine is made. A TIME_WAIT of that time counts
// once: its transition is observed, and the kernel's table has it.
func TestSeed_TimeWaitBeforeNew(t *testing.T) {
	h := newSeededHost(t)
	l := h.limits
	h.engine.Update(h.now, testNetns, &l)
	created := h.now - 300*time.Millisecond
	h.event(1, to(80), curl, tcp.FinWait2, tcp.TimeWait, func(t *tcp.Transition) { t.Monotonic, t.Substate = created, tcp.TimeWait })
	for _, at := range []time.Duration{created, h.now - 10*time.Second} {
		s := &tcp.Socket{ExpiresIn: tcp.TimeWaitTimeout - (h.now + time.Second - at)}
		s.New, s.Substate = tcp.TimeWait, tcp.TimeWait
		s.Local, s.Peer = tcp.Endpoint{Addr: here, Port: 20001}, tcp.Endpoint{Addr: there, Port: 80}
		h.engine.Seed(h.now+time.Second, testNetns, s)
	}
	if count, _ := h.use(to(80)).RecordedTimeWaits(); count != 2 {
		t.Errorf("%d TIME_WAITs, want one that was observed and one that is older", count)
	}
}

// The TIME_WAITs of before the start are in the kernel's count, which comes first: they count
// once for tcp_max_tw_buckets.
func TestSeed_BucketsCountOnce(t *testing.T) {
	h := newSeededHost(t)
	l := h.limits
	l.PortHigh, l.MaxTimeWaits, l.TimeWaits = l.PortLow+499, 150, 100
	h.engine.Update(h.now, testNetns, &l)
	for n := range uint64(100) {
		s := seedOpen(n + 1)
		s.New, s.Substate, s.ExpiresIn = tcp.TimeWait, tcp.TimeWait, 30*time.Second
		h.engine.Seed(h.now, testNetns, s)
	}
	h.engine.SeedingDone(h.now)
	ns := h.engine.tracker.ensureNamespace(testNetns)
	if got := ns.notReusable.Occupancy(ns.modelOfAll(h.now)); got != 100 {
		t.Errorf("%.0f TIME_WAITs, want 100", got)
	}
	if alerts := h.engine.Tick(h.now); len(alerts) > 0 {
		t.Errorf("%v", summaries(alerts))
	}
}

// restart makes a new engine, and passes the timewait sockets of a destination to it.
func (h *host) restart(key destination) {
	h.finish()
	h.alerts, h.openFor = nil, make(map[destination]Alert)
	h.engine = New(Config{}, h.now)
	l := h.limits
	l.TimeWaits = h.timeWaits(testNetns)
	h.engine.Update(h.now, testNetns, &l)
	for _, w := range h.waiting(key) {
		s := seedOpen(0)
		s.New, s.Substate, s.ExpiresIn = tcp.TimeWait, tcp.TimeWait, tcp.TimeWaitTimeout-(h.now-w.created)
		s.Peer.Port = key.peerPort
		h.engine.Seed(h.now, testNetns, s)
	}
	h.engine.SeedingDone(h.now)
}

// A load that opens many connections at once, and stays below the capacity, raises nothing after a start: the first
// events of the engine are one burst, and the older TIME_WAITs show how often one comes.
func TestSeed_BurstsAfterStart(t *testing.T) {
	t.Parallel()
	for _, bursts := range []int{5, 20, 50} {
		for first := 20 * time.Millisecond; first < 3*time.Second; first += 70 * time.Millisecond {
			h := newHost(t, 500, Config{})
			h.limits.Reuse = 0
			perSecond := 0.8 * 500 / 61
			w := load{key: to(80), by: []tcp.Owner{curl}, rate: constant(perSecond), bursts: bursts}
			h.run(w, 100*time.Second, false)
			h.pass(max(0, time.Duration(float64(bursts)/perSecond*float64(time.Second))-first))
			h.restart(to(80))
			w.rate = func(since time.Duration) float64 {
				if since == 0 {
					return float64(bursts) / first.Seconds()
				}
				return perSecond
			}
			h.run(w, 30*time.Second, false)
			for _, a := range h.alerts {
				t.Errorf("%d at once, first %v after the start: %s %s after %v: %s (%d of %d, rate %.1f)", bursts, first, a.Phase, a.Kind,
					a.Monotonic-h.engine.tracker.seeding.began, a.Cause, a.Occupancy, a.Capacity, a.Rate)
			}
			if h.failed > 0 {
				t.Fatal("the load itself exhausts the ports")
			}
		}
	}
}
