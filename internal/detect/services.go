package detect

import (
	"slices"
	"time"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// topServices counts how often each service causes something, and each of their processes. It keeps the
// busiest few of both by the Space-Saving algorithm (see package topk), in arrays that are
// short enough to be searched from end to end. A service is all processes in one cgroup
// whose main threads have one name.
type topServices struct {
	pids      []uint32 // of processes, in the same order: each transition searches them
	processes []processCount
	services  []*serviceCount
	total     uint64 // also of services that are not in the list, and of unknown processes

	uid uint32 // of the newest socket whose process is not known: the user of an alert that names no process

	floor       uint64 // no process in the list has a smaller count; see lightest
	searchIndex int    // index in processes, where lightest goes on
}

type serviceCount struct {
	comm     tcp.Comm
	cgroupID uint64
	cgroup   *tcp.Cgroup // nil: not known
	count    uint64
	missed   uint64 // the part of count that may be of services replaced by this one
	slot     int    // index in services; a service that replaces this one gets the same index, and its count
}

type processCount struct {
	pid     uint32
	service *serviceCount
	at      time.Duration // of its newest transition
	uid     uint32        // of the socket of that transition
	count   uint64
	missed  uint64 // the part of count that may be of processes replaced by this one
}

const (
	// maxProcesses and maxServices bound the lists.
	maxProcesses = 32
	maxServices  = 8
)

// countedFor is the service and the process for which count has counted something. uncount takes it back;
// the process may have been replaced in the list by then. The zero value is an unknown process.
type countedFor struct {
	service *serviceCount
	pid     uint32
}

// count counts one more for the owner of t, which may be unknown.
func (s *topServices) count(t *tcp.Transition) countedFor {
	if t.Owner.Source == tcp.PIDUnknown {
		s.uid = t.UID
		s.countUnknown()
		return countedFor{}
	}
	s.total++
	p := s.find(t)
	if p == nil {
		p = s.insert(t)
	}
	p.add(t)
	return countedFor{p.service, p.pid}
}

// find returns the entry for the process of t in its present service, or nil.
func (s *topServices) find(t *tcp.Transition) *processCount {
	for i, pid := range s.pids {
		if pid == t.Owner.PID {
			if p := &s.processes[i]; p.service.matches(t) {
				return p
			}
			return nil
		}
	}
	return nil
}

// add counts one more.
func (p *processCount) add(t *tcp.Transition) {
	p.count, p.at, p.uid = p.count+1, t.Monotonic, t.UID
	c := p.service
	c.count++
	if t.Cgroup != c.cgroup && t.Cgroup != nil {
		c.cgroup = t.Cgroup
	}
}

// countUnknown counts what an unknown process has caused.
func (s *topServices) countUnknown() { s.total++ }

// matches reports whether the process of t belongs to this service.
func (c *serviceCount) matches(t *tcp.Transition) bool {
	return c.comm == t.Owner.Comm && c.cgroupID == t.CgroupID
}

// insert returns an entry for the process of t. A process that is in the list has another
// service since it has called execve() or was moved: it counts anew.
func (s *topServices) insert(t *tcp.Transition) *processCount {
	p := processCount{pid: t.Owner.PID, service: s.insertService(t)}
	i := slices.Index(s.pids, p.pid)
	switch {
	case i >= 0:
		s.floor = 0
	case len(s.pids) < maxProcesses:
		i, s.floor = len(s.pids), 0
		s.pids, s.processes = append(s.pids, p.pid), append(s.processes, p)
	default:
		i = s.lightest()
		p.count = s.processes[i].count
		p.missed = p.count
	}
	s.pids[i], s.processes[i] = p.pid, p
	return &s.processes[i]
}

// lightest returns the index of a process with the smallest count. It continues after the process that it found
// last: where there are many processes, most have the smallest count or one more.
func (s *topServices) lightest() int {
	for range s.processes {
		if s.searchIndex++; s.searchIndex >= len(s.processes) {
			s.searchIndex = 0
		}
		if s.processes[s.searchIndex].count <= s.floor {
			return s.searchIndex
		}
	}
	for i := range s.processes {
		if s.processes[i].count < s.processes[s.searchIndex].count {
			s.searchIndex = i
		}
	}
	s.floor = s.processes[s.searchIndex].count
	return s.searchIndex
}

func (s *topServices) insertService(t *tcp.Transition) *serviceCount {
	for _, c := range s.services {
		if c.matches(t) {
			return c
		}
	}
	c := &serviceCount{comm: t.Owner.Comm, cgroupID: t.CgroupID, cgroup: t.Cgroup, slot: len(s.services)}
	if len(s.services) < maxServices {
		s.services = append(s.services, c)
		return c
	}
	least := 0
	for i := range s.services {
		if s.services[i].count < s.services[least].count {
			least = i
		}
	}
	replaced := s.services[least]
	c.count, c.missed, c.slot = replaced.count, replaced.count, least
	s.services[least] = c
	s.keepProcesses(func(p *processCount) bool { return p.service != replaced })
	return c
}

// uncount takes back what count has counted.
func (s *topServices) uncount(by countedFor) {
	s.total -= min(1, s.total)
	if by.service == nil {
		return
	}
	c := s.services[by.service.slot]
	c.count -= min(1, c.count)
	if c != by.service {
		c.missed -= min(1, c.missed) // c has replaced the service, and taken over its count
	}
	c.missed = min(c.missed, c.count)
	i := slices.Index(s.pids, by.pid)
	if i < 0 || s.processes[i].service != c {
		return
	}
	s.floor = 0
	p := &s.processes[i]
	p.count -= min(1, p.count)
	if p.missed = min(p.missed, p.count); p.atLeast() == 0 {
		s.removeProcess(i)
	}
}

// removeProcess removes the process at index i, and keeps the order of the others.
func (s *topServices) removeProcess(i int) {
	last := len(s.pids) - 1
	copy(s.pids[i:], s.pids[i+1:])
	copy(s.processes[i:], s.processes[i+1:])
	s.processes[last] = processCount{} // so that it points to no service
	s.pids, s.processes, s.floor = s.pids[:last], s.processes[:last], 0
}

// decay halves all counts, so that a process that causes nothing any more soon leaves the list.
func (s *topServices) decay() {
	s.total /= 2
	for _, c := range s.services {
		c.count, c.missed = c.count/2, c.missed/2
	}
	s.keepProcesses(func(p *processCount) bool {
		p.count, p.missed = p.count/2, p.missed/2
		return p.count > 0
	})
}

func (s *topServices) keepProcesses(keep func(p *processCount) bool) {
	kept := 0
	for _, p := range s.processes {
		if keep(&p) {
			s.pids[kept], s.processes[kept] = p.pid, p
			kept++
		}
	}
	clear(s.processes[kept:]) // of pointers to services
	s.pids, s.processes, s.floor = s.pids[:kept], s.processes[:kept], 0
}

// culprit names the two largest services, and counts the processes of the first one that have
// taken part at the time since or later. It assumes that all of them live.
func (s *topServices) culprit(since time.Duration) Culprit {
	first, next := s.largest()
	if first < 0 {
		return Culprit{user: quotaOf(s.uid)}
	}
	largest := s.services[first]
	c := Culprit{
		Known: true, Service: tcp.ServiceName(largest.cgroup, &largest.comm), Comm: largest.comm, Cgroup: largest.cgroup,
		Share: s.share(largest.atLeast()), total: s.total, first: largest.identity(),
	}
	if next >= 0 {
		second := s.services[next]
		c.next = second.identity()
		c.nameNext(second.cgroup)
		c.NextShare = min(1-c.Share, s.share(second.atLeast()))
	}
	c.user = s.userOf(largest)
	for i := range s.processes {
		if p := &s.processes[i]; p.service == largest && p.at >= since {
			candidate := *p
			candidate.service = nil // an alert must not refer to what changes
			c.candidates = append(c.candidates, candidate)
		}
	}
	c.nameLiving(nil)
	return c
}

// userOf returns the user, see quotaOf, whose processes have caused most of what a service has.
func (s *topServices) userOf(c *serviceCount) (user uint32) {
	counts := make(map[uint32]uint64)
	for i := range s.processes {
		if p := &s.processes[i]; p.service == c {
			counts[quotaOf(p.uid)] += p.count
		}
	}
	var most uint64
	for each, count := range counts {
		if count > most || count == most && each < user {
			user, most = each, count
		}
	}
	return user
}

// largest returns the indexes of the largest service and of the next one, -1 if there is none.
func (s *topServices) largest() (first, next int) {
	first, next = -1, -1
	for i := range s.services {
		switch count := s.services[i].atLeast(); {
		case count == 0:
		case first < 0 || count > s.services[first].atLeast():
			first, next = i, first
		case next < 0 || count > s.services[next].atLeast():
			next = i
		}
	}
	if next >= 0 && s.share(s.services[next].atLeast()) < minShareNamed {
		next = -1
	}
	return first, next
}

func (s *topServices) share(count uint64) float64 {
	return min(1, float64(count)/float64(max(1, s.total)))
}

// atLeast is the part of the count that certainly is of this service.
func (c *serviceCount) atLeast() uint64 { return c.count - c.missed }

// atLeast is the part of the count that certainly is of this process.
func (p *processCount) atLeast() uint64 { return p.count - p.missed }

func (c *serviceCount) identity() service { return service{c.cgroupID, c.comm} }
