package detect

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// The uids of the range that a user has for his namespaces are in at most two quotas, and each
// user of the host in one of his own.
func TestUser_RangesShareAQuota(t *testing.T) {
	const subordinate = 1 << 16
	seen := make(map[uint32]bool)
	for uid := range uint32(subordinate) {
		seen[quotaOf(uid)] = true
	}
	if len(seen) != subordinate {
		t.Errorf("%d users of the host have %d quotas", subordinate, len(seen))
	}
	for _, first := range []uint32{100_000, 165_536, 524_288, 1<<32 - 1<<16} { // SUB_UID_MIN, the next, systemd-nspawn's
		quotas := make(map[uint32]bool)
		for uid := range uint32(1 << 16) {
			quotas[quotaOf(first+uid)] = true
		}
		if len(quotas) > 2 || quotas[unknownUser] || seen[quotaOf(first)] {
			t.Errorf("65536 uids from %d on have %d quotas", first, len(quotas))
		}
	}
}

// One user has half of a table, the next a quarter, and a further one still some. What is
// released can be taken again.
func TestUser_QuotaOfATable(t *testing.T) {
	q := newQuota(1024)
	fill := func(user uint32) (taken int) {
		for q.take(user) {
			taken++
		}
		return taken
	}
	for user, want := range []int{512, 256, 128, 64, 32, 16, 8} {
		if got := fill(uint32(user)); got != want {
			t.Errorf("user %d has taken %d, want %d", user, got, want)
		}
	}
	for range 512 {
		q.release(0)
	}
	if q.users[0] != 0 || fill(9) < 256 {
		t.Errorf("after the first user has left: %v", q.users)
	}
	for range q.users[9] {
		q.release(9)
	}
	if q.total != 256+128+64+32+16+8 {
		t.Errorf("%d are taken", q.total)
	}
	for user := range uint32(1000) {
		if taken := q.take(100 + user); taken {
			q.release(100 + user)
		}
	}
	if most := maxIdleUsers + 1; len(q.users) > most {
		t.Errorf("the quota has %d users, want %d at most", len(q.users), most)
	}
}

const (
	flooder = 65534 // nobody
	victim  = 1000
)

// flooding is what one user does to fill one table, and what another one does in the same
// network namespace meanwhile.
type flooding struct {
	name    string
	flood   func(h *host, n int, uid uint32)
	counted func(l *LeftOut) uint64
	has     func(e *Engine, uid uint32) bool // the table has the entry of the number 0 of a user
	times   int
}

// numbered is a destination with a number, of a user.
func numbered(n int, uid uint32) destination {
	d := peerOf(n)
	if uid == victim {
		d.peerPort = 443
	}
	return d
}

// byUser changes a transition to that of another user, and of a socket with another number.
func byUser(n int, uid uint32) func(t *tcp.Transition) {
	return func(t *tcp.Transition) {
		t.UID, t.Cookie = uid, uint64(uid)<<32|uint64(n+1)
		t.Owner = process(uid, fmt.Sprint("user", uid))
	}
}

// connectTo begins a connection, on a port that connect() chooses.
func (h *host) connectTo(key destination, n int, uid uint32) {
	h.event(0, key, curl, tcp.Close, tcp.SynSent, byUser(n, uid), func(t *tcp.Transition) { t.Local.Port = 0 })
}

func numberedLocal(n int, uid uint32) tcp.Endpoint {
	var a [4]byte
	binary.BigEndian.PutUint32(a[:], 0x7f00_0001+uint32(n))
	return tcp.Endpoint{Addr: netip.AddrFrom4(a), Port: uint16(uid)}
}

func (h *host) serverEvent(n int, uid uint32, old, next tcp.State) {
	h.event(0, to(80), process(uid, "server"), old, next, byUser(n, uid), func(t *tcp.Transition) {
		t.Role, t.Local = tcp.RoleServer, numberedLocal(n, uid)
		if next == tcp.Listen {
			t.Role = tcp.RoleListener
		}
		if next == tcp.TimeWait {
			t.Substate = tcp.TimeWait
		}
	})
}

