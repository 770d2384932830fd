package detect

import (
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

func toTimeWait(t *tcp.Transition) { t.Substate, t.PeerTimestamp = tcp.TimeWait, true }

// The alert names the server that leaves the TIME_WAITs, not a client with more connections
// that are open.
func TestBucketStorm_NamesMostTimeWaits(t *testing.T) {
	h := newHost(t, 5000, Config{})
	h.uncounted = true
	h.limits.MaxTimeWaits = 400
	for range 3000 {
		h.connect(to(81), curl)
	}
	for range 60 * 12 {
		h.event(0, to(80), process(7, "nginx"), tcp.FinWait2, tcp.TimeWait, served, toTimeWait)
		h.pass(time.Second / 12)
	}
	a := h.theOnly("time_wait_storm")
	if a.CapacityKind != TimeWaitBuckets || a.Role != tcp.RoleServer || a.Local.Port != 80 || a.Culprit.PID != 7 {
		t.Errorf("%s, %s %v, process %d: want the server on port 80", a.CapacityKind, a.Role, a.Local, a.Culprit.PID)
	}
}
