package summary

import (
	"net/netip"
	"time"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// Failures are the ways to end that count as a failure, in the order of [Totals.Failed].
var Failures = [...]tcp.ClosedBy{
	tcp.ClosedByResetSent, tcp.ClosedByResetReceived, tcp.ClosedByTimeout, tcp.ClosedByAbort, tcp.ClosedByRefused,
	tcp.ClosedByNoPort, tcp.ClosedByAddressInUse,
}

// Row sums up the connections of one owner, in one role and with one peer, that have ended in one window.
type Row struct {
	Start, End time.Time // of the window; End does not belong to it
	Role       tcp.Role
	// Other means that the row sums up the connections of this role that have no row of their own. The fields up
	// to Port are zero then.
	Other bool

	OwnerKnown     bool // false: the next four are zero
	Service        string
	ServiceClaimed bool // a user other than root may have chosen Service
	Comm           tcp.Comm
	Cgroup         *tcp.Cgroup // nil: not known
	CgroupID       uint64      // of the kernel, the newest of this path; 0: not known

	Peer netip.Addr // invalid: not known, or a listener
	Port uint16     // the peer's; the local one of servers and listeners; 0: not known

	Totals
	Duration Quantiles // from the opening of a connection to its end
	RTT      Quantiles // the kernel's smoothed round-trip time at the end
}

// Totals are sums over connections.
type Totals struct {
	Connections uint64
	Sent        uint64 // bytes of payload
	Received    uint64 // bytes of payload
	Retransmits uint64 // segments
	TimeWaits   uint64 // connections that left a TIME_WAIT
	Failed      [len(Failures)]uint64
}

// Add counts a connection.
func (s *Totals) Add(last *tcp.Transition, c *tcp.Connection) {
	s.Connections++
	s.Sent += c.Sent
	s.Received += c.Received
	s.Retransmits += uint64(c.Retransmits)
	if last.New == tcp.TimeWait {
		s.TimeWaits++
	}
	if c.ClosedBy == tcp.ClosedByLocal || c.ClosedBy == tcp.ClosedByPeer { // most: none of Failures
		return
	}
	for i, by := range Failures {
		if c.ClosedBy == by {
			s.Failed[i]++
		}
	}
}

// Failures is how many of the connections have failed.
func (s *Totals) Failures() (n uint64) {
	for _, failed := range s.Failed {
		n += failed
	}
	return n
}

// Merge adds the sums of o.
func (s *Totals) Merge(o *Totals) {
	s.Connections += o.Connections
	s.Sent += o.Sent
	s.Received += o.Received
	s.Retransmits += o.Retransmits
	s.TimeWaits += o.TimeWaits
	for i := range o.Failed {
		s.Failed[i] += o.Failed[i]
	}
}

// Quantiles are the median and the 99th percentile, within 1 %.
type Quantiles struct {
	Known    bool // false: no connection has the value
	P50, P99 time.Duration
}

func isService(role tcp.Role) bool { return role == tcp.RoleServer || role == tcp.RoleListener }
