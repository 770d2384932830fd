// Package topk keeps the heaviest keys of a stream in bounded memory: the
// Space-Saving algorithm, with a fair share of the room for each user. It must not know what
// the keys and values mean, nor read clocks.
package topk

import "container/heap"

// Table keeps at most a fixed number of keys, each with a value and a weight, by
// the Space-Saving algorithm (Metwally, Agrawal, El Abbadi, "Efficient Computation of
// Frequent and Top-k Elements in Data Streams", 2005). When the table is full, a new
// key replaces the lightest one of the user who has the most keys (see [User]). If that is its
// own user, it inherits the weight as an error bound. With one user, a key that
// weighs more than the sum of all weights divided by the limit is never missing; with several,
// this holds for the keys of each user and its share of the room.
// Weights here also fall, when what they count ends: see [Table.Sweep]. So a flood of new
// keys may replace one that matters: [Table.Pin] prevents that.
//
// Until the table is full nothing is evicted, and the entries are in no order.
// A Table is for one goroutine.
type Table[K comparable, V any] struct {
	limit   int
	index   map[K]*Entry[K, V]
	cache   cache[K, V]
	entries []*Entry[K, V]
	pins    int // entries that are pinned
	evicted uint64
	onEvict func(e *Entry[K, V]) // nil: none is set

	shares  map[User]*share[K, V]
	quotas  map[uint32]int // number of entries by User.Quota
	largest []*share[K, V] // the largest shares when they were searched for last
	next    []*share[K, V] // from which keys are evicted, one from each; none: they must be searched for
}

// Entry is one key of a Table. It stays valid until the next [Table.GetOrInsert] of a new
// key or the next [Table.Sweep].
type Entry[K comparable, V any] struct {
	Key    K
	Value  V
	Weight uint64 // what Add has counted since the key got its entry
	Missed uint64 // upper bound of what may have been counted for the key before that: the error of Weight
	share  *share[K, V]
	pos    int // in share.entries
	pinned bool
}

// New makes an empty table with room for limit keys; limit is at least 1.
func New[K comparable, V any](limit int) *Table[K, V] {
	return &Table[K, V]{
		limit: limit, index: make(map[K]*Entry[K, V]),
		shares: make(map[User]*share[K, V]), quotas: make(map[uint32]int),
	}
}

// Len is the number of keys in the table.
func (t *Table[K, V]) Len() int { return len(t.entries) }

// Evicted is how many keys were replaced so far because the table was full.
func (t *Table[K, V]) Evicted() uint64 { return t.evicted }

// OnEvict sets a function that gets each entry before a new key replaces it. It must not use the
// table, nor keep the entry.
func (t *Table[K, V]) OnEvict(f func(e *Entry[K, V])) { t.onEvict = f }

// Entries returns all entries, in no order. The slice is the table's own: it must not
// be changed, and is valid until the next GetOrInsert of a new key or the next Sweep.
func (t *Table[K, V]) Entries() []*Entry[K, V] { return t.entries }

// Find returns the entry of a key, or nil if the table does not have the key. hash is any
// number that is a function of the key. It makes Find fast if different keys mostly have
// different hashes.
func (t *Table[K, V]) Find(key K, hash uint64) *Entry[K, V] {
	slot := t.cache.slot(hash)
	if e := *slot; e != nil && e.Key == key {
		return e
	}
	e := t.index[key]
	if e != nil {
		*slot = e
	}
	return e
}

// GetOrInsert returns the entry of a key. A new key gets an entry with a zero value, on the
// account of user; if the table is full, it replaces another key. An entry stays on the account
// of the user for whom it was inserted. For hash see [Table.Find].
func (t *Table[K, V]) GetOrInsert(key K, hash uint64, user User) *Entry[K, V] {
	if e := t.Find(key, hash); e != nil {
		return e
	}
	return t.insert(key, t.shareOf(user))
}

// insert adds an entry for a new key to the share own.
func (t *Table[K, V]) insert(key K, own *share[K, V]) *Entry[K, V] {
	var e *Entry[K, V]
	if len(t.entries) < t.limit {
		e = &Entry[K, V]{}
		t.entries = append(t.entries, e)
		*e = Entry[K, V]{Key: key, Missed: own.errorBound()}
	} else {
		e = t.evict()
		missed := e.Weight + e.Missed
		if e.share != own {
			missed = own.errorBound()
		}
		*e = Entry[K, V]{Key: key, Missed: missed}
	}
	t.index[key] = e
	own.add(e)
	t.quotas[own.user.Quota]++
	return e
}

// User returns on whose account the entry is.
func (e *Entry[K, V]) User() User { return e.share.user }

// Add increases the weight of an entry.
func (t *Table[K, V]) Add(e *Entry[K, V], weight uint64) {
	e.Weight += weight
	e.share.fix(e)
}

// Pin keeps the entry of a key, if it has one, from being replaced, until [Table.Unpin]. hash
// is as for [Table.GetOrInsert]. Pin does nothing if half of the table is pinned: new keys need room.
func (t *Table[K, V]) Pin(key K, hash uint64) {
	e := t.Find(key, hash)
	if e == nil || e.pinned || t.pins >= t.limit/2 {
		return
	}
	e.pinned = true
	t.pins++
	e.share.pins++
	e.share.fix(e)
}

// Unpin ends what Pin has begun, for all entries.
func (t *Table[K, V]) Unpin() {
	if t.pins == 0 {
		return
	}
	for _, e := range t.entries {
		e.pinned = false
		e.share.pins, e.share.ordered = 0, false
	}
	t.pins = 0
}

// Sweep calls update for each entry, which may set Value, Weight and Missed, and
// removes the entries for which update returns false.
func (t *Table[K, V]) Sweep(update func(e *Entry[K, V]) (keep bool)) {
	for _, s := range t.shares {
		clear(s.entries)
		s.entries, s.ordered = s.entries[:0], false
	}
	kept := t.entries[:0]
	for _, e := range t.entries {
		if update(e) {
			e.share.add(e)
			kept = append(kept, e)
			continue
		}
		delete(t.index, e.Key)
		t.quotas[e.share.user.Quota]--
		if e.pinned {
			t.pins--
			e.share.pins--
		}
	}
	clear(t.entries[len(kept):])
	t.entries = kept
	t.cache.clear() // of the removed entries
	t.sweepShares()
}

// entryHeap is a [heap.Interface] with the least weight first, and pinned entries last. The
// error bound counts as weight.
type entryHeap[K comparable, V any] []*Entry[K, V]

// Len implements [heap.Interface].
func (h entryHeap[K, V]) Len() int { return len(h) }

// Less reports whether entry i would be removed before entry j.
func (h entryHeap[K, V]) Less(i, j int) bool {
	if h[i].pinned != h[j].pinned {
		return h[j].pinned
	}
	return h[i].Weight+h[i].Missed < h[j].Weight+h[j].Missed
}

// Swap exchanges two entries, which know their positions.
func (h entryHeap[K, V]) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].pos, h[j].pos = i, j
}

// Push implements [heap.Interface].
func (h *entryHeap[K, V]) Push(x any) {
	e := x.(*Entry[K, V])
	e.pos = len(*h)
	*h = append(*h, e)
}

// Pop implements [heap.Interface].
func (h *entryHeap[K, V]) Pop() any {
	last := len(*h) - 1
	e := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return e
}

var _ heap.Interface = (*entryHeap[int, int])(nil)
