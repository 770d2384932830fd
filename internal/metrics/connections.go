package metrics

import (
	"slices"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

const (
	// maxStates bounds the numbers of states that are told apart: the kernel has 13. All others count as 0.
	maxStates = 16
	roleCount = int(tcp.RoleListener) + 1
	// maxCells bounds the series of connections by service, without those of the others: with all other
	// series there are fewer than 5,000.
	maxCells = 1300
	// sharedCells is how many of them any user may take. What is left is for users with fewer than minUserCells:
	// a user may have three quotas (see topk.QuotaOf), and all are full.
	sharedCells  = maxCells * 3 / 4
	minUserCells = 60
)

// ways are the values of the label closed_by: "" means that it is not known. causes are those of the label
// cause of failed connects.
var (
	ways   = waysToClose()
	causes = append(waysToClose(), unreachable)
)

// unreachable is the cause of a connect that an ICMP message or the routing table has ended.
const unreachable = "unreachable"

const (
	maxWays   = 12
	maxCauses = maxWays + 1
)

func waysToClose() []string {
	list := []string{""}
	for _, way := range tcp.WaysToClose() {
		list = append(list, string(way))
	}
	return list
}

// wayIndex is the index of each way in ways, and in causes.
var wayIndex = func() map[tcp.ClosedBy]int {
	m := make(map[tcp.ClosedBy]int)
	for i, way := range ways {
		m[tcp.ClosedBy(way)] = i
	}
	return m
}()

// connectionCounts are the connections of one service that have ended.
type connectionCounts struct {
	ended  [roleCount][maxWays]atomic.Uint64
	failed [maxCauses]atomic.Uint64 // of ended: connects that failed
	cells  int                      // counts that are not 0; only the loop uses it
}

// roleCounts are sums over the connections of one role.
type roleCounts struct {
	sent, received, retransmits atomic.Uint64
	rtt, duration               prometheus.Observer // nil: the role has none
}

// hasTimes reports whether connections of a role have a round-trip time and a duration.
func hasTimes(role tcp.Role) bool { return role == tcp.RoleClient || role == tcp.RoleServer }

func (r *roleCounts) add(last *tcp.Transition, c *tcp.Connection) {
	r.sent.Add(c.Sent)
	r.received.Add(c.Received)
	r.retransmits.Add(uint64(c.Retransmits))
	if r.rtt == nil {
		return
	}
	if c.RTT > 0 {
		r.rtt.Observe(c.RTT.Seconds())
	}
	if c.OpenedAt != 0 && !isFailedConnect(last) {
		r.duration.Observe(max(0, last.Monotonic-c.OpenedAt).Seconds())
	}
}

// isFailedConnect reports whether a client's connection has never been established.
func isFailedConnect(last *tcp.Transition) bool {
	return last.Role == tcp.RoleClient && last.Old == tcp.SynSent
}

// countConnection counts a connection for its service. If there are as many series as there may be, it
// counts among the others.
func (m *Metrics) countConnection(s *slot[connectionCounts], last *tcp.Transition, c *tcp.Connection) {
	role, way := roleIndex(last.Role), wayIndex[c.ClosedBy]
	m.count(s, &s.counts.ended[role][way], &m.services.other.counts.ended[role][way])
	if isFailedConnect(last) {
		cause := causeOf(last, c)
		m.count(s, &s.counts.failed[cause], &m.services.other.counts.failed[cause])
	}
}

func (m *Metrics) count(s *slot[connectionCounts], cell, others *atomic.Uint64) {
	if cell != others && cell.Load() == 0 {
		if m.cells >= maxCells || m.cells >= sharedCells && m.userCells[s.user] >= minUserCells {
			others.Add(1)
			return
		}
		m.cells++
		m.userCells[s.user]++
		s.counts.cells++
	}
	cell.Add(1)
}

// causeOf is the index in causes of a connect that failed.
func causeOf(last *tcp.Transition, c *tcp.Connection) int {
	if c.ClosedBy == "" && slices.Contains([]unix.Errno{unix.EHOSTUNREACH, unix.ENETUNREACH, unix.EHOSTDOWN, unix.ENETDOWN}, unix.Errno(last.Error)) {
		return len(causes) - 1
	}
	return wayIndex[c.ClosedBy]
}

func stateIndex(s tcp.State) int {
	if s < maxStates {
		return int(s)
	}
	return 0
}

func roleIndex(r tcp.Role) int {
	if int(r) < roleCount {
		return int(r)
	}
	return int(tcp.RoleUnknown)
}

// serviceOf names the service of the owner. It is empty if no owner is known.
func serviceOf(last *tcp.Transition) string {
	return ownerService(&last.Owner, last.Cgroup)
}

func ownerService(owner *tcp.Owner, cgroup *tcp.Cgroup) string {
	if owner.Source == tcp.PIDUnknown {
		return ""
	}
	return tcp.ServiceName(cgroup, &owner.Comm)
}
