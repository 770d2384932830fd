package detect

import (
	"fmt"
	"time"

	"github.com/tcpshift/tcpshift/internal/detect/rate"
	"github.com/tcpshift/tcpshift/internal/detect/topk"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// bucketStorm finds namespaces whose TIME_WAITs are going to reach
// net.ipv4.tcp_max_tw_buckets. A server that closes first uses these, and no ports.
type bucketStorm struct {
	*tracker
}

func newBucketStorm(tr *tracker) detector { return bucketStorm{tr} }

func (bucketStorm) kind() string { return timeWaitStorm }

func (bucketStorm) needs() tcp.Transitions { return tcp.Transitions{} }

func (bucketStorm) observe(*tcp.Transition) {}

// bucketCause differs in type from the cause of a portStorm, which has the same kind.
type bucketCause struct{ netns uint32 }

func (c bucketCause) inNetns() uint32 { return c.netns }

func (d bucketStorm) check(raise raiser) {
	for _, e := range d.namespaces.Entries() {
		ns := &e.Value
		capacity := float64(ns.limits.MaxTimeWaits)
		if !ns.known || capacity == 0 || ns.limits.Assumed {
			continue
		}
		r := &ns.total
		r.Advance(d.now)
		model := ns.model()
		if r.Occupancy(model) < minShare*capacity {
			continue
		}
		f := r.Forecast(model, capacity)
		if isSuspected(f) {
			ns.suspectedAt = d.now
		}
		describe := func() Finding { return d.describe(e.Key, ns, f) }
		switch {
		case opensStorm(r, f, model, d.Threshold):
			raise(bucketCause{e.Key}, opens, describe)
		case keepsStorm(f):
			raise(bucketCause{e.Key}, keeps, describe)
		}
	}
}

// describe names the heaviest server or destination in the namespace.
func (d bucketStorm) describe(netns uint32, ns *namespace, forecast rate.Forecast) Finding {
	f := Finding{
		Severity: Warning, Netns: netns,
		RateUnit: "connections", Rate: forecast.Rate, Occupancy: round(forecast.Occupancy), OccupancySource: ns.source(d.now),
		Capacity: uint64(forecast.Capacity), CapacityKind: TimeWaitBuckets,
		Projected:    round(forecast.Rate * rate.TimeWaitHold.Seconds()),
		ExhaustionIn: forecast.ExhaustedIn.Round(time.Millisecond), Exhausts: forecast.Exhausts,
	}
	f.Cause = fmt.Sprintf("connections are short, and this host closes them first; the kernel keeps at most %d TIME_WAITs, "+
		"and without one late packets may reach a later connection", f.Capacity)
	f.Advice = "reuse connections: keep-alive, with longer idle timeouts on the server than on its clients; if that takes time, spread them over more addresses"
	busiestServer := heaviest(d.servers, func(key server) bool { return key.netns == netns })
	busiestClient := heaviest(d.destinations, func(key destination) bool { return key.netns == netns })
	switch s, c := busiestServer, busiestClient; {
	case c != nil && (s == nil || c.Weight > s.Weight):
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

// heaviest returns the heaviest entry whose key matches, or nil.
func heaviest[K comparable, V any](table *topk.Table[K, V], matches func(key K) bool) (found *topk.Entry[K, V]) {
	for _, e := range table.Entries() {
		if matches(e.Key) && (found == nil || e.Weight > found.Weight) {
			found = e
		}
	}
	return found
}