var floodings = []flooding{
	{
		name: "destinations", times: 6000,
		flood: func(h *host, n int, uid uint32) {
			h.connectTo(numbered(n, uid), n, uid)
		},
		counted: func(l *LeftOut) uint64 { return l.Destinations },
		has: func(e *Engine, uid uint32) bool {
			key := numbered(0, uid)
			return e.tracker.destinations.Find(key, key.hash()) != nil
		},
	},
	{
		name: "servers", times: 3000,
		flood:   func(h *host, n int, uid uint32) { h.serverEvent(n, uid, tcp.FinWait2, tcp.TimeWait) },
		counted: func(l *LeftOut) uint64 { return l.Servers },
		has: func(e *Engine, uid uint32) bool {
			l := numberedLocal(0, uid)
			key := server{local: l.Addr, netns: testNetns, port: l.Port}
			return e.tracker.servers.Find(key, key.hash()) != nil
		},
	},
	{
		name: "namespaces", times: 3000,
		flood: func(h *host, n int, uid uint32) {
			key := to(80)
			if uid != victim {
				key.netns += uint32(1 + n)
			}
			h.connectTo(key, n, uid)
		},
		counted: func(l *LeftOut) uint64 { return l.Namespaces },
		has: func(e *Engine, uid uint32) bool {
			return uid != victim || e.tracker.namespaces.Find(testNetns, testNetns) != nil
		},
	},
	{
		name: "endpoints that fail", times: 3000,
		flood: func(h *host, n int, uid uint32) {
			h.connectTo(numbered(n, uid), n, uid)
			h.event(0, numbered(n, uid), curl, tcp.SynSent, tcp.Close, byUser(n, uid), fails(unix.ECONNREFUSED))
		},
		counted: func(l *LeftOut) uint64 { return l.Endpoints },
		has: func(e *Engine, uid uint32) bool {
			d := numbered(0, uid)
			key := endpointKey{addr: d.peer, netns: d.netns, port: d.peerPort, role: tcp.RoleClient}
			return detectorOf[*connectFailures](e).peers.Find(key, key.hash()) != nil
		},
	},
	{
		name: "destinations without a free port", times: 6000,
		flood: func(h *host, n int, uid uint32) {
			h.connectTo(numbered(n, uid), n, uid)
			h.event(0, numbered(n, uid), curl, tcp.SynSent, tcp.Close, byUser(n, uid), func(t *tcp.Transition) { t.Locked, t.NoPort, t.Local.Port = true, true, 0 })
		},
		counted: func(l *LeftOut) uint64 { return l.Exhaustions },
		has:     func(e *Engine, uid uint32) bool { return e.tracker.exhausted.of(numbered(0, uid)) != nil },
	},
	{
		name: "sockets in CLOSE_WAIT", times: 2*maxWaiting + 10,
		flood:   func(h *host, n int, uid uint32) { h.serverEvent(n%100, uid, tcp.Established, tcp.CloseWait) },
		counted: func(l *LeftOut) uint64 { return l.Sockets },
		has:     hasInCloseWait,
	},
	{
		name: "endpoints in CLOSE_WAIT", times: 6000,
		flood:   func(h *host, n int, uid uint32) { h.serverEvent(n, uid, tcp.Established, tcp.CloseWait) },
		counted: func(l *LeftOut) uint64 { return l.Leaks },
		has:     hasInCloseWait,
	},
	{
		name: "sockets in FIN_WAIT2", times: maxWaiting + 10,
		flood:   func(h *host, n int, uid uint32) { h.serverEvent(n, uid, tcp.FinWait1, tcp.FinWait2) },
		counted: func(l *LeftOut) uint64 { return l.Sockets },
		has: func(e *Engine, uid uint32) bool {
			_, found := detectorOf[*finWait2Pileup](e).attached.sockets[uint64(uid)<<32|1]
			return found
		},
	},
	{
		name: "endpoints in FIN_WAIT2", times: 3000,
		flood:   func(h *host, n int, uid uint32) { h.serverEvent(n, uid, tcp.FinWait1, tcp.FinWait2) },
		counted: func(l *LeftOut) uint64 { return l.Endpoints },
		has: func(e *Engine, uid uint32) bool {
			key := waitingKey{netns: testNetns, role: tcp.RoleServer, local: numberedLocal(0, uid)}
			return detectorOf[*finWait2Pileup](e).created.Find(key, key.hash()) != nil
		},
	},
	{
		name: "endpoints that are reset", times: 3000,
		flood: func(h *host, n int, uid uint32) {
			h.event(0, numbered(n, uid), curl, tcp.Established, tcp.Close, byUser(n, uid), fails(unix.ECONNRESET))
		},
		counted: func(l *LeftOut) uint64 { return l.Endpoints },
		has: func(e *Engine, uid uint32) bool {
			d := numbered(0, uid)
			key := endpointKey{addr: d.peer, netns: d.netns, port: d.peerPort, role: tcp.RoleClient}
			return detectorOf[*resetBurst](e).endpoints.Find(key, key.hash()) != nil
		},
	},
	{
		name: "bound ports", times: maxBinds + 10,
		flood: func(h *host, n int, uid uint32) {
			key := to(80)
			port := uint16(1024 + n%60_000)
			if uid == victim {
				port = uint16(65_000 + n%500)
			}
			key.netns += uint32(n / 60_000)
			h.event(0, key, curl, tcp.Close, tcp.SynSent, byUser(n, uid), func(t *tcp.Transition) { t.Local.Port = port })
		},
		counted: func(l *LeftOut) uint64 { return l.Ports },
		has:     func(e *Engine, _ uint32) bool { return e.tracker.ensureNamespace(testNetns).binds[65_000] != nil },
	},
	{
		name: "listeners", times: maxListeners + 10,
		flood:   func(h *host, n int, uid uint32) { h.serverEvent(n, uid, tcp.Close, tcp.Listen) },
		counted: func(l *LeftOut) uint64 { return l.Listeners },
		has: func(e *Engine, uid uint32) bool {
			return detectorOf[*listenQueue](e).netns[testNetns].listeners[uint64(uid)<<32|1] != nil
		},
	},
}

