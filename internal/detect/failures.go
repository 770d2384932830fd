package detect

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// connectFailures finds peers to which most connects fail: refused, unanswered,
// unreachable.
type connectFailures struct {
	*world
	tallies
}

func newConnectFailures(w *world) detector {
	return &connectFailures{world: w, tallies: newTallies(w.Keys / 4)}
}

func (*connectFailures) kind() string { return "connect_failures" }

func (*connectFailures) needs() tcp.Transitions {
	s := between(tcp.States(), []tcp.State{tcp.SynSent})
	s.Join(between([]tcp.State{tcp.SynSent}, []tcp.State{tcp.Close}))
	return s
}

func (d *connectFailures) observe(t *tcp.Transition) {
	switch {
	case t.New == tcp.SynSent:
		e := d.at(d.now, endOf(t))
		e.value.count(&e.value.all)
		e.value.local.Addr = t.Local.Addr
	case t.Old == tcp.SynSent && t.New == tcp.Close:
		cause := failure(t)
		if cause == "" {
			return
		}
		e := d.at(d.now, end{t.Netns, tcp.RoleClient, t.Peer})
		e.value.count(&e.value.bad)
		e.value.note(cause)
		e.value.add(t)
	}
}

// failure is "" for what is no fault of the peer's or the way to it.
func failure(t *tcp.Transition) string {
	// Whoever gives up by himself does so after a while.
	const patience = time.Second
	switch unix.Errno(t.Error) {
	case 0:
		if tcp.EndOf(t) == tcp.ClosedByLocal && t.InState >= patience {
			return unanswered
		}
		return ""
	case unix.ECONNREFUSED, unix.ECONNRESET:
		return refused
	case unix.ETIMEDOUT:
		return unanswered
	case unix.EHOSTUNREACH, unix.ENETUNREACH, unix.EHOSTDOWN, unix.ENETDOWN, unix.ENOPROTOOPT, unix.EACCES, unix.EPERM:
		return unreachable
	}
	return ""
}

const (
	refused     = "refused"
	unanswered  = "not answered"
	unreachable = "unreachable"
)

var failureAdvice = map[string]string{
	refused: "see whether the service runs and listens there; let clients wait longer from try to try, with some chance in it, " +
		"and take what is down out of rotation",
	unanswered: "see whether the host is up, whether a firewall drops the packets, and whether its listener's queue is full " +
		"(`ss -ltn` there: Recv-Q at Send-Q); let clients wait longer from try to try",
	unreachable: "see the route and the firewall on the way; let clients wait longer from try to try",
}

func (d *connectFailures) check(raise raiser) {
	d.forgetIdle(d.now)
	for _, e := range d.all {
		if 2*e.weight < uint64(d.Failures) {
			continue
		}
		e.value.advance(d.now)
		bad, all := e.value.recent()
		describe := func() Finding { return d.describe(e, bad, all) }
		switch {
		case bad >= int64(d.Failures) && 2*bad >= all:
			raise(e.key, false, describe)
		case 2*bad >= int64(d.Failures) && 4*bad >= all:
			raise(e.key, true, describe)
		}
	}
}

func (d *connectFailures) describe(e *entry[end, tally], bad, all int64) Finding {
	cause := e.value.most()
	return Finding{
		Severity: Warning, Who: e.value.who(), Netns: e.key.netns, Role: tcp.RoleClient, Local: e.value.local, Peer: e.key.at,
		Counted: "failed connects", Rate: float64(bad) / burstWindow, Failures: uint64(bad), Approximate: e.missed > 0,
		Cause:  fmt.Sprintf("%d of %d connects within %d s have failed, most of them %s", bad, max(all, bad), burstWindow, cause),
		Advice: failureAdvice[cause],
	}
}
