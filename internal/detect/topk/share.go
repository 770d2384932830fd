package topk

import (
	"cmp"
	"container/heap"
)

// User is on whose account an entry is kept. A full table takes room from the Quota with the
// most entries, and within it from the Part with the most. So however many keys and parts one
// quota has, those of another are not replaced before they are as many.
type User struct {
	Quota uint32
	Part  uint64
}

// share is the entries of one user.
type share[K comparable, V any] struct {
	user    User
	entries entryHeap[K, V]
	ordered bool // entries is a heap
	pins    int  // entries that are pinned
	evicted int  // sweeps for which it counts that a key was evicted; 0: none was lately
}

const (
	// searchEvery bounds the evictions, as a part of the limit, after which the largest share is
	// searched for again. A user may have that much less than its share.
	searchEvery = 64
	// rememberEvicted is for how many sweeps a new key may be one that was evicted before.
	rememberEvicted = 64
)

// shareOf returns the share of a user, a new one if it has none.
func (t *Table[K, V]) shareOf(u User) *share[K, V] {
	s := t.shares[u]
	if s == nil {
		if len(t.shares) >= 2*t.limit {
			t.dropEmptyShares()
		}
		s = &share[K, V]{user: u}
		t.shares[u] = s
	}
	return s
}

// evict takes the entry out of its share that a new one of own replaces.
func (t *Table[K, V]) evict(own *share[K, V]) *Entry[K, V] {
	if t.largest == nil || t.left == 0 || !t.largest.canEvict() {
		t.findLargest(own)
	}
	t.left--
	t.evicted++
	s := t.largest
	s.order()
	e := s.entries[0] // it is not pinned: see canEvict
	heap.Pop(&s.entries)
	s.evicted = rememberEvicted
	t.quotas[s.user.Quota]--
	delete(t.index, e.Key)
	return e
}

// findLargest finds the share from which to evict, as if own had the new entry already. There
// is one, because not all entries are pinned.
func (t *Table[K, V]) findLargest(own *share[K, V]) {
	t.left = max(1, t.limit/searchEvery)
	t.largest = nil
	var most [2]int
	for _, s := range t.shares {
		if !s.canEvict() {
			continue
		}
		size := [2]int{t.quotas[s.user.Quota], len(s.entries)}
		if s.user.Quota == own.user.Quota {
			size[0]++
		}
		if s == own {
			size[1]++
		}
		if t.largest == nil || cmp.Or(cmp.Compare(size[0], most[0]), cmp.Compare(size[1], most[1]),
			cmp.Compare(t.largest.user.Quota, s.user.Quota), cmp.Compare(t.largest.user.Part, s.user.Part)) > 0 {
			t.largest, most = s, size // whatever the order of the map
		}
	}
}

// sweepShares forgets the users who have no entry, and from whom none was evicted lately.
func (t *Table[K, V]) sweepShares() {
	for _, s := range t.shares {
		s.evicted = max(0, s.evicted-1)
		if len(s.entries) == 0 && s.evicted == 0 {
			t.drop(s)
		}
	}
	t.largest = nil
}

func (t *Table[K, V]) dropEmptyShares() {
	for _, s := range t.shares {
		if len(s.entries) == 0 {
			t.drop(s)
		}
	}
}

func (t *Table[K, V]) drop(s *share[K, V]) {
	delete(t.shares, s.user)
	if t.quotas[s.user.Quota] == 0 {
		delete(t.quotas, s.user.Quota)
	}
	if t.largest == s {
		t.largest = nil
	}
}

func (s *share[K, V]) canEvict() bool { return len(s.entries) > s.pins }

// order makes a heap of the entries.
func (s *share[K, V]) order() {
	if !s.ordered {
		heap.Init(&s.entries)
		s.ordered = true
	}
}

func (s *share[K, V]) add(e *Entry[K, V]) {
	e.share = s
	if s.ordered {
		heap.Push(&s.entries, e)
		return
	}
	s.entries.Push(e)
}

func (s *share[K, V]) fix(e *Entry[K, V]) {
	if s.ordered {
		heap.Fix(&s.entries, e.pos)
	}
}

// errorBound is the error bound of a new key that replaces one of another user or none: 0 if no
// key of this user was evicted lately, else the weight of its lightest one, at least 1.
func (s *share[K, V]) errorBound() uint64 {
	if s.evicted == 0 {
		return 0
	}
	if len(s.entries) == 0 {
		return 1
	}
	s.order()
	return max(1, s.entries[0].Weight+s.entries[0].Missed)
}
