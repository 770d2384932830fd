package detect

import (
	"slices"
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/internal/detect/rate"
	"github.com/tcpshift/tcpshift/internal/detect/topk"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// A socket in FIN_WAIT2 of a process, and its namespace is gone: its table is not requested for ever.
func TestFinWait2Pileup_NamespaceGone(t *testing.T) {
	h := newHost(t, 28232, Config{HalfClosed: 10})
	for n := range uint64(20) {
		h.shutDown(n+1, process(80, "server"))
	}
	requested := time.Duration(0)
	for range 2000 {
		h.now += 100 * time.Millisecond
		h.engine.Tick(h.now)
		for _, want := range h.engine.Requests(h.now) {
			requested = h.now
			h.engine.Update(h.now, want.Netns, nil)
		}
	}
	if requested > time.Hour+100*time.Second {
		t.Errorf("requested %v after the last transition", requested-time.Hour)
	}
}

// A failed connect() has its own alert at once, or after the kernel's table, where a forecast that
// raised no alert came before.
func TestExhaustion_ForecastWithoutAlert(t *testing.T) {
	h := newHost(t, 500, Config{})
	h.run(load{key: to(80), by: []tcp.Owner{curl}, rate: constant(9)}, 24*time.Second, false)
	if len(h.alerts) > 0 || !keepsStorm(h.forecast(to(80))) {
		t.Fatalf("the test is wrong: %d alerts, %+v", len(h.alerts), h.forecast(to(80)))
	}
	if h.engine.tracker.hasStorm(to(80)) {
		t.Error("a storm counts as open, and has no alert")
	}
	h.run(load{key: to(80), by: []tcp.Owner{curl}, rate: constant(20)}, time.Minute, true)
	if !h.engine.tracker.hasStorm(to(80)) {
		t.Error("a storm has an alert, and does not count as open")
	}
}

func (h *host) forecast(key destination) rate.Forecast {
	u := h.use(key)
	capacity, ns := h.engine.tracker.portCapacity(key, u)
	u.Advance(h.now)
	return u.Forecast(ns.modelFor(h.now, key, u), capacity)
}

// A tick adds no namespace: a new one could replace one that a finding refers to.
func TestTick_AddsNoNamespace(t *testing.T) {
	h := newHost(t, 500, Config{MaxDestinations: 16}) // four namespaces
	h.limits.TimeWaits = -1
	for netns := range uint32(4) {
		key := to(80)
		key.netns = 100 + netns
		for range 300 {
			h.connect(key, curl)
			h.close(key, curl, true)
		}
		h.engine.Update(h.now, key.netns, &h.limits)
	}
	h.now += 2 * time.Second
	h.engine.Tick(h.now)
	for _, want := range h.engine.Requests(h.now) { // counts are awaited now
		if want.Suspects == nil {
			t.Fatal("the test is wrong: no count is requested")
		}
	}
	h.now += 200 * time.Millisecond
	tr := h.engine.tracker
	tr.activeNamespace(200, topk.User{}) // takes the place of one of them
	h.now += 200 * time.Millisecond
	before := namespacesOf(tr)
	h.engine.check(h.now)
	if after := namespacesOf(tr); !slices.Equal(after, before) {
		t.Errorf("a tick has changed the namespaces from %v to %v", before, after)
	}
}

func namespacesOf(tr *tracker) (list []uint32) {
	for _, e := range tr.namespaces.Entries() {
		list = append(list, e.Key)
	}
	slices.Sort(list)
	return list
}

// Several clients that fill tcp_max_tw_buckets before their own ports exhaust no ports.
func TestStorm_BucketsSharedByClients(t *testing.T) {
	for buckets, want := range map[int]string{400: TimeWaitBuckets, 1 << 17: EphemeralPorts} {
		h := newHost(t, 300, Config{})
		h.limits.MaxTimeWaits = buckets
		for step := range 500 {
			for port := range uint16(2) {
				key := to(80 + port)
				if h.timeWaits(testNetns) < buckets && step >= 0 {
					if h.connect(key, curl) {
						h.close(key, curl, true)
					}
				} else {
					h.connect(key, curl)
					h.open[key]--
					h.emit(key, h.limits.PortLow, curl, tcp.FinWait2, tcp.Close)
				}
			}
			h.pass(100 * time.Millisecond) // ten a second to each
		}
		opened := only(h.alerts, "time_wait_storm", Open)
		if len(opened) == 0 {
			t.Errorf("%d buckets: no alert", buckets)
		}
		for _, a := range opened {
			if a.CapacityKind != want {
				t.Errorf("%d buckets: %v of %s", buckets, summaries(opened), a.CapacityKind)
			}
		}
	}
}

// Connects that fail because TIME_WAITs take the ports that are not bound have an alert of their own,
// and are no failures of the alert about bound ports.
func TestBindExhaustion_FailuresOfOthers(t *testing.T) {
	const ports = 100
	h := newHost(t, ports, Config{})
	h.limits.BindBuckets, h.limits.BoundReadAt = &tcp.PortSet{}, h.now
	for n := range uint16(88) {
		h.bindAndConnect(to(1000+n%50), 20000+n, process(100, "holder"))
		h.limits.BindBuckets.Add(20000 + n)
		h.emit(to(1000+n%50), 20000+n, process(100, "holder"), tcp.FinWait2, tcp.TimeWait)
		h.limits.BoundReadAt = h.now
		h.pass(100 * time.Millisecond)
	}
	for range 12 {
		h.cookie++
		h.emit(to(80), 0, curl, tcp.Close, tcp.SynSent)
		h.emit(to(80), 20099, curl, tcp.FinWait2, tcp.TimeWait)
		h.ends[to(80)] = append(h.ends[to(80)], timewait{created: h.now, finAt: h.now, end: h.now + time.Minute})
	}
	for range 10 {
		h.emit(to(80), 0, curl, tcp.Close, tcp.SynSent)
		h.emit(to(80), 0, curl, tcp.SynSent, tcp.Close)
		h.pass(500 * time.Millisecond)
	}
	var bound, storm Alert
	for _, a := range h.finish() {
		switch {
		case a.Kind == timeWaitStorm:
			storm = a
		case a.Kind == portExhaustionKind && !a.Peer.Addr.IsValid():
			bound = a
		}
	}
	if storm.Failures != 10 || bound.ID == "" || bound.Failures != 0 {
		t.Errorf("storm: %d failures; bound ports: %q, %d failures", storm.Failures, bound.ID, bound.Failures)
	}
}
