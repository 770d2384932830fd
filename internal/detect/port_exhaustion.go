package detect

import (
	"fmt"
	"time"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// portExhaustion reports connects that found no local port, from the first one on, where open
// connections or bound ports take more of the ports than TIME_WAITs do.
type portExhaustion struct {
	*tracker
}

func newPortExhaustion(tr *tracker) detector { return portExhaustion{tr} }

// portExhaustionKind is the kind of alert of portExhaustion and bindExhaustion.
const portExhaustionKind = "port_exhaustion"

func (portExhaustion) kind() string { return portExhaustionKind }

func (portExhaustion) needs() tcp.Transitions {
	return between([]tcp.State{tcp.SynSent}, []tcp.State{tcp.Close})
}

// observe counts the failures, also those that a portStorm reports.
func (d portExhaustion) observe(t *tcp.Transition) {
	if t.Old == tcp.SynSent && t.New == tcp.Close && tcp.ClosedByOf(t) == tcp.ClosedByNoPort {
		d.exhausted.observe(t)
		d.activeNamespace(t.Netns, userOf(t)).suspectedAt = d.now
	}
}

func (d portExhaustion) failures(c cause) uint64 { return d.exhausted.failures(c, notTimeWaits) }

func (d portExhaustion) check(raise raiser) {
	for key, x := range d.exhausted.byDestination {
		kind := d.kindOf(key, x)
		if !x.isFailing(d.now) {
			if !x.mayBeReported(d.now) && !d.hasStorm(key) { // whose alert reports the failures
				d.exhausted.remove(key)
			}
			continue
		}
		x.raisedAt = d.now
		failed := x.unreported
		x.unreported = 0
		switch {
		case d.hasBoundOutAlert(key):
			d.knownNamespace(key.netns).bindFailures += failed // bindExhaustion reports them
		case kind == notTimeWaits:
			if ns := d.knownNamespace(key.netns); ns != nil && d.hasNoPorts(ns, key) {
				ns.boundOutAt = x.lastAt
			}
			c := opens
			if d.requestCount(key); d.isVerified(key) {
				c |= verified
			}
			raise(key, c, func() Finding { return d.describe(key, x) })
		case kind == undecided:
			x.unreported = failed
			d.requestCount(key)
			d.requestCountAfter(key, x)
		case x.refuted:
			raise(key, refuted, nil)
		default:
			raise(key, ended, nil)
		}
	}
}

// requestCountAfter requests the kernel's count of a destination, unless one was requested after the
// first failure.
func (d portExhaustion) requestCountAfter(key destination, x *exhaustion) {
	e, ns := d.destinations.Find(key, key.hash()), d.namespaces.Find(key.netns, uint64(key.netns))
	if e == nil || ns == nil || key.ownRange || e.Value.kernel.requestedAt >= x.firstAt {
		return
	}
	v := &e.Value.kernel
	v.wanted, v.urgent, ns.Value.wantCounts = true, true, true
}

// requestCount requests the kernel's count of a destination if the newest one is too old. The alert need
// not wait for it: the kernel itself has refused the port. Of sockets with their own range there is no
// count, because the table does not show the range.
func (d portExhaustion) requestCount(key destination) {
	e, ns := d.destinations.Find(key, key.hash()), d.namespaces.Find(key.netns, uint64(key.netns))
	if e != nil && ns != nil && !key.ownRange {
		d.refreshCount(&ns.Value, &e.Value, true, true)
	}
}

// isVerified reports whether the kernel's count of a destination verifies its numbers.
func (d portExhaustion) isVerified(key destination) bool {
	e := d.destinations.Find(key, key.hash())
	return e != nil && !key.ownRange && e.Value.kernel.isVerified(d.tracker)
}

func (d portExhaustion) describe(key destination, x *exhaustion) Finding {
	x.bySecond.Advance(int64(d.now / time.Second))
	f := Finding{
		Severity: Critical, Culprit: d.culpritOf(&x.topServices), Netns: key.netns, Role: tcp.RoleClient,
		Local: tcp.Endpoint{Addr: key.local}, Peer: tcp.Endpoint{Addr: key.peer, Port: key.peerPort},
		RateUnit: "failed connects", Rate: float64(x.bySecond.Sum(0, exhaustionWindow)) / exhaustionWindow,
		Exhausts: x.isRefused(d.now), Failures: x.failed,
		Cause:  "connect() found no free local port for this destination and failed with EADDRNOTAVAIL",
		Advice: reusePortsAdvice,
	}
	e := d.destinations.Find(key, key.hash())
	if e == nil {
		return f
	}
	ns := d.knownNamespace(key.netns)
	if ns == nil {
		return f
	}
	e.Value.Advance(d.now)
	model := ns.modelFor(d.now, key, &e.Value)
	f.Occupancy, f.OccupancySource = round(e.Value.Occupancy(model)), e.Value.kernel.source(d.tracker)
	f.Approximate = e.Missed > 0 || ns.limits.Assumed || ns.limits.BoundUnknown || d.isStale(ns)
	f.Cause += fmt.Sprintf("; open connections use %s and TIME_WAITs %d",
		counted(round(e.Value.Connections(model)), "port", "ports"), round(e.Value.TimeWaits(model)))
	if key.ownRange {
		f.Cause += "; these sockets have their own range of ports (IP_LOCAL_PORT_RANGE)"
		f.Advice, f.Unverified = ownRangeAdvice, true // the table does not show a range
		return f
	}
	f.Unverified, f.complete = !e.Value.kernel.isVerified(d.tracker), e.Value.kernel.isComplete(d.tracker)
	f.Advice = portAdvice(ns)
	d.addBinds(ns, &f)
	capacity := ns.portsFor(&e.Value)
	if capacity == 0 { // all are bound
		capacity = ns.bindCount
		f.Occupancy = uint64(capacity)
	}
	if capacity == 0 || ns.refutesLimits(float64(f.Occupancy)) {
		return f
	}
	f.Capacity, f.CapacityKind = uint64(capacity), EphemeralPorts
	if f.Occupancy = min(f.Occupancy, f.Capacity); f.Exhausts {
		f.Occupancy = f.Capacity // whatever the model counts
	}
	f.Exhausts = f.Occupancy == f.Capacity
	return f
}

const ownRangeAdvice = "reuse connections: keep-alive, or a pool in the client; if that takes time, give these sockets a wider " +
	"IP_LOCAL_PORT_RANGE, or use more local or peer addresses"
