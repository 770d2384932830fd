package metrics

import (
	"cmp"
	"slices"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tcpshift/tcpshift/internal/detect"
	"github.com/tcpshift/tcpshift/internal/record"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// gauges are values that one reading of the host or of detection has found. Once stored they do not change.
type gauges struct {
	list []gaugeValue
}

type gaugeValue struct {
	family *Family
	labels []string
	value  float64
}

func (g *gauges) add(f *Family, value float64, labels ...string) {
	g.list = append(g.list, gaugeValue{f, labels, value})
}

func (g *gauges) collect(ch chan<- prometheus.Metric) {
	if g == nil {
		return
	}
	for i := range g.list {
		v := &g.list[i]
		ch <- v.family.value(v.value, v.labels...)
	}
}

// states counts sockets by the index of their state.
type states [maxStates]uint64

func (s *states) total() (n uint64) {
	for _, count := range s {
		n += count
	}
	return n
}

// bounded are sockets by a label. Those with most sockets have series of their own.
type bounded struct {
	counts map[string]*states
	shown  map[string]bool // at the last reading
}

// limit moves all but maxNames of the values to "other", and returns the values. One that was shown keeps its
// place unless another one has twice as many sockets.
func (b *bounded) limit() []string {
	weight := func(name string) uint64 {
		n := b.counts[name].total()
		if b.shown[name] {
			n *= 2
		}
		return n
	}
	var all []string
	for name := range b.counts {
		if name != other {
			all = append(all, name)
		}
	}
	slices.SortFunc(all, func(a, c string) int { return cmp.Or(cmp.Compare(weight(c), weight(a)), cmp.Compare(a, c)) })
	b.shown = make(map[string]bool)
	for i, name := range all {
		if i < maxNames {
			b.shown[name] = true
			continue
		}
		rest := b.of(other)
		for state, n := range b.counts[name] {
			rest[state] += n
		}
		delete(b.counts, name)
	}
	all = all[:min(len(all), maxNames)]
	if b.counts[other] != nil {
		all = append(all, other)
	}
	return all
}

func (b *bounded) of(name string) *states {
	s := b.counts[name]
	if s == nil {
		s = new(states)
		b.counts[name] = s
	}
	return s
}

func (b *bounded) addTo(g *gauges, f *Family) {
	for _, name := range b.limit() {
		for state, n := range b.counts[name] {
			if n > 0 {
				g.add(f, float64(n), record.Printable(name), stateName(state))
			}
		}
	}
}

// Sockets takes a count of all sockets. cgroupOf returns the cgroup with an id; nil: it is not known.
func (m *Metrics) Sockets(c *tcp.SocketCensus, cgroupOf func(id uint64) *tcp.Cgroup) {
	m.byNetns.counts, m.byService.counts = make(map[string]*states), make(map[string]*states)
	for _, n := range c.Namespaces {
		inNetns := m.byNetns.of(strconv.FormatUint(uint64(n.Netns), 10))
		for i := range n.Groups {
			g := &n.Groups[i]
			state := stateIndex(g.State)
			inNetns[state] += g.Count
			m.byService.of(serviceName(cgroupOf(g.CgroupID), &g.Comm))[state] += g.Count
		}
	}
	found := new(gauges)
	found.add(familySocketsAt, float64(c.At.UnixMilli())/1000)
	m.byNetns.addTo(found, familySockets)
	m.byService.addTo(found, familyServiceSockets)
	m.byNetns.counts, m.byService.counts = nil, nil
	m.sockets.Store(found)
}

// Usage takes how much of their ports and timewait sockets the namespaces use. It may change the slice.
func (m *Metrics) Usage(all []detect.Usage) {
	slices.SortFunc(all, func(a, b detect.Usage) int {
		return cmp.Or(cmp.Compare(b.Share(), a.Share()), cmp.Compare(a.Netns, b.Netns))
	})
	found := new(gauges)
	for _, u := range all[:min(len(all), maxNames)] {
		found.addUsage(&u, strconv.FormatUint(uint64(u.Netns), 10))
	}
	if len(all) > maxNames {
		rest := all[maxNames] // the largest share of the others
		rest.TimeWaits, rest.MaxTimeWaits = 0, 0
		for _, u := range all[maxNames:] {
			rest.TimeWaits += max(0, u.TimeWaits)
			rest.MaxTimeWaits += u.MaxTimeWaits
		}
		found.addUsage(&rest, other)
	}
	m.usage.Store(found)
}

func (g *gauges) addUsage(u *detect.Usage, name string) {
	if u.Ports > 0 {
		g.add(familyPortsUsed, u.PortsShare(), name)
		g.add(familyPorts, u.Ports, name)
	}
	if u.TimeWaits >= 0 {
		g.add(familyTimeWaits, u.TimeWaits, name)
	}
	g.add(familyTimeWaitLimit, u.MaxTimeWaits, name)
}
