package detect

import "time"

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
		of, ns := byNetns[d.Key.netns], tr.knownNamespace(d.Key.netns)
		if of == nil || d.Key.ownRange {
			continue
		}
		u := &d.Value
		u.Advance(now)
		here := Usage{PortsUsed: max(0, u.Occupancy(ns.modelFor(now, d.Key, u))), Ports: float64(ns.portsFor(u))}
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
