package detect

import "github.com/tcpshift/tcpshift/internal/tcp"

// culprits counts whose doing something is: the busiest few processes, by
// Space-Saving in an array so small that it is searched from end to end.
type culprits struct {
	list  []culprit
	total uint64 // of all, those not in the list included
	seen  int    // processes that came into the list, again and again if need be
}

type culprit struct {
	pid    uint32
	comm   tcp.Comm
	cgroup *tcp.Cgroup
	count  uint64
	missed uint64
}

const culpritsKept = 12

func (c *culprits) add(t *tcp.Transition) {
	c.total++
	if t.Owner.Source == tcp.PIDUnknown {
		return
	}
	least := 0
	for i := range c.list {
		p := &c.list[i]
		if p.pid == t.Owner.PID {
			p.comm, p.count = t.Owner.Comm, p.count+1
			if t.Cgroup != nil {
				p.cgroup = t.Cgroup
			}
			return
		}
		if p.count < c.list[least].count {
			least = i
		}
	}
	c.seen++
	p := culprit{pid: t.Owner.PID, comm: t.Owner.Comm, cgroup: t.Cgroup, count: 1}
	if len(c.list) < culpritsKept {
		c.list = append(c.list, p)
		return
	}
	p.missed = c.list[least].count
	p.count += p.missed
	c.list[least] = p
}

// fade halves what was, so that who has stopped is soon no culprit any more.
func (c *culprits) fade() {
	kept := c.list[:0]
	for _, p := range c.list {
		p.count, p.missed = p.count/2, p.missed/2
		if p.count > 0 {
			kept = append(kept, p)
		}
	}
	c.list, c.total, c.seen = kept, c.total/2, max(c.seen/2, len(kept))
}

// Who is the process that an alert is about.
type Who struct {
	PID       uint32 // 0: no single process stands out
	Comm      tcp.Comm
	Known     bool // else nothing but the rest of the alert is known
	Cgroup    *tcp.Cgroup
	Share     float64 // of what the alert is about, 0 to 1: the process's, or without a PID that of all of this name
	Processes int     // how many processes take part; where they come and go, at least
}

// who names the busiest process, or, where many share the work so that none has a
// tenth of it, the name that most of them have.
func (c *culprits) who() Who {
	if len(c.list) == 0 || c.total == 0 {
		return Who{}
	}
	top, names := 0, make(map[tcp.Comm]uint64)
	for i := range c.list {
		names[c.list[i].comm] += c.list[i].count
		if certainOf(&c.list[i]) > certainOf(&c.list[top]) {
			top = i
		}
	}
	const standsOut = 0.1
	p := &c.list[top]
	w := Who{Known: true, Processes: c.seen, PID: p.pid, Comm: p.comm, Cgroup: p.cgroup}
	w.Share = float64(certainOf(p)) / float64(c.total)
	if w.Share >= standsOut {
		return w
	}
	w.PID, w.Cgroup = 0, nil
	for i := range c.list {
		name := c.list[i].comm
		if names[name] > names[w.Comm] {
			w.Comm = name
		}
	}
	for i := range c.list {
		if c.list[i].comm == w.Comm {
			w.Cgroup = c.list[i].cgroup
		}
	}
	w.Share = min(1, float64(names[w.Comm])/float64(c.total))
	return w
}

func certainOf(p *culprit) uint64 { return p.count - p.missed }