// hasInCloseWait reports whether the first socket of a user is among those in CLOSE_WAIT.
func hasInCloseWait(e *Engine, uid uint32) bool {
	d := detectorOf[*closeWaitLeak](e)
	d.moveYoung()
	_, found := d.waiting[uint64(uid)<<32|1]
	return found
}

// A table that one user fills still takes the sockets of another user, before the flood and after
// it. What the table leaves out is counted under its name.
func TestLeftOut_TableFilledByOneUser(t *testing.T) {
	for _, f := range floodings {
		for _, first := range []bool{true, false} {
			for _, uids := range [][]uint32{{flooder}, {100_000, 100_001, 165_535, flooder}} {
				t.Run(fmt.Sprintf("%s, the victim first: %v, %d uids", f.name, first, len(uids)), func(t *testing.T) {
					t.Parallel()
					h := newHost(t, 500, Config{})
					if first {
						f.flood(h, 0, victim)
					}
					for n := range f.times {
						for _, uid := range uids {
							f.flood(h, n, uid)
						}
					}
					if !first {
						f.flood(h, 0, victim)
					}
					if !f.has(h.engine, victim) {
						t.Error("the table does not have what another user did")
					}
					l := h.engine.LeftOut()
					if f.counted(&l) == 0 || len(l.Tables()) == 0 || l.Total() < f.counted(&l) {
						t.Errorf("%+v of %v", l, l.Tables())
					}
				})
			}
		}
	}
}

// Nothing is left out on a host that fills no table.
func TestLeftOut_Nothing(t *testing.T) {
	h := newHost(t, 500, Config{})
	for _, f := range floodings {
		for n := range 100 {
			f.flood(h, n, flooder)
		}
		h.pass(2 * time.Second)
	}
	if l := h.engine.LeftOut(); l != (LeftOut{}) || l.Tables() != nil {
		t.Errorf("%+v", l)
	}
}

// The listeners that do not fit are counted once, however often they are read.
func TestLeftOut_ListenersInTheTable(t *testing.T) {
	h := newHost(t, 500, Config{})
	table := &ListenTable{LeftOut: 7}
	for n := range maxListeners + 10 {
		table.Listeners = append(table.Listeners, tcp.Listener{Cookie: uint64(n + 1), Local: numberedLocal(n, 80), Queued: 1, Backlog: 5, UID: flooder})
	}
	for range 3 {
		h.pass(time.Second)
		table.ReadAt = h.now
		h.engine.UpdateListeners(h.now, testNetns, table)
	}
	if got := h.engine.LeftOut().Listeners; got != 17 {
		t.Errorf("%d listeners were left out, want 17", got)
	}
}

// While one user has as many alerts as he may have, another one still gets his, also a warning,
// and of several kinds and severities as many as are free.
func TestSuppressed_OfAnotherUser(t *testing.T) {
	h := newHost(t, 500, Config{ConnectFailures: 10})
	const peers = 300
	for range 10 {
		for n := range peers {
			for range 2 {
				floodings[3].flood(h, n, flooder)
			}
		}
		h.pass(time.Second)
	}
	opened := only(h.alerts, "connect_failures", Open)
	if len(opened) != maxOpenAlerts {
		t.Fatalf("%d alerts, want %d", len(opened), maxOpenAlerts)
	}
	for range 10 {
		for n := range peers {
			for range 2 {
				floodings[3].flood(h, n, flooder)
			}
			if n < 40 {
				floodings[3].flood(h, n, victim)
				floodings[3].flood(h, n, victim)
			}
		}
		h.pass(time.Second)
	}
	others := 0
	for _, a := range only(h.alerts, "connect_failures", Open) {
		if a.Peer.Port == 443 {
			others++
		}
	}
	if others != 40 {
		t.Errorf("%d of 40 alerts of another user opened", others)
	}
	if got := h.engine.AlertsSuppressed(); got != peers-maxOpenAlerts {
		t.Errorf("%d alerts were suppressed, want %d", got, peers-maxOpenAlerts)
	}
}

