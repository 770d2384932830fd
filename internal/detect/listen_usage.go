package detect

import "github.com/tcpshift/tcpshift/internal/tcp"

// ListenUsage is how full the fullest accept queue of one service is, in one network namespace.
type ListenUsage struct {
	Share  float64     // of the connections that the queue takes, 0 to 1
	Owner  tcp.Owner   // of the listener; zero: not known, the service is that of all such listeners
	Cgroup *tcp.Cgroup // of the owner; nil: not known
	User   uint32      // of the listener's socket: see [topk.QuotaOf]
}

// maxListenServices bounds the services of one user in one answer of Usage; of all users there are at most twice
// as many (see quota). What is more counts as of a service that is not known.
const maxListenServices = 1024

// listenService identifies a service, see topServices.
type listenService struct {
	netns    uint32
	cgroupID uint64
	comm     tcp.Comm
	known    bool
}

// listenUsages has the fullest queue of each service while Usage runs.
type listenUsages struct {
	services map[listenService]*ListenUsage
	room     quota
}

// addListenUsage adds the accept queues of the namespaces whose listeners were read to their usage. A listener
// that is not remembered counts as one with an empty queue, see takeEach.
func (d *listenQueue) addListenUsage(of func(netns uint32) *Usage) {
	all := listenUsages{make(map[listenService]*ListenUsage), newQuota(2 * maxListenServices)}
	for netns, n := range d.netns {
		if n.readAt == 0 || n.failedAt > 0 || n.count <= 0 {
			continue
		}
		u := of(netns)
		u.HasListeners = true
		for _, s := range n.listeners {
			share := float64(min(s.last.Queued, s.last.Backlog+1)) / (float64(s.last.Backlog) + 1)
			u.ListenQueueShare = max(u.ListenQueueShare, share)
			all.add(netns, s, share)
		}
	}
	for key, s := range all.services {
		u := of(key.netns)
		u.Listeners = append(u.Listeners, *s)
	}
}

func (a *listenUsages) add(netns uint32, s *listener, share float64) {
	key := listenService{netns: netns}
	if s.owner.Source != tcp.PIDUnknown {
		key = listenService{netns, s.owner.cgroupID, s.owner.Comm, true}
	}
	found := a.services[key]
	if found == nil {
		if key.known && !a.room.take(s.user) {
			key = listenService{netns: netns}
			found = a.services[key]
		}
		if found == nil {
			found = &ListenUsage{User: s.user}
			if key.known {
				found.Owner, found.Cgroup = s.owner.Owner, s.owner.cgroup
			}
			a.services[key] = found
		}
	}
	found.Share = max(found.Share, share)
}
