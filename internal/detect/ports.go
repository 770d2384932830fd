package detect

import (
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// portStorm finds clients whose TIME_WAITs are going to take the last local port
// for a destination.
type portStorm struct {
	*world
}

// few connections are no storm, whatever the capacity.
const few = 8

func newPortStorm(w *world) detector { return portStorm{w} }

func (portStorm) kind() string { return "time_wait_storm" }

func (portStorm) needs() tcp.Transitions { return tcp.Transitions{} }

func (portStorm) observe(*tcp.Transition) {}

func (d portStorm) check(raise raiser) {
	for _, e := range d.ports.all {
		if e.weight < few {
			continue
		}
		capacity, ns := d.capacity(e)
		if capacity == 0 || float64(e.weight) < 0.25*capacity {
			continue
		}
		u := &e.value
		u.at(d.now)
		o := u.look(ns.rulesOf(e.key), capacity)
		if o.held >= suspectedAt*capacity || o.ends {
			ns.suspected = d.now
		}
		if u.lingering(ns.rulesOf(e.key)) < 0.5*o.held {
			continue // the connections that are open take more: no TIME_WAIT is to blame
		}
		switch {
		case u.stormy(o, ns.rulesOf(e.key), d.Threshold):
			raise(e.key, false, func() Finding { return d.describe(e, ns, o) })
		case o.ends || o.held >= 0.95*capacity:
			raise(e.key, true, func() Finding { return d.describe(e, ns, o) })
		}
	}
}

// capacity is 0 where it is not known, or not what limits.
func (w *world) capacity(e *entry[portKey, portUse]) (float64, *namespace) {
	found := w.namespaces.find(e.key.netns, &e.key.netns)
	if found == nil || !found.value.known {
		return 0, nil
	}
	ns := &found.value
	capacity := float64(ns.limits.Ports())
	if float64(ns.limits.MaxTimeWaits) < capacity {
		return 0, ns // so many TIME_WAITs never come to be
	}
	return capacity, ns
}

// stormy decides whether to open an alert: there is an end, it is no chance, and
// it is either near and most is taken, or what leads there has lasted.
func (m *meter) stormy(o outlook, r rules, threshold float64) bool {
	if !o.ends {
		return false
	}
	if _, ends := m.forecast(o.rate-o.off, r, o.capacity); !ends {
		return false
	}
	taken := o.held / o.capacity
	// What is taken in the time that an event takes to come here and out again.
	const way = 0.1
	near := min(threshold, max(threshold-0.1, 0.8-way*o.rate/o.capacity))
	if (o.left > longest || taken < near) && (taken < threshold-0.2 || !m.steady(o)) {
		return false
	}
	return !m.fading(o) && (m.certain(o, r) || taken >= 0.95)
}

func (d portStorm) describe(e *entry[portKey, portUse], ns *namespace, o outlook) Finding {
	u, l := &e.value, &ns.limits
	f := Finding{
		Severity: severity(o), Who: u.who(),
		Netns: e.key.netns, Role: tcp.RoleClient,
		Local: tcp.Endpoint{Addr: e.key.local}, Peer: tcp.Endpoint{Addr: e.key.peer, Port: e.key.peerPort},
		Counted: "connections", Rate: o.rate, Occupancy: round(o.held), OccupancySource: ns.source(d.now),
		Capacity: uint64(o.capacity), CapacityKind: EphemeralPorts,
		Projected:    round(o.rate*ns.rulesOf(e.key).hold.Seconds() + float64(u.live)),
		ExhaustionIn: o.left, Exhausts: o.ends,
		Approximate: e.missed > 0 || l.Assumed,
	}
	lingering := round(u.lingering(ns.rulesOf(e.key)))
	f.Cause = fmt.Sprintf("%d of the %d ports held are TIME_WAITs: the connections are short, and this side closes them first, "+
		"which keeps each one's port for 60 s; at this rate that makes %d", lingering, f.Occupancy, f.Projected)
	if u.noPort > 0 && d.now-u.noPortAt < timeWait {
		f.Cause += fmt.Sprintf("; %d connects have failed already", u.noPort)
		f.Failures = u.noPort
	}
	f.Advice = portAdvice(l)
	return f
}

func severity(o outlook) Severity {
	const soon = 20 * time.Second
	if o.ends && o.left < soon {
		return Critical
	}
	return Warning
}

func round(v float64) uint64 { return uint64(math.Round(max(0, v))) }

// portAdvice: the first is the cure, the others buy time.
func portAdvice(l *Limits) string {
	advice := "reuse connections: keep-alive, or a pool in the client; if that takes time, use more local or peer addresses; then widen " +
		"net.ipv4.ip_local_port_range"
	if l.Assumed {
		return advice
	}
	advice += fmt.Sprintf(", now %d to %d", l.PortLow, l.PortHigh)
	if n := int(l.PortHigh) - int(l.PortLow) + 1 - l.Ports(); n > 0 {
		advice += fmt.Sprintf(" with %s of them reserved or bound", strconv.Itoa(n))
	}
	return advice
}