// The alerts of listeners are on the account of their sockets' user, whether their process is
// known or not.
func TestSuppressed_UserOfListeners(t *testing.T) {
	for _, by := range []tcp.Owner{webServer, {}} {
		h := newHost(t, 500, Config{})
		s := h.listen(web, 4, tcp.Owner{})
		s.UID = flooder
		h.observeListener(s, by, tcp.Close, tcp.Listen)
		h.serve(s, time.Minute, 4, nil)
		h.theOnly("listen_queue_full")
		g := h.engine.alerts.inGroup[group{"listen_queue_full", testNetns}]
		if g == nil || g.users[flooder] != 1 {
			t.Errorf("the alert is on the account of %v", g)
		}
	}
}

// Causes that are not even remembered are counted, each once.
func TestSuppressed_CountsWhatIsNotRemembered(t *testing.T) {
	c := Config{}.withDefaults()
	l := newLifecycle(&c)
	const causes = maxOpenAlerts + maxSuppressed + 500
	for tick := range 3 {
		now := time.Hour + time.Duration(tick)*time.Second
		for n := range causes {
			l.raise("kind", peerOf(n), opens, func() Finding { return Finding{} }, now)
		}
		l.due(now)
	}
	if l.suppressed.total != causes-maxOpenAlerts {
		t.Errorf("%d causes were suppressed, want %d", l.suppressed.total, causes-maxOpenAlerts)
	}
	if f := l.suppressed.describe(time.Hour + 2*time.Second); f.Occupancy != causes-maxOpenAlerts || !f.Approximate {
		t.Errorf("%+v", f)
	}
}

// A storm is found among a hundred times as many connections of another user in the same
// namespace, to as many destinations, and its alert is not approximate: its destination was
// never left out.
func TestStorm_BesideAFloodOfAnotherUser(t *testing.T) {
	h := newHost(t, 500, Config{MaxDestinations: 64})
	h.limits.MaxTimeWaits, h.uncounted = 1<<20, true
	flooded := 0
	for range 250 {
		h.pass(100 * time.Millisecond)
		if h.connect(to(80), curl) {
			h.close(to(80), curl, true)
		}
		if h.connect(to(80), curl) {
			h.close(to(80), curl, true)
		}
		for range 200 {
			flooded++
			h.connectTo(peerOf(flooded), flooded, flooder)
			h.event(0, peerOf(flooded), curl, tcp.FinWait2, tcp.TimeWait, byUser(flooded, flooder), func(t *tcp.Transition) { t.Substate = tcp.TimeWait })
		}
	}
	opened := only(h.alerts, timeWaitStorm, Open)
	if len(opened) != 1 || opened[0].Peer.Addr != there || opened[0].Approximate || opened[0].Culprit.Service != "curl" {
		t.Errorf("these were opened: %+v", opened)
	}
}

// The same among the connections of many users, each with one destination: those of root in a container
// without a user namespace, who may take any uid.
func TestStorm_BesideAFloodOfManyUsers(t *testing.T) {
	h := newHost(t, 500, Config{MaxDestinations: 64})
	h.limits.MaxTimeWaits, h.uncounted = 1<<20, true
	flooded := 0
	for range 250 {
		h.pass(100 * time.Millisecond)
		for range 2 {
			if h.connect(to(80), curl) {
				h.close(to(80), curl, true)
			}
		}
		for range 200 {
			flooded++
			uid := uint32(1000 + flooded%50000)
			h.connectTo(peerOf(flooded), flooded, uid)
			h.event(0, peerOf(flooded), curl, tcp.FinWait2, tcp.TimeWait, byUser(flooded, uid), func(t *tcp.Transition) { t.Substate = tcp.TimeWait })
		}
	}
	opened := only(h.alerts, timeWaitStorm, Open)
	if len(opened) != 1 || opened[0].Peer.Addr != there || opened[0].Culprit.Service != "curl" {
		t.Errorf("these were opened: %+v", opened)
	}
}

func detectorOf[D detector](e *Engine) D {
	for _, d := range e.detectors {
		if d, ok := d.(D); ok {
			return d
		}
	}
	panic("there is no such detector")
}
