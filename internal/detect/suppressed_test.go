package detect

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// peerOf is a destination with a peer of its own.
func peerOf(n int) destination {
	var a [4]byte
	binary.BigEndian.PutUint32(a[:], 0x0b00_0000+uint32(n))
	d := to(80)
	d.peer = netip.AddrFrom4(a)
	return d
}

// A storm is reported, and its alert stays open, while 100,000 other destinations come and
// go: the table has room for few of them.
func TestStorm_BesideAFloodOfDestinations(t *testing.T) {
	for _, destinations := range []int{4096, 128} {
		for _, early := range []bool{true, false} {
			if destinations == 128 && !early {
				continue // a storm needs a 128th of all connections to be found
			}
			t.Run(fmt.Sprintf("room for %d, storm first: %v", destinations, early), func(t *testing.T) {
				h := newHost(t, 500, Config{MaxDestinations: destinations})
				h.limits.MaxTimeWaits, h.uncounted = 1<<20, true
				begins := h.now
				if early {
					begins += 25 * time.Second
				}
				var flooded int
				for n := 0; flooded < 100_000; n++ {
					h.pass(100 * time.Millisecond)
					for range 1 + n%2 {
						if h.connect(to(80), curl) {
							h.close(to(80), curl, true)
						}
					}
					for range 200 {
						if h.now >= begins {
							flooded++
							h.emit(peerOf(flooded), 0, process(666, "flood"), tcp.Close, tcp.SynSent)
							h.emit(peerOf(flooded), 20000, process(666, "flood"), tcp.FinWait2, tcp.TimeWait)
						}
					}
				}
				opened := only(h.alerts, timeWaitStorm, Open)
				if len(opened) != 1 || opened[0].Peer.Port != 80 || opened[0].Peer.Addr != there || opened[0].Culprit.Service != "curl" {
					t.Errorf("these were opened: %+v", opened)
				}
				if closed := only(h.alerts, timeWaitStorm, Close); len(closed) > 0 {
					t.Errorf("the storm lasts, and its alert closes: %+v", closed)
				}
				if size := h.engine.tracker.destinations.Len(); size > destinations {
					t.Errorf("%d destinations", size)
				}
			})
		}
	}
}

// An alert about an entry that has replaced another one is approximate.
func TestStorm_ApproximateAfterEviction(t *testing.T) {
	h := newHost(t, 500, Config{MaxDestinations: 64})
	h.uncounted = true
	for n := range 1000 {
		h.emit(peerOf(n), 0, curl, tcp.Close, tcp.SynSent)
	}
	h.run(load{key: to(80), by: []tcp.Owner{curl}, rate: constant(20)}, 20*time.Second, false)
	if opened := only(h.alerts, timeWaitStorm, Open); len(opened) != 1 || !opened[0].Approximate {
		t.Errorf("%+v", opened)
	}
}

// failTo makes connects to a peer fail for a moment.
func (h *host) failTo(key destination, count int) {
	for range count {
		h.event(0, key, curl, tcp.Close, tcp.SynSent)
		h.event(0, key, curl, tcp.SynSent, tcp.Close, fails(unix.ECONNREFUSED))
	}
}

// Of 200 failing peers 128 have an alert, and one alert counts the others. It closes after
// they are gone. Alerts of other kinds, and in other namespaces, still open.
func TestSuppressed_TooManyOfAKind(t *testing.T) {
	h := newHost(t, 500, Config{ConnectFailures: 10})
	const peers = 200
	for range 20 {
		for n := range peers {
			h.failTo(peerOf(n), 2)
		}
		h.pass(time.Second)
	}
	if opened := only(h.alerts, "connect_failures", Open); len(opened) != maxOpenAlerts {
		t.Errorf("%d alerts, want %d", len(opened), maxOpenAlerts)
	}
	opened := only(h.alerts, AlertsSuppressed, Open)
	if len(opened) != 1 {
		t.Fatalf("%d alerts of what is left out, want one", len(opened))
	}
	last := only(h.alerts, AlertsSuppressed, Update)[0]
	if last.Occupancy != peers-maxOpenAlerts || last.Netns != testNetns || last.Severity != Warning || last.Culprit.Known ||
		!strings.Contains(last.Cause, "connect_failures") || len(last.Cause) > 480 || len(last.Advice) > 480 {
		t.Errorf("%+v", last)
	}
	if got := h.engine.AlertsSuppressed(); got != peers-maxOpenAlerts {
		t.Errorf("%d alerts were suppressed, want each of %d once", got, peers-maxOpenAlerts)
	}

	elsewhere := peerOf(1)
	elsewhere.netns++
	for range 12 {
		h.failTo(elsewhere, 20)
		for range 30 {
			h.event(0, to(80), curl, tcp.Established, tcp.Close, served, fails(unix.ECONNRESET))
		}
		for n := range peers {
			h.failTo(peerOf(n), 2)
		}
		h.pass(time.Second)
	}
	if all := only(h.alerts, "connect_failures", Open); len(all) != maxOpenAlerts+1 || all[len(all)-1].Netns != elsewhere.netns {
		t.Errorf("%d alerts, want one more in another namespace", len(all))
	}
	if len(only(h.alerts, "reset_burst", Open)) != 1 {
		t.Error("there is no alert of another kind")
	}
	if closed := only(h.alerts, "", Close); len(closed) > 0 {
		t.Errorf("%d alerts were closed, the first is %+v", len(closed), closed[0])
	}

	h.pass(40 * time.Second)
	if closed := only(h.alerts, AlertsSuppressed, Close); len(closed) != 1 || closed[0].Reason != Resolved {
		t.Errorf("%+v", closed)
	}
	if l := &h.engine.alerts; len(l.open) != 0 || len(l.inGroup) != 0 || len(l.suppressed.causes) != 0 {
		t.Errorf("%d alerts are open, in %d groups, and %d causes without one", len(l.open), len(l.inGroup), len(l.suppressed.causes))
	}
}

