package detect

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// resetBurst finds ends at which most connections are reset by their peers.
type resetBurst struct {
	*world
	tallies
}

func newResetBurst(w *world) detector {
	return &resetBurst{world: w, tallies: newTallies(w.Keys / 4)}
}

func (*resetBurst) kind() string { return "reset_burst" }

func (*resetBurst) needs() tcp.Transitions { return endings() }

// observe counts connections that were established, at their ends.
func (d *resetBurst) observe(t *tcp.Transition) {
	if !leaves(t) || t.Old == tcp.SynSent || t.Old == tcp.SynRecv || t.Role == tcp.RoleUnknown {
		return
	}
	e := d.at(d.now, endOf(t))
	e.value.count(&e.value.all)
	reset := unix.Errno(t.Error) == unix.ECONNRESET || unix.Errno(t.Error) == unix.EPIPE && t.Old == tcp.CloseWait
	if t.New != tcp.Close || !reset {
		return
	}
	e.value.count(&e.value.bad)
	e.value.note(t.Old.String())
	e.value.add(t)
}

func (d *resetBurst) check(raise raiser) {
	d.forgetIdle(d.now)
	for _, e := range d.all {
		if 2*e.weight < uint64(d.Resets) {
			continue
		}
		e.value.advance(d.now)
		bad, all := e.value.recent()
		describe := func() Finding { return d.describe(e, bad, all) }
		switch {
		case bad >= int64(d.Resets) && 2*bad >= all:
			raise(e.key, false, describe)
		case 2*bad >= int64(d.Resets) && 4*bad >= all:
			raise(e.key, true, describe)
		}
	}
}

func (d *resetBurst) describe(e *entry[end, tally], bad, all int64) Finding {
	f := Finding{
		Severity: Warning, Who: e.value.who(), Netns: e.key.netns, Role: e.key.role,
		Counted: "resets", Rate: float64(bad) / burstWindow, Approximate: e.missed > 0,
		Cause: fmt.Sprintf("%d of %d connections that ended within %d s were reset by the peer, most of them in %s",
			bad, max(all, bad), burstWindow, e.value.most()),
		Advice: "look at the peer: it crashes, restarts, closes with data unread or with SO_LINGER 0, or something between drops idle " +
			"connections and answers with resets; compare idle timeouts on both sides",
	}
	if e.key.role == tcp.RoleServer {
		f.Local = e.key.at
	} else {
		f.Peer = e.key.at
	}
	return f
}
