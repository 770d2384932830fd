package detect

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/internal/detect/topk"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// connectFailures finds peers to which most connects fail: they refuse, do not answer, are
// unreachable, or have a connection from the bound port already.
type connectFailures struct {
	*tracker
	peers outcomeTable
}

func newConnectFailures(tr *tracker) detector {
	return &connectFailures{tracker: tr, peers: newOutcomeTable(tr.MaxDestinations / 4)}
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
		d.peers.entryAt(d.now, endpointKeyOf(t), userOf(t)).countAny(t)
	case t.Old == tcp.SynSent && t.New == tcp.Close:
		key := peerKeyOf(t)
		if reason := connectFailure(t); reason != "" {
			d.peers.entryAt(d.now, key, userOf(t)).countBad(d.now, t, reason)
		}
		if e := d.peers.Find(key, key.hash()); e != nil {
			e.Value.countEnd(d.now, t)
		}
	}
}

// minPatience is how long a process must have waited for an answer before it gives up,
// for the connect to count as not answered, whatever the others do: see giveUps.
const minPatience = time.Second

// connectFailure is the reason why a connect failed. It is "" if the cause is neither the peer, nor the network,
// nor the port that the process has bound, or if the process gave up before minPatience.
func connectFailure(t *tcp.Transition) string {
	switch unix.Errno(t.Error) {
	case 0:
		switch by := tcp.ClosedByOf(t); {
		case by == tcp.ClosedByAddressInUse:
			return inUse
		case by == tcp.ClosedByLocal && t.InState >= minPatience:
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

// The reasons of failed connects, as an alert's cause words them.
const (
	refused     = "refused"
	unanswered  = "not answered"
	unreachable = "unreachable"
	inUse       = "from a bound port that has a connection to this peer already (EADDRNOTAVAIL)"
)

var failureAdvice = map[string]string{
	refused: "check that the service runs and listens there; let clients wait longer between attempts, with random jitter, " +
		"and take a service that is down out of rotation",
	unanswered: "check that the host is up, that no firewall drops the packets, and that the queue of its listener is not full " +
		"(`ss -ltn` there: Recv-Q equal to Send-Q); let clients wait longer between attempts",
	inUse: "let the kernel choose the local port: connect() without bind(), or bind() with IP_BIND_ADDRESS_NO_PORT and port 0; " +
		"where the port must be fixed, wait until the connection that has it is gone, TIME_WAIT included (`ss -tanp`)",
	givenUp: "find out how long the peer takes to answer (tcpdump): no connect to it succeeds; check that the host is up, that no firewall " +
		"drops the packets, and that the clients wait for more than a round trip",
	unreachable: "check the route and the firewalls on the path; let clients wait longer between attempts",
}

func (d *connectFailures) pin(c cause) { d.peers.pin(c) }

func (d *connectFailures) check(raise raiser) {
	d.peers.check(d.now, d.ConnectFailures, raise, d.describe)
}

func (d *connectFailures) describe(e *topk.Entry[endpointKey, outcomes], bad, all int64) Finding {
	reason, part := e.Value.mainReason(d.now)
	services, local := e.Value.culprits(bad, e.Value.failedEarly(d.now))
	return Finding{
		Severity: Warning, Culprit: d.culpritOf(services), Netns: e.Key.netns, Role: tcp.RoleClient,
		Local: tcp.Endpoint{Addr: local.addr}, Peer: e.Key.endpoint(),
		RateUnit: "failed connects", Rate: float64(bad) / outcomeWindow, Failures: uint64(bad), Approximate: e.Missed > 0,
		Cause: fmt.Sprintf("%d of %s within %d s %s failed, %s %s", bad, counted(uint64(max(all, bad)), "connect", "connects"),
			outcomeWindow, choose(uint64(bad), "has", "have"), part, reason),
		Advice: failureAdvice[reason],
	}
}
