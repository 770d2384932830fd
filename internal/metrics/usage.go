package metrics

import (
	"cmp"
	"maps"
	"slices"
	"strconv"

	"github.com/tcpshift/tcpshift/internal/detect"
	"github.com/tcpshift/tcpshift/internal/record"
)

// Usage takes how much of their ports, timewait sockets and accept queues the namespaces use. It may change the
// slice.
func (m *Metrics) Usage(all []detect.Usage) {
	slices.SortFunc(all, func(a, b detect.Usage) int {
		return cmp.Or(cmp.Compare(b.Share(), a.Share()), cmp.Compare(a.Netns, b.Netns))
	})
	found := new(gauges)
	for _, u := range all[:min(len(all), maxNames)] {
		found.addUsage(&u, strconv.FormatUint(uint64(u.Netns), 10))
	}
	if len(all) > maxNames {
		rest := sumOf(all[maxNames:])
		found.addUsage(&rest, other)
	}
	found.addQueues(all)
	m.usage.Store(found)
}

// sumOf joins namespaces: the largest shares, and the sums of what is counted.
func sumOf(all []detect.Usage) (rest detect.Usage) {
	for _, u := range all {
		if u.LimitsKnown {
			rest.LimitsKnown = true
			rest.TimeWaits += max(0, u.TimeWaits)
			rest.MaxTimeWaits += u.MaxTimeWaits
		}
		if u.PortsShare() > rest.PortsShare() || rest.Ports == 0 {
			rest.PortsUsed, rest.Ports = u.PortsUsed, u.Ports
		}
		rest.HasListeners = rest.HasListeners || u.HasListeners
		rest.ListenQueueShare = max(rest.ListenQueueShare, u.ListenQueueShare)
	}
	return rest
}

func (g *gauges) addUsage(u *detect.Usage, name string) {
	if u.HasListeners {
		g.add(familyListenQueue, u.ListenQueueShare, name)
	}
	if !u.LimitsKnown {
		return
	}
	if u.Ports > 0 {
		g.add(familyPortsUsed, u.PortsShare(), name)
		g.add(familyPorts, u.Ports, name)
	}
	if u.TimeWaits >= 0 {
		g.add(familyTimeWaits, u.TimeWaits, name)
	}
	g.add(familyTimeWaitLimit, u.MaxTimeWaits, name)
}

// serviceQueue is the fullest accept queue of a service.
type serviceQueue struct {
	name  string
	user  uint32
	share float64
}

// addQueues adds the fullest accept queue of each service, in all namespaces. Of more than maxNames services those
// with the fullest have series. Those of one user get more than maxUserNames only if others leave room.
func (g *gauges) addQueues(all []detect.Usage) {
	list := serviceQueues(all)
	shown, users := 0, make(map[uint32]int)
	show := func(s *serviceQueue) {
		shown++
		users[s.user]++
		g.add(familyServiceQueue, s.share, record.Printable(s.name))
	}
	var left []*serviceQueue
	for _, s := range list {
		if s.name == other || shown == maxNames || users[s.user] == maxUserNames {
			left = append(left, s)
		} else {
			show(s)
		}
	}
	rest, hasRest := 0.0, false
	for _, s := range left {
		if s.name == other || shown == maxNames {
			rest, hasRest = max(rest, s.share), true
		} else {
			show(s)
		}
	}
	if hasRest {
		g.add(familyServiceQueue, rest, other)
	}
}

// serviceQueues returns the fullest accept queue of each service, the fullest of all first.
func serviceQueues(all []detect.Usage) []*serviceQueue {
	byName := make(map[string]*serviceQueue)
	for i := range all {
		for j := range all[i].Listeners {
			l := &all[i].Listeners[j]
			name := ownerService(&l.Owner, l.Cgroup)
			if s := byName[name]; s == nil || l.Share > s.share {
				byName[name] = &serviceQueue{name, l.User, l.Share}
			}
		}
	}
	return slices.SortedFunc(maps.Values(byName), func(a, b *serviceQueue) int {
		return cmp.Or(cmp.Compare(b.share, a.share), cmp.Compare(a.name, b.name))
	})
}
