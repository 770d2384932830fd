package detect

import (
	"math"
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/internal/detect/rate"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// endUnseen opens connections, whose ends are then lost.
func (h *host) endUnseen(count int) {
	for range count {
		h.connect(to(80), curl)
		h.pass(20 * time.Millisecond)
	}
	h.loses = true
	for range count {
		h.close(to(80), curl, false)
	}
	h.loses = false
}

// small is a load that 500 ports bear for ever.
var small = load{key: to(80), by: []tcp.Owner{curl}, rate: constant(5), lasting: 100 * time.Millisecond}

// Connections whose ends were lost do not stay in the model: the kernel's table does not have
// them.
func TestLoss_EndsOfConnections(t *testing.T) {
	h := newHost(t, 500, Config{})
	h.run(small, 20*time.Second, false)
	h.endUnseen(240)
	h.pass(75 * time.Second) // a loss is reported for a minute
	h.run(small, 5*time.Minute, false)
	h.mustBeSilent()
	use := h.engine.tracker.destinations.Find(to(80), func() uint64 { d := to(80); return d.hash() }())
	if open := use.Value.OpenCount(); open > 5 {
		t.Errorf("%d connections count as open, and none is", open)
	}
}

// Connections that are still open stay in the model, although much happens while the table is
// read.
func TestLoss_OpenConnectionsStay(t *testing.T) {
	h := newHost(t, 5000, Config{})
	for range 300 {
		h.connect(to(80), curl)
	}
	h.engine.AddLost(h.now, 1)
	h.run(load{key: to(80), by: []tcp.Owner{curl}, rate: constant(60), lasting: 2 * time.Second}, time.Minute, false)
	use := h.engine.tracker.destinations.Find(to(80), func() uint64 { d := to(80); return d.hash() }())
	if open := use.Value.OpenCount(); open != int64(h.open[to(80)]) {
		t.Errorf("%d connections count as open, %d are", open, h.open[to(80)])
	}
}

// An alert that opened because of such connections closes as refuted once the table is read.
func TestLoss_RefutedAlert(t *testing.T) {
	h := newHost(t, 500, Config{})
	h.run(small, 20*time.Second, false)
	h.unreadable = true
	h.endUnseen(240)
	h.run(small, 3*time.Minute, false)
	h.theOnly("time_wait_storm")
	h.unreadable = false
	h.run(small, 30*time.Second, false)
	closed := only(h.alerts, "time_wait_storm", Close)
	if len(closed) != 1 || closed[0].Reason != Refuted {
		t.Errorf("%+v", closed)
	}
}

// What a count of the kernel's table has corrected stays corrected once the count is too old to correct anything
// itself: connections that are gone do not count again.
func TestOpenSockets_StayCorrectedAfterTheCount(t *testing.T) {
	h := newHost(t, 500, Config{})
	for range 150 {
		h.connect(to(80), curl)
	}
	h.open[to(80)] = 0 // no transition shows that they end, and no loss is known
	h.run(load{key: to(80), by: []tcp.Owner{curl}, rate: constant(9), lasting: 100 * time.Millisecond}, 20*time.Second, false)
	if h.counted == 0 {
		t.Fatal("no count was requested")
	}
	h.unreadable = true
	h.run(small, 2*rate.TimeWaitHold, false)
	if got, taken := h.occupancy(to(80)), float64(h.taken(to(80))); math.Abs(got-taken) > 25 {
		t.Errorf("%.0f ports count as used, %.0f are", got, taken)
	}
}
