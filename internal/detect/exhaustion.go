package detect

import (
	"fmt"
	"time"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// portExhaustion tells of connects that found no local port, as soon as there is one.
type portExhaustion struct {
	*world
	causes map[portKey]*exhausted
}

type exhausted struct {
	culprits
	failed uint64
	last   time.Duration
	recent ring[uint32]
}

func newPortExhaustion(w *world) detector {
	return &portExhaustion{world: w, causes: make(map[portKey]*exhausted)}
}

func (*portExhaustion) kind() string { return "port_exhaustion" }

func (*portExhaustion) needs() tcp.Transitions {
	return between([]tcp.State{tcp.SynSent}, []tcp.State{tcp.Close})
}

func (d *portExhaustion) observe(t *tcp.Transition) {
	if t.Old != tcp.SynSent || t.New != tcp.Close || tcp.EndOf(t) != tcp.ClosedByNoPort {
		return
	}
	key := keyOf(t)
	c := d.causes[key]
	if c == nil {
		if len(d.causes) >= openLimit {
			return
		}
		c = &exhausted{}
		d.causes[key] = c
	}
	c.add(t)
	c.failed++
	c.last = max(c.last, t.Monotonic)
	c.recent.advance(int64(c.last / time.Second))
	c.recent.slots[c.recent.newest%seconds]++
	d.namespace(t.Netns).suspected = d.now
}

func (d *portExhaustion) check(raise raiser) {
	for key, c := range d.causes {
		if d.now-c.last >= calm {
			delete(d.causes, key)
			continue
		}
		// Between two failures it lasts; the last one may have been calm ago.
		raise(key, false, func() Finding { return d.describe(key, c) })
	}
}

func (d *portExhaustion) describe(key portKey, c *exhausted) Finding {
	c.recent.advance(int64(d.now / time.Second))
	const window = 10
	f := Finding{
		Severity: Critical, Who: c.who(), Netns: key.netns, Role: tcp.RoleClient,
		Local: tcp.Endpoint{Addr: key.local}, Peer: tcp.Endpoint{Addr: key.peer, Port: key.peerPort},
		Counted: "failed connects", Rate: float64(c.recent.sum(0, window)) / window, Exhausts: true, Failures: c.failed,
		Cause:  "connect() found no free local port for this destination and failed with EADDRNOTAVAIL",
		Advice: "reuse connections: keep-alive, or a pool in the client; if that takes time, use more local or peer addresses; then widen net.ipv4.ip_local_port_range",
	}
	e := d.ports.find(key.spread(), &key)
	if e == nil {
		return f
	}
	capacity, ns := d.capacity(e)
	if capacity == 0 {
		return f
	}
	r := ns.rulesOf(key)
	f.Occupancy, f.OccupancySource = round(e.value.held(r)), ns.source(d.now)
	f.Capacity, f.CapacityKind = uint64(capacity), EphemeralPorts
	f.Approximate = e.missed > 0 || ns.limits.Assumed
	f.Cause += fmt.Sprintf("; %d ports are held by open connections and %d by TIME_WAITs", e.value.live, round(e.value.lingering(r)))
	f.Advice = portAdvice(&ns.limits)
	return f
}
