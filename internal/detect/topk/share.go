package topk

import (
	"cmp"
	"container/heap"
	"slices"
)

// User is on whose account an entry is kept. A full table evicts from the Quota with the
// most entries, and within that Quota from the Part with the most. So however many keys and parts one
// quota has, the keys of another one are evicted only if that has as many. Of users with as many keys
// the one with the lightest key loses it: root in a container without a user namespace has 65,536
// uids, but each of their keys is light.
type User struct {
	Quota uint32
	Part  uint64
}

// firstSubordinate is the least uid that may belong to a range of uids of one user: user namespaces,
// systemd-nspawn and /etc/subuid (SUB_UID_COUNT of login.defs(5)) give each user 65,536 uids, which are
// in two aligned blocks of that size at most.
const firstSubordinate = 1 << 16

// UnknownUser is the quota of entries whose user is not known. No uid has this quota.
const UnknownUser = 1 << 31

// QuotaOf returns the quota to which a uid belongs. From firstSubordinate on all uids of a block of
// 65,536 share one quota: otherwise a user with a range of uids would have one for each.
func QuotaOf(uid uint32) uint32 {
	if uid < firstSubordinate {
		return uid
	}
	return firstSubordinate + uid>>16
}

// share is the entries of one user.
type share[K comparable, V any] struct {
	user    User
	entries entryHeap[K, V]
	ordered bool // entries is a heap
	pins    int  // entries that are pinned
	evicted int  // after how many more sweeps the newest eviction of a key is forgotten; 0: no key was evicted lately
}

const (
	// searchEvery is the part of the limit after which the largest shares are searched for again: after
	// limit/searchEvery evictions at most. So a user may have that many keys fewer than its fair share, but
	// not fewer than half of it.
	searchEvery = 64
	// rememberEvicted is for how many sweeps after an eviction a new key of the user may be the one
	// that was evicted.
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

// evict removes the lightest entry of a largest share, and returns it to be used for a new key.
func (t *Table[K, V]) evict() *Entry[K, V] {
	t.evicted++
	s := t.nextShare()
	s.order()
	e := s.entries[0] // it is not pinned: see canEvict
	heap.Pop(&s.entries)
	s.evicted = rememberEvicted
	if t.onEvict != nil {
		t.onEvict(e)
	}
	t.quotas[s.user.Quota]--
	delete(t.index, e.Key)
	return e
}

// nextShare returns the share from which to evict.
func (t *Table[K, V]) nextShare() *share[K, V] {
	for {
		for len(t.next) > 0 {
			s := t.next[0]
			if t.next = t.next[1:]; s.canEvict() {
				return s
			}
		}
		t.findLargest()
	}
}

// findLargest finds the largest shares, from which to evict: each of them once, those with the lightest
// entry first, or a single one several times. A share with an entry that can be evicted exists, because at most
// half of the entries are pinned.
func (t *Table[K, V]) findLargest() {
	var most [2]int
	largest := t.largest[:0]
	for _, s := range t.shares {
		if !s.canEvict() {
			continue
		}
		size := [2]int{t.quotas[s.user.Quota], len(s.entries)}
		switch order := cmp.Or(cmp.Compare(size[0], most[0]), cmp.Compare(size[1], most[1])); {
		case order > 0:
			largest, most = append(largest[:0], s), size
		case order == 0:
			largest = append(largest, s)
		}
	}
	turns := max(1, t.limit/searchEvery)
	if len(largest) == 1 {
		for range min(turns, most[1]/2) - 1 { // a small share keeps the heavier half
			largest = append(largest, largest[0])
		}
	} else {
		slices.SortFunc(largest, func(s, other *share[K, V]) int { // whatever the order of the map
			return cmp.Or(s.compareLightest(other), cmp.Compare(s.user.Quota, other.user.Quota), cmp.Compare(s.user.Part, other.user.Part))
		})
	}
	t.largest = largest
	t.next = largest[:min(turns, len(largest))]
}

// compareLightest compares the weights of the lightest entries of two shares that have some.
func (s *share[K, V]) compareLightest(other *share[K, V]) int {
	s.order()
	other.order()
	a, b := s.entries[0], other.entries[0]
	return cmp.Compare(a.Weight+a.Missed, b.Weight+b.Missed)
}

// sweepShares drops the shares without an entry from which no key was evicted lately. Sweep calls it.
func (t *Table[K, V]) sweepShares() {
	for _, s := range t.shares {
		s.evicted = max(0, s.evicted-1)
		if len(s.entries) == 0 && s.evicted == 0 {
			t.drop(s)
		}
	}
	t.next = nil
}

// dropEmptyShares drops all shares without an entry, whatever was evicted from them: it bounds their number.
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
	t.next = nil
}

func (s *share[K, V]) canEvict() bool { return len(s.entries) > s.pins }

// order makes a heap of the entries, unless they are one.
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

// errorBound is the error of a new key that does not replace a key of its own user. If no key of this user was
// evicted lately, it is 0. Otherwise the new key may be the evicted one: it is the weight of the user's lightest
// key, at least 1.
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
