package activity

import (
	"cmp"
	"slices"
	"time"

	"github.com/tcpshift/tcpshift/internal/detect"
	"github.com/tcpshift/tcpshift/internal/summary"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// Snapshot is the activity at one moment. It does not change.
type Snapshot struct {
	At, Began time.Time
	Total     Service // of all services; its name is empty
	Lost      uint64  // transitions

	// Sockets is how many sockets are in each state, by [tcp.State]; SYN_RECV includes requests. It is valid if
	// SocketsKnown. SocketsAt is when the kernel counted them; zero: they are counted from transitions.
	Sockets      [maxStates]uint64
	SocketsKnown bool
	SocketsAt    time.Time

	Services     []Service                 // in no order; the one that sums up those without an entry is Other
	Destinations []detect.DestinationUsage // the largest shares first
	Alerts       []detect.Alert            // that are open: critical ones first, then the oldest
	AlertsOpened uint64                    // since the beginning
	Details      []summary.Row
}

// Service is one service: its connections that have ended, and its sockets.
type Service struct {
	Key
	Name  string // "": no owner is known
	Path  string // of the cgroup; "": not known
	Other bool   // the sum of the services that have no entry
	summary.Totals
	// Rates per second, over the last seconds.
	Rate, FailedRate, RetransmitRate float64
	Open, CloseWait                  uint64 // sockets: neither in LISTEN nor in TIME_WAIT
}

func (a *Activity) snapshot(now time.Time, lost uint64) *Snapshot {
	s := &Snapshot{
		At: now, Began: a.began, Lost: lost, AlertsOpened: a.opened, Details: a.details.Rows(),
		SocketsKnown: a.sockets.known, SocketsAt: a.sockets.at,
	}
	s.Total = a.service(&a.total, now)
	for i, n := range a.sockets.byState {
		s.Sockets[i] = uint64(max(0, n))
	}
	a.addServices(s, now)
	if a.config.Destinations != nil {
		s.Destinations = a.config.Destinations(maxDestinations)
	}
	for _, alert := range a.alerts {
		s.Alerts = append(s.Alerts, alert)
	}
	slices.SortFunc(s.Alerts, func(x, y detect.Alert) int {
		return cmp.Or(cmp.Compare(x.Severity, y.Severity), cmp.Compare(y.Lasted, x.Lasted), cmp.Compare(x.ID, y.ID))
	})
	return s
}

func (a *Activity) addServices(s *Snapshot, now time.Time) {
	seen := make(map[Key]bool, a.services.Len())
	for _, e := range a.services.Entries() {
		one := a.service(&e.Value.counted, now)
		one.Key, one.Name, one.Path = e.Key, nameOf(&e.Key, e.Value.cgroup), pathOf(e.Value.cgroup)
		one.addSockets(a.sockets.byService[e.Key])
		seen[e.Key] = true
		s.Services = append(s.Services, one)
	}
	for key, of := range a.sockets.byService {
		if seen[key] || of.open <= 0 {
			continue
		}
		one := Service{Key: key, Name: nameOf(&key, of.cgroup), Path: pathOf(of.cgroup)}
		one.addSockets(of)
		s.Services = append(s.Services, one)
	}
	if a.others.Connections > 0 || a.sockets.others.open > 0 {
		one := a.service(&a.others, now)
		one.Other = true
		one.addSockets(&a.sockets.others)
		s.Services = append(s.Services, one)
	}
}

func (s *Service) addSockets(of *serviceSockets) {
	if of != nil {
		s.Open, s.CloseWait = uint64(max(0, of.open)), uint64(max(0, of.closeWait))
	}
}

func nameOf(key *Key, cgroup *tcp.Cgroup) string {
	if !key.Known {
		return ""
	}
	return tcp.ServiceName(cgroup, &key.Comm)
}

func pathOf(cgroup *tcp.Cgroup) string {
	if cgroup == nil {
		return ""
	}
	return cgroup.Path
}

// service returns sums and rates.
func (a *Activity) service(c *counted, now time.Time) Service {
	s := Service{Totals: c.Totals}
	elapsed := now.Sub(a.times[a.count-1]).Seconds()
	if elapsed <= 0 {
		return s
	}
	is, was := c.sums(), c.before[a.count-1] // zero at the beginning
	s.Rate = float64(is.connections-was.connections) / elapsed
	s.FailedRate = float64(is.failed-was.failed) / elapsed
	s.RetransmitRate = float64(is.retransmits-was.retransmits) / elapsed
	return s
}
