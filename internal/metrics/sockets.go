package metrics

import (
	"cmp"
	"slices"
	"strconv"

	"github.com/tcpshift/tcpshift/internal/detect"
	"github.com/tcpshift/tcpshift/internal/detect/topk"
	"github.com/tcpshift/tcpshift/internal/record"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// gauges are what one reading of the host or of detection has found. Once stored they do not change.
type gauges struct {
	samples
}

func (g *gauges) collect(out *samples) {
	if g != nil {
		out.join(&g.samples)
	}
}

// states counts sockets by the index of their state.
type states [maxStates]uint64

// bounded are sockets by a label. Those with most sockets of each user have series of their own.
type bounded struct {
	counts  map[string]*states
	owned   map[ownedName]uint64 // sockets of a user, by name
	unowned map[string]uint64    // sockets whose user is not known, by name
	shown   map[string]bool      // at the last reading
}

type ownedName struct {
	quota uint32 // see topk.QuotaOf
	name  string
}

func (b *bounded) clear() {
	b.counts, b.owned, b.unowned = make(map[string]*states), make(map[ownedName]uint64), make(map[string]uint64)
}

func (b *bounded) add(name string, g *tcp.OwnerSockets) {
	b.of(name)[stateIndex(g.State)] += g.Count
	if g.Other {
		return
	}
	if quota := detect.UserOfSockets(&g.SocketOwner).Quota; quota != topk.UnknownUser {
		b.owned[ownedName{quota, name}] += g.Count
	} else {
		b.unowned[name] += g.Count
	}
}

// limit moves all but maxNames of the values to "other", and returns the values. The one with the most sockets of
// each user comes first, then the second one of each user, and so on: so whatever names one user has, the names
// of the others keep their series. One that was shown keeps its place unless another one of the same place has
// twice as many sockets.
func (b *bounded) limit() (names []string) {
	shown := make(map[string]bool)
	for _, each := range b.inTurns() {
		if len(names) < maxNames && !shown[each] {
			shown[each] = true
			names = append(names, each)
		}
	}
	for name, counts := range b.counts {
		if name == other || shown[name] {
			continue
		}
		rest := b.of(other)
		for state, n := range counts {
			rest[state] += n
		}
		delete(b.counts, name)
	}
	if b.shown = shown; b.counts[other] != nil {
		names = append(names, other)
	}
	return names
}

// inTurns returns the names that may have series, those that each user is to have first at the front. A name of
// several users is there several times.
func (b *bounded) inTurns() (names []string) {
	type ranked struct {
		ownedName
		weight uint64
		turn   int // how many names of the same user come before it
	}
	b.joinUnowned()
	var all []ranked
	for owned, n := range b.owned {
		if b.shown[owned.name] {
			n *= 2
		}
		if owned.name != other {
			all = append(all, ranked{ownedName: owned, weight: n})
		}
	}
	slices.SortFunc(all, func(a, c ranked) int { return cmp.Or(cmp.Compare(c.weight, a.weight), cmp.Compare(a.name, c.name)) })
	turns := make(map[uint32]int)
	for i := range all {
		all[i].turn = turns[all[i].quota]
		turns[all[i].quota]++
	}
	slices.SortStableFunc(all, func(a, c ranked) int { return cmp.Compare(a.turn, c.turn) })
	for i := range all {
		names = append(names, all[i].name)
	}
	return names
}

// joinUnowned adds sockets whose user is not known to those of each user with that name. If there is none, they
// are on an account of their own.
func (b *bounded) joinUnowned() {
	names := make(map[string]bool)
	for owned := range b.owned {
		names[owned.name] = true
		b.owned[owned] += b.unowned[owned.name]
	}
	for name, n := range b.unowned {
		if !names[name] {
			b.owned[ownedName{topk.UnknownUser, name}] = n
		}
	}
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
	m.byNetns.clear()
	m.byService.clear()
	for _, n := range c.Namespaces {
		netns := strconv.FormatUint(uint64(n.Netns), 10)
		for i := range n.Groups {
			g := &n.Groups[i]
			service := other
			if !g.Other {
				service = tcp.ServiceName(cgroupOf(g.CgroupID), &g.Comm)
			}
			m.byNetns.add(netns, g)
			m.byService.add(service, g)
		}
	}
	found := new(gauges)
	found.add(familySocketsAt, float64(c.At.UnixMilli())/1000)
	m.byNetns.addTo(found, familySockets)
	m.byService.addTo(found, familyServiceSockets)
	m.byNetns.clear()
	m.byService.clear()
	m.sockets.Store(found)
}