// A cause that was left out gets its alert when another one closes.
func TestSuppressed_RoomAgain(t *testing.T) {
	c := Config{}.withDefaults()
	l := newLifecycle(&c)
	now := time.Hour
	raise := func(from, to int) {
		for n := from; n < to; n++ {
			l.raise("kind", peerOf(n), opens, func() Finding { return Finding{Severity: Warning} }, now)
		}
	}
	raise(0, maxOpenAlerts+1)
	l.due(now)
	now += quietPeriod
	raise(1, maxOpenAlerts+1) // the first is gone
	l.due(now)
	now += time.Second
	raise(1, maxOpenAlerts+1)
	if alerts := l.due(now); len(only(alerts, "kind", Open)) != 1 || len(l.suppressed.causes) != 0 || l.suppressed.total != 1 {
		t.Errorf("%d alerts open, %d causes are left out: %+v", len(l.open), len(l.suppressed.causes), alerts)
	}
}

// The reserve is for the critical, also for those that were not at first. No alert is closed
// for them.
func TestSuppressed_CriticalComeIn(t *testing.T) {
	c := Config{}.withDefaults()
	l := newLifecycle(&c)
	now, described := time.Hour, 0
	raise := func(n int, s Severity) bool {
		return l.raise("kind", peerOf(n), opens, func() Finding { described++; return Finding{Severity: s} }, now) != nil
	}
	for n := range 2 * maxOpenAlerts {
		if got := raise(n, Warning); got != (n < maxOpenAlerts) {
			t.Fatalf("alert %d opens: %v", n, got)
		}
	}
	before := described
	for n := range 2 * maxOpenAlerts {
		raise(n, Warning)
	}
	if described != before {
		t.Errorf("the severity of %d causes was found out again at once", described-before)
	}
	now += severityInterval
	for n := range maxCriticalAlerts + 1 {
		if got := raise(maxOpenAlerts+n, Critical); got != (n < maxCriticalAlerts) {
			t.Errorf("critical alert %d opens: %v", n, got)
		}
	}
	alerts := l.due(now)
	if len(only(alerts, "kind", Open)) != maxOpenAlerts+maxCriticalAlerts || len(only(alerts, "kind", Close)) != 0 {
		t.Errorf("%d alerts", len(alerts))
	}
	if l.suppressed.total != maxOpenAlerts || len(l.suppressed.causes) != maxOpenAlerts-maxCriticalAlerts {
		t.Errorf("%d causes were left out, %d are", l.suppressed.total, len(l.suppressed.causes))
	}
}

// However many causes there are, the memory for those without an alert is bounded.
func TestSuppressed_BoundedMemory(t *testing.T) {
	c := Config{}.withDefaults()
	l := newLifecycle(&c)
	for n := range 3 * maxSuppressed {
		l.raise("kind", peerOf(n), opens, func() Finding { return Finding{} }, time.Hour)
	}
	if len(l.suppressed.causes) != maxSuppressed {
		t.Errorf("%d causes, want %d", len(l.suppressed.causes), maxSuppressed)
	}
	alerts := only(l.due(time.Hour), AlertsSuppressed, Open)
	if len(alerts) != 1 || !alerts[0].Approximate {
		t.Errorf("%+v", alerts)
	}
}

// A handful of users who have as many alerts as they can leave room for the alert of a further one, of each
// severity.
func TestSuppressed_HandfulOfUsers(t *testing.T) {
	c := Config{}.withDefaults()
	l := newLifecycle(&c)
	raise := func(user, n uint32, s Severity) *openAlert {
		f := Finding{Severity: s, Culprit: Culprit{user: user}}
		return l.raise("kind", peerOf(int(user<<10|n)), opens, func() Finding { return f }, time.Hour)
	}
	const handful = 20
	for user := range uint32(handful) {
		for n := range uint32(2 * maxOpenAlerts) {
			raise(1000+user, n, []Severity{Warning, Critical}[n%2])
		}
	}
	for i, s := range []Severity{Warning, Critical} {
		if raise(33+uint32(i), 0, s) == nil {
			t.Errorf("there is no room for a further user's alert of severity %v", s)
		}
	}
	for user := range uint32(10 * maxFirstAlerts) {
		raise(2000+user, 0, Critical)
	}
	if most := 2*(maxOpenAlerts+maxCriticalAlerts) + maxFirstAlerts; len(l.open) != most {
		t.Errorf("%d alerts are open, want %d at most", len(l.open), most)
	}
}

// A cause that has no alert costs no look at processes: its severity does not depend on them.
func TestSuppressed_LooksAtNoProcess(t *testing.T) {
	looks := 0
	h := newHost(t, 500, Config{ConnectFailures: 10, UpdateInterval: time.Hour, Gone: func(Process) bool { looks++; return false }})
	for second := range 20 {
		for n := range 2 * maxOpenAlerts {
			h.failTo(peerOf(n), 2)
		}
		h.pass(time.Second)
		if second == 10 {
			looks = 0
		}
	}
	if h.engine.AlertsSuppressed() == 0 || looks > 0 {
		t.Errorf("%d causes have no alert; %d looks at processes", h.engine.AlertsSuppressed(), looks)
	}
}
