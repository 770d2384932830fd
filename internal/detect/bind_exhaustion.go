package detect

import (
	"fmt"
	"time"

	"github.com/tcpshift/tcpshift/internal/detect/rate"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// bindExhaustion finds namespaces in which bind() will soon take the last port of the range, or has
// taken it. Then bind() to port 0 fails, which makes no transition, and connect() finds no port for any
// destination. The bound ports are those of connections that were bound before connect(), of their
// TIME_WAITs, of children of listeners, and of sockets that are bound and not connected. The kind of its
// alerts is port_exhaustion.
type bindExhaustion struct{ *tracker }

// bindCause is what its alert is about: all bound ports of a namespace.
type bindCause struct{ netns uint32 }

func (c bindCause) netnsInode() uint32 { return c.netns }

// boundReadFor is how long a list of bound ports verifies their number: the next one comes
// after ten seconds, or later if it is costly.
const boundReadFor = 15 * time.Second

const (
	// boundGrowthFor is for how long growth between the lists is taken to go on without a further one, and boundListFor
	// for how long the ports of an old list raise an alert. Where each list costs much they come further apart: then it
	// is twice the gap between the two newest, if that is longer, because the growth shows only from one list to
	// the next. maxBoundFor bounds that: after a quiet time the gap says nothing.
	boundGrowthFor = 2 * boundReadFor
	boundListFor   = time.Minute
	maxBoundFor    = unreadableFor
)

func newBindExhaustion(tr *tracker) detector { return bindExhaustion{tr} }

func (bindExhaustion) kind() string { return portExhaustionKind }

func (bindExhaustion) needs() tcp.Transitions { return tcp.Transitions{} }

func (bindExhaustion) observe(*tcp.Transition) {}

func (bindExhaustion) pin(cause) {}

// failures implements failureCounter.
func (d bindExhaustion) failures(c cause) uint64 {
	if ns := d.knownNamespace(c.netnsInode()); ns != nil {
		return ns.bindFailures
	}
	return 0
}

// boundGrowth is how fast the number of sockets grows that are bound and not connected. They make no
// transition: only the kernel's lists show them.
type boundGrowth struct {
	readAt    time.Duration // of the newest list; 0: there is none
	gap       time.Duration // between the newest list and the one before
	count     int           // in the newest list
	perSecond [2]float64    // growth up to the newest list, and up to the one before
}

// take takes the time of a new list and the number of sockets in it, and updates the growths.
func (g *boundGrowth) take(readAt time.Duration, count int) {
	if after := readAt - g.readAt; g.readAt > 0 && after > 0 {
		g.perSecond[1], g.perSecond[0] = g.perSecond[0], float64(count-g.count)/after.Seconds()
		g.gap = after
	}
	g.readAt, g.count = readAt, count
}

// rate is the lower of the two growths per second, or 0: a number that has grown once may be chance, and growth
// that no list has shown for a while may be over.
func (g *boundGrowth) rate(now time.Duration) float64 {
	if !g.lasts(now, boundGrowthFor) {
		return 0
	}
	return max(0, min(g.perSecond[0], g.perSecond[1]))
}

// lasts reports whether what the newest list has shown still counts, which it does for at least this long.
func (g *boundGrowth) lasts(now, atLeast time.Duration) bool {
	return now-g.readAt <= max(atLeast, min(2*g.gap, maxBoundFor))
}

// hasBoundList reports whether the newest list of bound ports still raises alerts.
func (ns *namespace) hasBoundList(now time.Duration) bool {
	return ns.limits.BoundReadAt == 0 || ns.bound.lasts(now, boundListFor)
}

func (d bindExhaustion) check(raise raiser) {
	for _, e := range d.namespaces.Entries() {
		ns := &e.Value
		if !ns.known || ns.bindCount+ns.bound.count < minConnections {
			ns.bindOpensSince = 0
			continue
		}
		d.checkNamespace(e.Key, ns, raise)
	}
}

func (d bindExhaustion) checkNamespace(netns uint32, ns *namespace, raise raiser) {
	f, opening := d.forecast(ns, true)
	if isSuspected(f) { // by an old list, too: a new one is wanted
		ns.suspectedAt = d.now
	}
	if !ns.hasBoundList(d.now) {
		f, opening = d.forecast(ns, false)
	}
	open := ns.hasBindAlert(d.now)
	if !open && d.now-ns.bindRaisedAt >= 2*quietPeriod && d.now-ns.boundOutAt >= 2*quietPeriod {
		ns.bindFailures = 0 // the close of the last alert has reported them
	}
	failing := !open && ns.boundOutAt > 0 && d.now-ns.boundOutAt < 2*quietPeriod // portExhaustion has an alert about that
	if !keepsStorm(f) || failing || d.isOfOneDestination(netns, ns) {
		ns.bindOpensSince = 0
		if d.hasFreshList(ns) {
			raise(bindCause{netns}, doubted, nil)
		}
		return
	}
	c := d.claimOf(opening, &ns.bindOpensSince, d.hasFreshList(ns), ns.limits.BoundReadAt > d.lostAt, f)
	if open || c&opens != 0 {
		ns.bindRaisedAt = d.now
	}
	raise(bindCause{netns}, c, func() Finding { return d.describe(netns, ns, f) })
}

// hasBindAlert reports whether an alert about the bound ports of the namespace is open.
func (ns *namespace) hasBindAlert(now time.Duration) bool {
	return ns.bindRaisedAt > 0 && now-ns.bindRaisedAt < quietPeriod
}

// hasBoundOutAlert reports whether connect() finds no port for a destination because all are bound,
// and an alert about that is open.
func (tr *tracker) hasBoundOutAlert(key destination) bool {
	ns := tr.knownNamespace(key.netns)
	return ns != nil && ns.hasBindAlert(tr.now) && tr.hasNoPorts(ns, key)
}

// hasNoPorts reports whether all ports that connect() could choose for a destination are bound. It is false for
// sockets with their own range, whose ports are not known.
func (tr *tracker) hasNoPorts(ns *namespace, key destination) bool {
	var use *destinationUse // nil: no connection is open
	if e := tr.destinations.Find(key, key.hash()); e != nil {
		use = &e.Value
	}
	return !key.ownRange && ns.portsFor(use) == 0
}

// hasFreshList reports whether the kernel's list of bound ports verifies their number: it is at most
// boundReadFor old, and was read after the last loss.
func (d bindExhaustion) hasFreshList(ns *namespace) bool {
	return ns.limits.BoundReadAt > 0 && d.now-ns.limits.BoundReadAt <= boundReadFor && d.lostAt < ns.limits.BoundReadAt
}

// forecast predicts when no port is left that is neither reserved nor bound. opening means that an
// alert is to open. Without listed it leaves out the ports that only the kernel's list shows.
func (d bindExhaustion) forecast(ns *namespace, listed bool) (f rate.Forecast, opening bool) {
	observed, others := ns.bindCount-ns.bindsOther, 0
	if listed {
		others = ns.bindsOther + ns.bound.count
	}
	if u := ns.bindUse; u != nil && observed > 0 {
		u.Advance(d.now)
		model := ns.model()
		model.Scale, model.FinFraction = 1, 1
		model.OpenOffset = float64(observed) - u.Occupancy(model)
		f = u.Forecast(model, float64(ns.ports+ns.bound.count-others))
		opening = opensStorm(u, f, model, d.Threshold, 0)
	}
	f.Occupancy, f.Capacity = float64(observed+others), float64(ns.ports+ns.bound.count)
	free := f.Capacity - f.Occupancy
	if grows := ns.bound.rate(d.now); grows > 0 && listed {
		f.Rate += grows
		in := time.Duration(max(0, free) / grows * float64(time.Second))
		if in <= rate.TimeWaitHold && (!f.Exhausts || in < f.ExhaustedIn) {
			f.Exhausts, f.ExhaustedIn = true, in
			opening = opening || f.Occupancy >= d.Threshold*f.Capacity
		}
	}
	if free <= 0 {
		f.Exhausts, f.ExhaustedIn, opening = true, 0, true
	}
	return f, opening
}

// isOfOneDestination reports whether the connections to one destination have bound most of the ports,
// and that destination has a storm of its own: its alert is open, or about to open.
func (d bindExhaustion) isOfOneDestination(netns uint32, ns *namespace) bool {
	for _, e := range d.destinations.Entries() {
		u := &e.Value
		if e.Key.netns == netns && 2*u.binds > ns.bindCount+ns.bound.count && (u.stormAt == d.now || u.kernel.opensSince > 0) {
			return true
		}
	}
	return false
}

func (d bindExhaustion) describe(netns uint32, ns *namespace, forecast rate.Forecast) Finding {
	observed, others, bound := ns.bindCount-ns.bindsOther, ns.bindsOther, ns.bound.count
	if !ns.hasBoundList(d.now) {
		others, bound = 0, 0
	}
	f := Finding{
		Severity: stormSeverity(forecast), Culprit: d.culpritOf(&ns.bindServices), Netns: netns, Role: tcp.RoleClient,
		RateUnit: "ports bound", Rate: forecast.Rate, Occupancy: round(min(forecast.Occupancy, forecast.Capacity)), OccupancySource: FromEvents,
		Capacity: round(forecast.Capacity), CapacityKind: EphemeralPorts, Exhausts: forecast.Exhausts, ExhaustionIn: forecast.ExhaustedIn,
		Approximate: ns.limits.Assumed || ns.limits.BoundUnknown || ns.limits.BoundPartial || ns.limits.BindBuckets == nil || !ns.hasBoundList(d.now),
		Unverified:  !d.hasFreshList(ns), complete: d.hasFreshList(ns) && d.now-d.lostAt > rate.MaxWindow,
	}
	if d.hasFreshList(ns) {
		f.OccupancySource = FromKernel
	}
	f.Cause = counted(f.Occupancy, "local port is bound", "local ports are bound") +
		fmt.Sprintf(", and free for no destination: %d by connections that were bound before connect() and their "+
			"TIME_WAITs, %d by connections that tcpshift has not seen open or by children of listeners, and %d by listeners and sockets that are not connected; "+
			"if none is left, bind() to port 0 fails with EADDRINUSE, and connect() with EADDRNOTAVAIL", observed, others, bound)
	if f.Failures = ns.bindFailures; f.Failures > 0 {
		f.Cause += "; " + connectsFailed(f.Failures)
	}
	if observed < others+bound {
		f.Culprit = Culprit{} // the owners of most are not known
	}
	f.Advice = "bind() an address without a port (IP_BIND_ADDRESS_NO_PORT), so that connections share ports between destinations; close sockets " +
		"that are bound and not used (`ss -tanp`); then widen net.ipv4.ip_local_port_range"
	if !ns.limits.Assumed {
		f.Advice += fmt.Sprintf(", now %d to %d", ns.limits.PortLow, ns.limits.PortHigh)
	}
	return f
}
