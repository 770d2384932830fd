package metrics

import (
	"cmp"
	"hash/maphash"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/tcpshift/tcpshift/internal/detect/topk"
	"github.com/tcpshift/tcpshift/internal/record"
)

const (
	// maxNames is how many values of a label have series of their own at a time.
	maxNames = 100
	// maxCandidates bounds the values whose connections are counted to find out whether they should have
	// series.
	maxCandidates = 4 * maxNames
	// rankEvery is the time between two decisions about which values have series. It bounds how many new
	// series Prometheus gets, however many services there are.
	rankEvery = time.Minute
	// idleAfter is how long a value without a connection keeps its series.
	idleAfter = time.Hour
	// other is the value of the label for all that have no series of their own.
	other = "other"
)

// names bounds the values of a label. The first maxNames have series of their own. Later, one that has more
// than twice the connections of the least one takes its place. What is counted for a value with series
// stays in them, and what is counted for a value without series stays in those of the others: each
// connection counts once.
//
// Only all is for scrapes; the other methods are for the goroutine of the loop.
type names[T any] struct {
	slots      map[string]*slot[T]
	other      *slot[T]
	candidates *topk.Table[string, struct{}]
	seed       maphash.Seed
	now        time.Duration // of the last tick
	rankedAt   time.Duration
	removed    func(*slot[T]) // is called for each slot that is removed; nil: nothing is to do

	listed atomic.Pointer[[]*slot[T]] // all slots, other last
}

// slot is a value of the label, and what is counted for it.
type slot[T any] struct {
	label  string // the name, printable
	weight uint64 // connections, halved at each ranking
	usedAt time.Duration
	counts T
}

func newNames[T any]() *names[T] {
	n := &names[T]{
		slots: make(map[string]*slot[T]), other: &slot[T]{label: other},
		candidates: topk.New[string, struct{}](maxCandidates), seed: maphash.MakeSeed(),
	}
	n.publish()
	return n
}

// of returns the slot in which a connection of this name counts. The name "other" has that of the others.
func (n *names[T]) of(name string, user topk.User) *slot[T] {
	if s := n.slots[name]; s != nil {
		s.weight++
		s.usedAt = n.now
		return s
	}
	if name == other {
		return n.other
	}
	if len(n.slots) < maxNames {
		n.add(strings.Clone(name), 1)
		n.publish()
		return n.slots[name]
	}
	n.candidates.Add(n.candidates.GetOrInsert(name, maphash.String(n.seed, name), user), 1)
	return n.other
}

func (n *names[T]) add(name string, weight uint64) {
	n.slots[name] = &slot[T]{label: record.Printable(name), weight: weight, usedAt: n.now}
}

func (n *names[T]) remove(name string) {
	if n.removed != nil {
		n.removed(n.slots[name])
	}
	delete(n.slots, name)
}

// publish shows the slots to scrapes.
func (n *names[T]) publish() {
	list := make([]*slot[T], 0, len(n.slots)+1)
	for _, s := range n.slots {
		list = append(list, s)
	}
	list = append(list, n.other)
	n.listed.Store(&list)
}

// all returns the slots. The slice must not be changed.
func (n *names[T]) all() []*slot[T] { return *n.listed.Load() }

// tick sets the time, which may begin anywhere. Once in rankEvery it decides which names have slots.
func (n *names[T]) tick(now time.Duration) {
	n.now = now
	if now-n.rankedAt < rankEvery {
		return
	}
	n.rankedAt = now
	n.rank()
	for _, s := range n.slots {
		s.weight /= 2
	}
	n.candidates.Sweep(func(e *topk.Entry[string, struct{}]) bool {
		e.Weight, e.Missed = e.Weight/2, 0
		return e.Weight > 0 && n.slots[e.Key] == nil
	})
	n.publish()
}

// rank removes idle names, and gives the room, and that of light names, to the heaviest candidates.
func (n *names[T]) rank() {
	var lightest []string
	for name, s := range n.slots {
		if n.now-s.usedAt >= idleAfter {
			n.remove(name)
			continue
		}
		lightest = append(lightest, name)
	}
	slices.SortFunc(lightest, func(a, b string) int {
		return cmp.Or(cmp.Compare(n.slots[a].weight, n.slots[b].weight), cmp.Compare(a, b))
	})
	heaviest := slices.Clone(n.candidates.Entries())
	slices.SortFunc(heaviest, func(a, b *topk.Entry[string, struct{}]) int {
		return cmp.Or(cmp.Compare(b.Weight, a.Weight), cmp.Compare(a.Key, b.Key))
	})
	for _, e := range heaviest {
		if e.Weight <= e.Missed { // chance has kept it in the table: there are very many names
			continue
		}
		if len(n.slots) >= maxNames {
			if len(lightest) == 0 || e.Weight <= 2*n.slots[lightest[0]].weight {
				return
			}
			n.remove(lightest[0])
			lightest = lightest[1:]
		}
		n.add(e.Key, e.Weight)
	}
}
