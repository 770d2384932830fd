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
	// minNames is how many of the values of one user, the busiest, have series, even if another user has more than
	// maxUserNames that are all busier. A user with a range of subordinate uids has up to three quotas (see
	// topk.QuotaOf), which together leave a quarter to others.
	minNames     = 10
	maxUserNames = maxNames / 4
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
// than twice the connections of the least one takes its place, unless that is of a user with fewer values. A user
// with fewer than minNames gets places of one with more than maxUserNames. What is counted for a value with series
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
	name   string
	label  string // the name, printable
	user   uint32 // for whom it was added: see topk.QuotaOf
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
		n.add(strings.Clone(name), user.Quota, 1)
		n.publish()
		return n.slots[name]
	}
	n.candidates.Add(n.candidates.GetOrInsert(name, maphash.String(n.seed, name), user), 1)
	return n.other
}

func (n *names[T]) add(name string, user uint32, weight uint64) {
	n.slots[name] = &slot[T]{name: name, label: record.Printable(name), user: user, weight: weight, usedAt: n.now}
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

// rank removes idle names, and gives the room, and that of other names, to the heaviest candidates.
func (n *names[T]) rank() {
	r := ranking[T]{counts: make(map[uint32]int)}
	for name, s := range n.slots {
		if n.now-s.usedAt >= idleAfter {
			n.remove(name)
			continue
		}
		r.lightest = append(r.lightest, s)
		r.counts[s.user]++
	}
	slices.SortFunc(r.lightest, func(a, b *slot[T]) int {
		return cmp.Or(cmp.Compare(a.weight, b.weight), cmp.Compare(a.name, b.name))
	})
	heaviest := slices.Clone(n.candidates.Entries())
	slices.SortFunc(heaviest, func(a, b *topk.Entry[string, struct{}]) int {
		return cmp.Or(cmp.Compare(b.Weight, a.Weight), cmp.Compare(a.Key, b.Key))
	})
	for _, e := range heaviest {
		if e.Weight <= e.Missed { // chance has kept it in the table: there are very many names
			continue
		}
		user := e.User().Quota
		if len(n.slots) >= maxNames {
			s := r.takePlace(user, e.Weight)
			if s == nil {
				continue
			}
			n.remove(s.name)
		}
		n.add(e.Key, user, e.Weight)
		r.counts[user]++
	}
}

// ranking is what rank decides by.
type ranking[T any] struct {
	lightest []*slot[T] // those from before, by weight
	counts   map[uint32]int
}

// takePlace returns the slot whose place a candidate of a user gets, or nil. The slot does not count any more.
func (r *ranking[T]) takePlace(user uint32, weight uint64) *slot[T] {
	at := slices.IndexFunc(r.lightest, func(s *slot[T]) bool {
		return weight > 2*s.weight && (s.user == user || r.counts[s.user] > r.counts[user])
	})
	if r.counts[user] < minNames {
		most := maxUserNames
		for i, s := range r.lightest {
			if s.user != user && r.counts[s.user] > most {
				most, at = r.counts[s.user], i
			}
		}
	}
	if at < 0 {
		return nil
	}
	s := r.lightest[at]
	r.lightest = slices.Delete(r.lightest, at, at+1)
	r.counts[s.user]--
	return s
}
