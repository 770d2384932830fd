package detect

import (
	"net/netip"
	"slices"
	"time"
)

// Limits are what a network namespace has room for, as read at one moment.
type Limits struct {
	PortLow, PortHigh uint16   // net.ipv4.ip_local_port_range
	Reserved          []uint16 // net.ipv4.ip_local_reserved_ports within it, sorted
	Bound             []uint16 // ports that somebody has bound, and listens on or keeps, sorted

	Reuse      int           // net.ipv4.tcp_tw_reuse: 0 never, 1 always, 2 on loopback
	ReuseDelay time.Duration // net.ipv4.tcp_tw_reuse_delay; a second where the kernel has none
	Timestamps bool          // net.ipv4.tcp_timestamps, without which nothing is reused
	FinTimeout time.Duration // net.ipv4.tcp_fin_timeout

	MaxTimeWaits int // net.ipv4.tcp_max_tw_buckets
	TimeWaits    int // in the namespace now, both kinds

	Assumed bool // nothing could be read: these are the kernel's defaults
}

// defaults are the kernel's, for a namespace that cannot be entered.
func defaults() Limits {
	return Limits{
		PortLow: 32768, PortHigh: 60999, Reuse: 2, ReuseDelay: time.Second, Timestamps: true,
		FinTimeout: time.Minute, MaxTimeWaits: 1 << 17, TimeWaits: -1, Assumed: true,
	}
}

// Ports is how many of them connect() may choose from.
func (l *Limits) Ports() int {
	taken := len(l.Reserved)
	for _, port := range l.Bound {
		if port >= l.PortLow && port <= l.PortHigh && !has(l.Reserved, port) {
			taken++
		}
	}
	return max(0, int(l.PortHigh)-int(l.PortLow)+1-taken)
}

// chooses says whether connect() may choose this port.
func (l *Limits) chooses(port uint16) bool {
	return port >= l.PortLow && port <= l.PortHigh && !has(l.Reserved, port) && !has(l.Bound, port)
}

func has(sorted []uint16, port uint16) bool {
	_, found := slices.BinarySearch(sorted, port)
	return found
}

// reuses says whether connect() may take over a TIME_WAIT between these addresses,
// as tcp_twsk_unique() decides it.
func (l *Limits) reuses(local, peer netip.Addr) bool {
	if !l.Timestamps {
		return false
	}
	return l.Reuse == 1 || l.Reuse == 2 && (local.IsLoopback() || peer.IsLoopback())
}
