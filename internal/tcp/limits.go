package tcp

import (
	"net/netip"
	"time"
)

// Limits are the settings and counts that limit the connections of a network namespace,
// as read at one moment. The names in the comments are sysctls of the namespace.
type Limits struct {
	PortLow, PortHigh uint16   // net.ipv4.ip_local_port_range, both included
	Reserved          *PortSet // net.ipv4.ip_local_reserved_ports within that range
	Bound             *PortSet // local ports of listeners and, since Linux 6.8, of sockets that are bound and not connected

	// BindBuckets are the local ports that connect() skips for every destination, because bind()
	// has made or joined their bind buckets: those of listeners, of their children, of sockets that
	// were bound before connect(), and of the TIME_WAITs of all of these; nil: not known.
	BindBuckets *PortSet
	BoundReadAt time.Duration // when Bound and BindBuckets were read, CLOCK_BOOTTIME; 0: they were not

	Reuse      int           // net.ipv4.tcp_tw_reuse: 0 never, 1 always, 2 on loopback
	ReuseDelay time.Duration // net.ipv4.tcp_tw_reuse_delay, since Linux 6.14; before that 1 s
	Timestamps bool          // net.ipv4.tcp_timestamps: new connections use them if the peer does
	FinTimeout time.Duration // net.ipv4.tcp_fin_timeout

	// ReusesFinWait2 means that connect() takes over timewait sockets in FIN_WAIT2 as those in
	// TIME_WAIT: before Linux 6.12.
	ReusesFinWait2 bool

	MaxTimeWaits int // net.ipv4.tcp_max_tw_buckets
	TimeWaits    int // timewait sockets now, of both substates; -1: not known

	// TimeWaitOverflows is how many connections the kernel has closed without a timewait socket, since the namespace
	// was made, because there were MaxTimeWaits or no memory (TCPTimeWaitOverflow); -1: not known.
	TimeWaitOverflows int64

	Assumed      bool // the namespace could not be read: see DefaultLimits
	BoundUnknown bool // Bound could not be read
	BoundPartial bool // Bound lacks the sockets that are bound and not connected: before Linux 6.8
}

// DefaultLimits are the kernel's defaults, for a namespace that cannot be entered. The kernel
// derives tcp_max_tw_buckets from its memory (ehash size / 2): MaxTimeWaits is a typical value.
func DefaultLimits() Limits {
	return Limits{
		PortLow: 32768, PortHigh: 60999, Reuse: 2, ReuseDelay: time.Second, Timestamps: true,
		FinTimeout: time.Minute, MaxTimeWaits: 1 << 17, TimeWaits: -1, TimeWaitOverflows: -1, Assumed: true,
	}
}

// PortCount is the number of ports that connect() may choose from, for one destination, by the
// range, Reserved and Bound. It does not look at BindBuckets.
func (l *Limits) PortCount() int {
	if l.PortHigh < l.PortLow {
		return 0
	}
	return int(l.PortHigh) - int(l.PortLow) + 1 - l.Reserved.unionLen(l.Bound, l.PortLow, l.PortHigh)
}

// BoundCount is how many of the ports that connect() could choose otherwise are in Bound.
func (l *Limits) BoundCount() int {
	if l.PortHigh < l.PortLow {
		return 0
	}
	return l.Reserved.unionLen(l.Bound, l.PortLow, l.PortHigh) - l.Reserved.unionLen(nil, l.PortLow, l.PortHigh)
}

// BucketsWithout returns the ports from PortLow to PortHigh that are in BindBuckets, and that connect()
// could choose if they were not, except those for which except is true.
func (l *Limits) BucketsWithout(except func(port uint16) bool) *PortSet {
	found := &PortSet{}
	for port := range l.BindBuckets.Within(l.PortLow, l.PortHigh) {
		if !l.Reserved.Has(port) && !l.Bound.Has(port) && !except(port) {
			found.Add(port)
		}
	}
	return found
}

// IsEphemeral reports whether connect() may choose this port, by the range, Reserved and Bound. It
// does not look at BindBuckets.
func (l *Limits) IsEphemeral(port uint16) bool {
	return port >= l.PortLow && port <= l.PortHigh && !l.Reserved.Has(port) && !l.Bound.Has(port)
}

// AllowsReuse reports whether tcp_tw_reuse allows connect() to take over TIME_WAITs between
// these addresses, by the rule of tcp_twsk_unique() (net/ipv4/tcp_ipv4.c), which also allows it for sockets that are
// bound to the device lo: AllowsReuse does not know these. The caller must check
// the other conditions: the TIME_WAIT has a timestamp of the peer, its substate is not
// FIN_WAIT2 (unless ReusesFinWait2), and it is older than ReuseDelay.
func (l *Limits) AllowsReuse(local, peer netip.Addr) bool {
	return l.Reuse == 1 || l.Reuse == 2 && (local.IsLoopback() || peer.IsLoopback())
}

// TimeWaitTimeout is the time until the timer of a TIME_WAIT expires: TCP_TIMEWAIT_LEN
// (include/net/tcp.h).
const TimeWaitTimeout = time.Minute

// FinWait2TimewaitTimeout is the time until the timer of a timewait socket in FIN_WAIT2 expires,
// unless the socket has its own TCP_LINGER2. With FinTimeout above a minute the socket first
// stays a full socket for FinTimeout less a minute, and then the timewait socket lasts as long
// again (tcp_rcv_state_process() and tcp_keepalive_timer()). The kernel waits longer for a socket whose
// retransmission timeout, times 3.5, is longer (tcp_fin_time() and tcp_time_wait()).
func (l *Limits) FinWait2TimewaitTimeout() time.Duration {
	if l.FinTimeout > TimeWaitTimeout {
		return l.FinTimeout - TimeWaitTimeout
	}
	return l.FinTimeout
}
