package detect

import (
	"fmt"

	"github.com/tcpshift/tcpshift/internal/detect/topk"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// resetBurst finds endpoints whose connections are mostly reset by their peers.
type resetBurst struct {
	*tracker
	endpoints outcomeTable
}

func newResetBurst(tr *tracker) detector {
	return &resetBurst{tracker: tr, endpoints: newOutcomeTable(tr.MaxDestinations / 4)}
}

func (*resetBurst) kind() string { return "reset_burst" }

func (*resetBurst) needs() tcp.Transitions { return portReleases() }

func (d *resetBurst) observe(t *tcp.Transition) {
	if !t.ResetAwaited {
		d.countEnd(t)
	}
}

func (d *resetBurst) resetDecided(t *tcp.Transition) { d.countEnd(t) }

// countEnd counts a connection that was established and has ended. The error of a socket does not show
// which side has reset the connection, so tcp.ClosedByOf decides.
func (d *resetBurst) countEnd(t *tcp.Transition) {
	if !releasesPort(t) || t.Old == tcp.SynSent || t.Old == tcp.SynRecv || t.Role == tcp.RoleUnknown {
		return
	}
	o := d.endpoints.entryAt(d.now, endpointKeyOf(t), userOf(t))
	o.countAny(t)
	if t.New == tcp.Close && tcp.ClosedByOf(t) == tcp.ClosedByResetReceived {
		o.countBad(d.now, t, t.Old.String())
	}
}

func (d *resetBurst) pin(c cause) { d.endpoints.pin(c) }

func (d *resetBurst) check(raise raiser) {
	d.endpoints.check(d.now, d.Resets, raise, d.describe)
}

func (d *resetBurst) describe(e *topk.Entry[endpointKey, outcomes], bad, all int64) Finding {
	state, part := e.Value.mainReason(d.now)
	f := Finding{
		Severity: Warning, Culprit: d.culpritOf(&e.Value.topServices), Netns: e.Key.netns, Role: e.Key.role,
		RateUnit: "resets", Rate: float64(bad) / outcomeWindow, Approximate: e.Missed > 0,
		Cause: fmt.Sprintf("the peer, not this side, reset %d of %s that ended within %d s, %s in %s",
			bad, counted(uint64(max(all, bad)), "connection", "connections"), outcomeWindow, part, state),
		Advice: "look at the peer: it crashes, restarts, closes with data unread or with SO_LINGER 0; or a device on the path drops idle " +
			"connections and answers with resets: compare the idle timeouts of both sides",
	}
	if e.Key.role == tcp.RoleServer {
		f.Local = e.Key.endpoint()
	} else {
		f.Peer = e.Key.endpoint()
	}
	return f
}
