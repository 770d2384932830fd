package detect

import (
	"fmt"
	"time"

	"github.com/tcpshift/tcpshift/internal/detect/rate"
	"github.com/tcpshift/tcpshift/internal/detect/topk"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// bucketStorm finds namespaces whose TIME_WAITs are going to reach
// net.ipv4.tcp_max_tw_buckets. The TIME_WAITs of a server that closes first use up these, and no ports.
type bucketStorm struct {
	*tracker
}

func newBucketStorm(tr *tracker) detector { return bucketStorm{tr} }

func (bucketStorm) kind() string { return timeWaitStorm }

func (bucketStorm) needs() tcp.Transitions { return tcp.Transitions{} }

func (bucketStorm) observe(*tcp.Transition) {}

// bucketCause differs in type from the cause of a portStorm, which has the same kind.
type bucketCause struct{ netns uint32 }

func (c bucketCause) netnsInode() uint32 { return c.netns }

func (d bucketStorm) check(raise raiser) {
	for _, e := range d.namespaces.Entries() {
		ns := &e.Value
		capacity := float64(ns.limits.MaxTimeWaits)
		if !ns.known || capacity == 0 || ns.limits.Assumed || d.isMissing(e.Key, ns) {
			ns.opensSince = 0
			continue
		}
		r := &ns.notReusable
		r.Advance(d.now)
		model := ns.modelOfAll(d.now)
		if r.Occupancy(model) < minShare*capacity {
			ns.opensSince = 0
			continue
		}
		f := r.Forecast(model, capacity)
		reported := f
		if f.Occupancy >= exhaustedShare*capacity { // the kernel may keep none of those that close now
			if closes, isKnown := ns.overflows.closes(d.now, r); isKnown {
				reported.Rate = closes
			}
		}
		projected := r.Plateau(reported.Rate, model)
		if f.Exhausts {
			if most, isBounded := d.withinPorts(e.Key, r, model, f); isBounded {
				projected, f.Exhausts = most, most > capacity
			}
		}
		if isSuspected(f) {
			ns.suspectedAt = d.now
		}
		opening := opensStorm(r, f, model, d.Threshold, 0)
		c := d.claimOf(opening, &ns.opensSince, ns.isCounted(d.tracker), ns.countedAt > d.lostAt, f)
		if c != 0 {
			ns.overflows.raised(d.now, c)
			reported.Exhausts = f.Exhausts
			raise(bucketCause{e.Key}, c, func() Finding { return d.describe(e.Key, ns, reported, projected) })
		}
	}
}

// withinPorts is how many TIME_WAITs a namespace will have at most at the rate of the forecast.
// A client that exhausts its local ports leaves no more TIME_WAITs than it has ports: connect()
// fails from then on, and a portStorm reports that. isBounded means that there is such a client.
func (d bucketStorm) withinPorts(netns uint32, r *rate.Estimator, m rate.TimeWaitModel, f rate.Forecast) (most float64, isBounded bool) {
	var ports, present, taken float64 // of the clients that exhaust their ports
	for _, e := range d.destinations.Entries() {
		if e.Key.netns != netns {
			continue
		}
		u := &e.Value
		capacity, ns := d.portCapacity(e.Key, u)
		if capacity == 0 || float64(e.Weight) < minShare*capacity || ns.takesOver(e.Key, u) {
			continue
		}
		u.Advance(d.now)
		model := ns.modelFor(d.now, e.Key, u)
		if keepsStorm(u.Forecast(model, capacity)) {
			ports += capacity
			present += u.TimeWaits(model)
			taken += u.Taken(f.Window)
		}
	}
	if ports == 0 {
		return 0, false
	}
	others := f.Rate * (1 - min(1, taken/max(1, r.Taken(f.Window))))
	return ports + max(r.Plateau(others, m), f.Occupancy-present), true
}

// describe makes the finding. It names the server or destination that has the most TIME_WAITs of the namespace.
func (d bucketStorm) describe(netns uint32, ns *namespace, forecast rate.Forecast, projected float64) Finding {
	f := Finding{
		Severity: Warning, Netns: netns,
		RateUnit: "connections", Rate: forecast.Rate, Occupancy: round(min(forecast.Occupancy, forecast.Capacity)), OccupancySource: FromEvents,
		Capacity: uint64(forecast.Capacity), CapacityKind: TimeWaitBuckets, Unverified: true,
		Projected:    round(projected),
		ExhaustionIn: forecast.ExhaustedIn.Round(time.Millisecond), Exhausts: forecast.Exhausts, Overflows: ns.overflows.sinceOpened(),
	}
	if ns.isCounted(d.tracker) {
		f.OccupancySource, f.Unverified, f.complete = FromKernel, false, ns.isComplete(d.tracker)
	}
	f.Cause = fmt.Sprintf("connections are short, and this host closes them first; the kernel keeps at most %s, "+
		"and beyond that none: late packets may then reach a later connection", counted(f.Capacity, "TIME_WAIT", "TIME_WAITs"))
	if f.Overflows > 0 {
		f.Cause += fmt.Sprintf("; %s closed without one since this alert opened", counted(f.Overflows, "connection has", "connections have"))
	}
	f.Advice = "reuse connections: keep-alive, with longer idle timeouts on the server than on its clients; if that takes time, spread them over more addresses"
	s, byServer := entryWithMost(d.servers, func(key server, use *serverUse) (int64, bool) {
		return use.timeWaits(), key.netns == netns
	})
	c, byClient := entryWithMost(d.destinations, func(key destination, use *destinationUse) (int64, bool) {
		return use.timeWaits(), key.netns == netns
	})
	switch {
	case c != nil && (s == nil || byClient > byServer):
		f.Role, f.Culprit, f.Local = tcp.RoleClient, d.culpritOf(&c.Value.topServices), tcp.Endpoint{Addr: c.Key.local}
		f.Peer = tcp.Endpoint{Addr: c.Key.peer, Port: c.Key.peerPort}
		f.Approximate = c.Missed > 0
	case s != nil:
		f.Role, f.Culprit = tcp.RoleServer, d.culpritOf(&s.Value.topServices)
		f.Local = tcp.Endpoint{Addr: s.Key.local, Port: s.Key.port}
		f.Approximate = s.Missed > 0
	}
	return f
}

func (u *destinationUse) timeWaits() int64 { return recordedTimeWaits(&u.Estimator) }
func (u *serverUse) timeWaits() int64      { return recordedTimeWaits(&u.Estimator) }

// recordedTimeWaits is how many timewait sockets were created within the last 64 s. Unlike the weight of a
// destination it does not count open connections, which take none of tcp_max_tw_buckets.
func recordedTimeWaits(e *rate.Estimator) int64 {
	timeWait, finWait2 := e.RecordedTimeWaits()
	return timeWait + finWait2
}

// entryWithMost returns the entry with the largest result of count, and that result. It leaves out entries for
// which count returns false, and returns nil if none is left.
func entryWithMost[K comparable, V any](table *topk.Table[K, V], count func(key K, use *V) (int64, bool)) (found *topk.Entry[K, V], most int64) {
	for _, e := range table.Entries() {
		if timeWaits, counts := count(e.Key, &e.Value); counts && (found == nil || timeWaits > most) {
			found, most = e, timeWaits
		}
	}
	return found, most
}
