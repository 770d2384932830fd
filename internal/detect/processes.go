package detect

import (
	"math/bits"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// topProcesses counts which processes cause something: the busiest few, by the
// Space-Saving algorithm (see package topk) in an array that is short enough to be
// searched from end to end.
type topProcesses struct {
	list  []processCount
	total uint64 // of all processes, also those that are not in the list
	seen  pidSet // since the last decay
	older pidSet // between the two decays before
}

// pidSet is a set of hashes of pids. It has at most as many members as there are pids: two
// pids may share a hash.
type pidSet [8]uint64

func (s *pidSet) add(pid uint32) {
	bit := pid * 0x9e3779b1 >> (32 - 9) // of 512; 2^32 divided by the golden ratio
	s[bit/64] |= 1 << (bit % 64)
}

type processCount struct {
	pid    uint32
	comm   tcp.Comm
	cgroup *tcp.Cgroup
	count  uint64
	missed uint64 // the part of count that may be of processes replaced by this one
}

// maxProcesses bounds the list.
const maxProcesses = 12

func (p *topProcesses) count(t *tcp.Transition) {
	p.total++
	if t.Owner.Source == tcp.PIDUnknown {
		return
	}
	p.seen.add(t.Owner.PID)
	least := 0
	for i := range p.list {
		c := &p.list[i]
		if c.pid == t.Owner.PID {
			c.comm, c.count = t.Owner.Comm, c.count+1
			if t.Cgroup != nil {
				c.cgroup = t.Cgroup
			}
			return
		}
		if c.count < p.list[least].count {
			least = i
		}
	}
	c := processCount{pid: t.Owner.PID, comm: t.Owner.Comm, cgroup: t.Cgroup, count: 1}
	if len(p.list) < maxProcesses {
		p.list = append(p.list, c)
		return
	}
	c.missed = p.list[least].count
	c.count += c.missed
	p.list[least] = c
}

// decay halves all counts, so that a process that has stopped soon leaves the list.
func (p *topProcesses) decay() {
	kept := p.list[:0]
	for _, c := range p.list {
		c.count, c.missed = c.count/2, c.missed/2
		if c.count > 0 {
			kept = append(kept, c)
		}
	}
	p.list, p.total = kept, p.total/2
	p.older, p.seen = p.seen, pidSet{}
}

// processes is how many processes were counted since the decay before the last one. It is
// never more than there were, and less only if there were more than maxProcesses.
func (p *topProcesses) processes() int {
	count := 0
	for i := range p.seen {
		count += bits.OnesCount64(p.seen[i] | p.older[i])
	}
	return max(count, len(p.list))
}

// TopProcess is the busiest of the processes that cause what an alert reports or, if no
// single process stands out, the comm with the largest part.
type TopProcess struct {
	PID    uint32 // 0: no single process stands out
	Comm   tcp.Comm
	Known  bool // false: no process is known, and the other fields are zero
	Cgroup *tcp.Cgroup
	Share  float64 // 0 to 1: the part of the cause that is of this process; if PID is 0, of all processes named Comm
	// Processes is how many processes take part, and never more than do. If more than
	// maxProcesses do, it may be less.
	Processes int
}

// top names the busiest process. If none has a tenth of the total, it names the comm
// that most of the total has.
func (p *topProcesses) top() TopProcess {
	if len(p.list) == 0 || p.total == 0 {
		return TopProcess{}
	}
	busiest, names := &p.list[0], make(map[tcp.Comm]uint64)
	for i := range p.list {
		c := &p.list[i]
		names[c.comm] += c.count
		if c.atLeast() > busiest.atLeast() {
			busiest = c
		}
	}
	const standsOut = 0.1
	t := TopProcess{Known: true, Processes: p.processes(), PID: busiest.pid, Comm: busiest.comm, Cgroup: busiest.cgroup}
	t.Share = float64(busiest.atLeast()) / float64(p.total)
	if t.Share >= standsOut {
		return t
	}
	t.PID, t.Cgroup = 0, nil
	for i := range p.list {
		name := p.list[i].comm
		if names[name] > names[t.Comm] {
			t.Comm = name
		}
	}
	for i := range p.list {
		if p.list[i].comm == t.Comm {
			t.Cgroup = p.list[i].cgroup
		}
	}
	t.Share = min(1, float64(names[t.Comm])/float64(p.total))
	return t
}

// atLeast is the part of the count that certainly is of this process.
func (c *processCount) atLeast() uint64 { return c.count - c.missed }
