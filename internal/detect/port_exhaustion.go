package detect

import (
	"fmt"
	"time"

	"github.com/tcpshift/tcpshift/internal/detect/rate"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// portExhaustion reports connects that found no local port, from the first one on.
type portExhaustion struct {
	*tracker
	exhausted map[destination]*exhaustion
	perNetns  map[uint32]int // of exhausted, by namespace
}

// maxExhausted bounds the destinations without a free port in one namespace: some more than
// can have an alert. So a namespace takes no room from another one.
const maxExhausted = maxOpenAlerts + 2*maxCriticalAlerts

type exhaustion struct {
	topServices
	failed     uint64 // since the cause began
	lastFailed time.Duration
	bySecond   rate.Counter // failures
}

// exhaustionWindow is how many seconds the rate of failures is taken over.
const exhaustionWindow = 10

func newPortExhaustion(tr *tracker) detector {
	return &portExhaustion{tracker: tr, exhausted: make(map[destination]*exhaustion), perNetns: make(map[uint32]int)}
}

func (*portExhaustion) kind() string { return "port_exhaustion" }

func (*portExhaustion) needs() tcp.Transitions {
	return between([]tcp.State{tcp.SynSent}, []tcp.State{tcp.Close})
}

func (d *portExhaustion) observe(t *tcp.Transition) {
	if t.Old != tcp.SynSent || t.New != tcp.Close || tcp.ClosedByOf(t) != tcp.ClosedByNoPort {
		return
	}
	key := destinationOf(t)
	x := d.exhausted[key]
	if x == nil {
		if len(d.exhausted) >= d.MaxDestinations || d.perNetns[t.Netns] >= maxExhausted {
			return
		}
		x = &exhaustion{}
		d.perNetns[t.Netns]++
		d.exhausted[key] = x
	}
	x.count(t)
	x.failed++
	x.lastFailed = max(x.lastFailed, t.Monotonic)
	x.bySecond.Advance(int64(x.lastFailed / time.Second))
	x.bySecond.Add(1)
	d.activeNamespace(t.Netns).suspectedAt = d.now
}

func (d *portExhaustion) check(raise raiser) {
	for key, x := range d.exhausted {
		if d.now-x.lastFailed >= quietPeriod {
			delete(d.exhausted, key)
			if d.perNetns[key.netns]--; d.perNetns[key.netns] == 0 {
				delete(d.perNetns, key.netns)
			}
			continue
		}
		c := opens
		if d.verifies(key) {
			c |= verified
		}
		raise(key, c, func() Finding { return d.describe(key, x) })
	}
}

// verifies asks for the kernel's count of a destination, and reports whether it is there. The
// kernel itself has refused the port: the alert need not wait for the count. Of sockets with
// their own range there is none, because the table does not show the range.
func (d *portExhaustion) verifies(key destination) bool {
	e, ns := d.destinations.Find(key, key.hash()), d.namespaces.Find(key.netns, uint64(key.netns))
	if e == nil || ns == nil || key.ownRange {
		return false
	}
	d.suspect(&ns.Value, &e.Value.kernel, true, true)
	return e.Value.kernel.isVerified(d.tracker)
}

func (d *portExhaustion) describe(key destination, x *exhaustion) Finding {
	x.bySecond.Advance(int64(d.now / time.Second))
	f := Finding{
		Severity: Critical, Culprit: d.culpritOf(&x.topServices), Netns: key.netns, Role: tcp.RoleClient,
		Local: tcp.Endpoint{Addr: key.local}, Peer: tcp.Endpoint{Addr: key.peer, Port: key.peerPort},
		RateUnit: "failed connects", Rate: float64(x.bySecond.Sum(0, exhaustionWindow)) / exhaustionWindow, Exhausts: true, Failures: x.failed,
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
	model := ns.modelFor(d.now, key, &e.Value)
	f.Occupancy, f.OccupancySource = round(e.Value.Occupancy(model)), e.Value.kernel.source(d.tracker)
	f.Approximate = e.Missed > 0 || ns.limits.Assumed || ns.limits.BoundUnknown || d.isStale(ns)
	f.Cause += fmt.Sprintf("; open connections use %d ports and TIME_WAITs %d", round(e.Value.Connections(model)), round(e.Value.TimeWaits(model)))
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
	}
	if capacity == 0 {
		return f
	}
	f.Capacity, f.CapacityKind = uint64(capacity), EphemeralPorts
	// The kernel has found no free port, whatever the model says.
	if f.Occupancy = min(f.Occupancy, f.Capacity); d.now-x.lastFailed < time.Second {
		f.Occupancy = f.Capacity
	}
	return f
}

const ownRangeAdvice = "reuse connections: keep-alive, or a pool in the client; if that takes time, give these sockets a wider " +
	"IP_LOCAL_PORT_RANGE, or use more local or peer addresses"
