package detect

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"github.com/tcpshift/tcpshift/internal/detect/topk"
)

// Usage is how much of its local ports, timewait sockets and accept queues a network namespace uses.
type Usage struct {
	Netns       uint32 // inode number
	LimitsKnown bool   // the limits were read: the values up to MaxTimeWaits count
	// PortsUsed is how many of Ports the destination with the largest share uses. Ports is how many connect()
	// may choose for it; 0: no destination is known.
	PortsUsed, Ports float64
	TimeWaits        float64 // by the kernel's count when its limits were read; negative: not known
	MaxTimeWaits     float64 // net.ipv4.tcp_max_tw_buckets

	HasListeners     bool          // there are listeners, and they were read: the values below count
	ListenQueueShare float64       // of the fullest accept queue, 0 to 1
	Listeners        []ListenUsage // by service; listeners that are older than tcpshift may be missing
}

// PortsShare is the part of the ports that are in use, 0 to 1.
func (u *Usage) PortsShare() float64 {
	if u.Ports == 0 {
		return 0
	}
	return min(1, u.PortsUsed/u.Ports)
}

// Share is the largest part of a capacity that is in use.
func (u *Usage) Share() float64 {
	share := max(u.PortsShare(), u.ListenQueueShare)
	if u.MaxTimeWaits > 0 {
		share = max(share, u.TimeWaits/u.MaxTimeWaits)
	}
	return share
}

// Usage returns the usage of the namespaces whose limits or listeners were read, in no order. It takes as long
// as a tick.
func (e *Engine) Usage(now time.Duration) []Usage {
	tr := e.tracker
	byNetns := make(map[uint32]*Usage)
	for _, n := range tr.namespaces.Entries() {
		if ns := &n.Value; ns.known && !ns.limits.Assumed {
			byNetns[n.Key] = &Usage{Netns: n.Key, LimitsKnown: true, TimeWaits: float64(ns.limits.TimeWaits), MaxTimeWaits: float64(ns.limits.MaxTimeWaits)}
		}
	}
	for _, d := range tr.destinations.Entries() {
		of := byNetns[d.Key.netns]
		used, ports, known := tr.portsUsed(now, d)
		if of == nil || !known {
			continue
		}
		here := Usage{PortsUsed: used, Ports: ports}
		if of.Ports == 0 || here.PortsShare() > of.PortsShare() {
			of.PortsUsed, of.Ports = here.PortsUsed, here.Ports
		}
	}
	tr.addListenUsage(func(netns uint32) *Usage {
		if byNetns[netns] == nil {
			byNetns[netns] = &Usage{Netns: netns}
		}
		return byNetns[netns]
	})
	all := make([]Usage, 0, len(byNetns))
	for _, u := range byNetns {
		all = append(all, *u)
	}
	return all
}

// portsUsed is how many local ports a destination uses, and how many connect() may choose for it. It is not known for
// sockets with a range of their own, or if the limits of the namespace are not known.
func (tr *tracker) portsUsed(now time.Duration, d *topk.Entry[destination, destinationUse]) (used, ports float64, known bool) {
	ns := tr.knownNamespace(d.Key.netns)
	if ns == nil || d.Key.ownRange {
		return 0, 0, false
	}
	u := &d.Value
	u.Advance(now)
	return max(0, u.Occupancy(ns.modelFor(now, d.Key, u))), float64(ns.portsFor(u)), true
}

// DestinationUsage is how many local ports one destination uses.
type DestinationUsage struct {
	Netns       uint32 // inode number
	Local, Peer netip.Addr
	PeerPort    uint16
	PortsUsed   float64       // in connections and TIME_WAITs
	Ports       float64       // that connect() may choose; 0: all are bound by others
	Rate        float64       // connections that open, per second
	Exhausts    bool          // the ports will be exhausted within one hold time, at this rate
	ExhaustedIn time.Duration // only where Exhausts; 0: they are exhausted
	Assumed     bool          // the limits could not be read: they are the kernel's defaults
}

// Share is the part of the ports that are in use, 0 to 1.
func (d *DestinationUsage) Share() float64 {
	u := Usage{PortsUsed: d.PortsUsed, Ports: d.Ports}
	return u.PortsShare()
}

// Destinations returns the limit destinations with the largest shares of their ports in use, these first. It takes as
// long as a tick.
func (e *Engine) Destinations(now time.Duration, limit int) []DestinationUsage {
	tr := e.tracker
	type candidate struct {
		DestinationUsage
		entry *topk.Entry[destination, destinationUse]
	}
	var all []candidate
	for _, d := range tr.destinations.Entries() {
		used, ports, known := tr.portsUsed(now, d)
		if known && used >= 0.5 {
			all = append(all, candidate{DestinationUsage{
				Netns: d.Key.netns, Local: d.Key.local, Peer: d.Key.peer, PeerPort: d.Key.peerPort, PortsUsed: used, Ports: ports,
			}, d})
		}
	}
	slices.SortFunc(all, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(b.Share(), a.Share()), cmp.Compare(b.PortsUsed, a.PortsUsed), a.Peer.Compare(b.Peer),
			cmp.Compare(a.PeerPort, b.PeerPort), a.Local.Compare(b.Local), cmp.Compare(a.Netns, b.Netns))
	})
	all = all[:min(limit, len(all))]
	found := make([]DestinationUsage, 0, len(all))
	for _, c := range all {
		tr.forecast(now, c.entry, &c.DestinationUsage)
		found = append(found, c.DestinationUsage)
	}
	return found
}

// forecast adds the rate of a destination, and when its ports will be exhausted.
func (tr *tracker) forecast(now time.Duration, d *topk.Entry[destination, destinationUse], u *DestinationUsage) {
	capacity, ns := tr.portCapacity(d.Key, &d.Value)
	f := tr.exhausted.of(d.Key).correct(now, d.Value.Forecast(ns.modelFor(now, d.Key, &d.Value), capacity))
	u.Rate, u.Assumed = f.Rate, ns.limits.Assumed
	if capacity > 0 { // else TIME_WAITs never take all ports
		u.Exhausts, u.ExhaustedIn = f.Exhausts, f.ExhaustedIn
	}
}
