package detect

import (
	"fmt"
	"time"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// bucketStorm finds namespaces whose TIME_WAITs are going to reach
// tcp_max_tw_buckets. A server that closes first spends no ports, only these.
type bucketStorm struct {
	*world
}

func newBucketStorm(w *world) detector { return bucketStorm{w} }

func (bucketStorm) kind() string { return "time_wait_storm" }

func (bucketStorm) needs() tcp.Transitions { return tcp.Transitions{} }

func (bucketStorm) observe(*tcp.Transition) {}

// bucketCause is another than any portKey.
type bucketCause struct{ netns uint32 }

func (d bucketStorm) check(raise raiser) {
	for _, e := range d.namespaces.all {
		ns := &e.value
		capacity := float64(ns.limits.MaxTimeWaits)
		if !ns.known || capacity == 0 || ns.limits.Assumed {
			continue
		}
		m := &ns.total
		m.at(d.now)
		r := ns.rules()
		if m.held(r) < 0.25*capacity {
			continue
		}
		o := m.look(r, capacity)
		if o.held >= suspectedAt*capacity || o.ends {
			ns.suspected = d.now
		}
		describe := func() Finding { return d.describe(e.key, ns, o) }
		switch {
		case m.stormy(o, r, d.Threshold):
			raise(bucketCause{e.key}, false, describe)
		case o.ends || o.held >= 0.95*capacity:
			raise(bucketCause{e.key}, true, describe)
		}
	}
}

func (d bucketStorm) describe(netns uint32, ns *namespace, o outlook) Finding {
	f := Finding{
		Severity: Warning, Netns: netns,
		Counted: "connections", Rate: o.rate, Occupancy: round(o.held), OccupancySource: ns.source(d.now),
		Capacity: uint64(o.capacity), CapacityKind: TimeWaitBuckets,
		Projected:    round(o.rate * timeWait.Seconds()),
		ExhaustionIn: o.left.Round(time.Millisecond), Exhausts: o.ends,
	}
	f.Cause = fmt.Sprintf("connections are short, and this host closes them first; beyond %d TIME_WAITs the kernel keeps none, "+
		"so that late packets may reach a later connection", f.Capacity)
	f.Advice = "reuse connections: keep-alive, with longer idle timeouts on the server than on its clients; if that takes time, spread over more addresses"
	if server := d.busiestServer(netns); server != nil {
		f.Role, f.Who = tcp.RoleServer, server.value.who()
		f.Local = tcp.Endpoint{Addr: server.key.local, Port: server.key.port}
		f.Approximate = server.missed > 0
	}
	client := d.busiestClient(netns)
	if client != nil && (f.Role == 0 || client.weight > d.busiestServer(netns).weight) {
		f.Role, f.Who, f.Local = tcp.RoleClient, client.value.who(), tcp.Endpoint{Addr: client.key.local}
		f.Peer = tcp.Endpoint{Addr: client.key.peer, Port: client.key.peerPort}
		f.Approximate = client.missed > 0
	}
	return f
}

func (w *world) busiestServer(netns uint32) (busiest *entry[serverKey, serverUse]) {
	for _, e := range w.servers.all {
		if e.key.netns == netns && (busiest == nil || e.weight > busiest.weight) {
			busiest = e
		}
	}
	return busiest
}

func (w *world) busiestClient(netns uint32) (busiest *entry[portKey, portUse]) {
	for _, e := range w.ports.all {
		if e.key.netns == netns && (busiest == nil || e.weight > busiest.weight) {
			busiest = e
		}
	}
	return busiest
}
