// Package topk keeps the heaviest keys of a stream in bounded memory: the
// Space-Saving algorithm. It must not know what the keys and values mean, nor read
// clocks.
package topk

import "container/heap"

// Table keeps at most a fixed number of keys, each with a value and a weight, by
// the Space-Saving algorithm (Metwally, Agrawal, El Abbadi, "Efficient Computation of
// Frequent and Top-k Elements in Data Streams", 2005). When the table is full, a new
// key replaces the lightest one and inherits its weight as an error bound. A key that
// weighs more than the sum of all weights divided by the limit is never missing.
// Weights here also fall, when what they count ends: see [Table.Sweep]. So a flood of new
// keys may replace one that matters: [Table.Pin] prevents that.
//
// Until the table is full nothing is evicted, and the entries are in no order.
// A Table is for one goroutine.
type Table[K comparable, V any] struct {
	limit   int
	index   map[K]*Entry[K, V]
	cache   cache[K, V]
	entries entryHeap[K, V]
	ordered bool // entries is a heap
	pins    int  // entries that are pinned
}

// Entry is one key of a Table. It stays valid until the next [Table.GetOrInsert] of a new
// key or the next [Table.Sweep].
type Entry[K comparable, V any] struct {
	Key    K
	Value  V
	Weight uint64 // counted since the key got its entry
	Missed uint64 // upper bound of what was counted for the key before that: its error
	pos    int    // in Table.entries
	pinned bool
}

// New makes an empty table with room for limit keys; limit is at least 1.
func New[K comparable, V any](limit int) *Table[K, V] {
	return &Table[K, V]{limit: limit, index: make(map[K]*Entry[K, V])}
}

// Len is the number of keys in the table.
func (t *Table[K, V]) Len() int { return len(t.entries) }

// Entries returns all entries, in no order. The slice is the table's own: it must not
// be changed, and is valid until the next Get or Sweep.
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

// GetOrInsert returns the entry of a key. A new key gets an entry with a zero value; if the table
// is full, it replaces the lightest key. For hash see [Table.Find].
func (t *Table[K, V]) GetOrInsert(key K, hash uint64) *Entry[K, V] {
	if e := t.Find(key, hash); e != nil {
		return e
	}
	return t.insert(key)
}

func (t *Table[K, V]) insert(key K) *Entry[K, V] {
	if len(t.entries) < t.limit {
		e := &Entry[K, V]{Key: key, pos: len(t.entries)}
		t.index[key] = e
		t.entries = append(t.entries, e)
		return e
	}
	if !t.ordered {
		heap.Init(&t.entries)
		t.ordered = true
	}
	e := t.entries[0] // it is not pinned: not all are
	delete(t.index, e.Key)
	*e = Entry[K, V]{Key: key, Missed: e.Weight + e.Missed} // pos stays 0, the top
	t.index[key] = e
	return e
}

// Add increases the weight of an entry.
func (t *Table[K, V]) Add(e *Entry[K, V], weight uint64) {
	e.Weight += weight
	if t.ordered {
		heap.Fix(&t.entries, e.pos)
	}
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
	if t.ordered {
		heap.Fix(&t.entries, e.pos)
	}
}

// Unpin ends what Pin has begun, for all entries.
func (t *Table[K, V]) Unpin() {
	if t.pins == 0 {
		return
	}
	for _, e := range t.entries {
		e.pinned = false
	}
	t.pins, t.ordered = 0, false
}

// Sweep calls update for each entry, which may set Value, Weight and Missed, and
// removes the entries for which update returns false.
func (t *Table[K, V]) Sweep(update func(e *Entry[K, V]) (keep bool)) {
	kept := t.entries[:0]
	for _, e := range t.entries {
		if update(e) {
			e.pos = len(kept)
			kept = append(kept, e)
			continue
		}
		delete(t.index, e.Key)
		if e.pinned {
			t.pins--
		}
	}
	clear(t.entries[len(kept):])
	t.entries, t.ordered = kept, false
	t.cache.clear() // of the removed entries
}

// entryHeap is a [heap.Interface] with the least weight first, and pinned entries last. The
// error bound counts as weight.
type entryHeap[K comparable, V any] []*Entry[K, V]

func (h entryHeap[K, V]) Len() int { return len(h) }

func (h entryHeap[K, V]) Less(i, j int) bool {
	if h[i].pinned != h[j].pinned {
		return h[j].pinned
	}
	return h[i].Weight+h[i].Missed < h[j].Weight+h[j].Missed
}

func (h entryHeap[K, V]) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].pos, h[j].pos = i, j
}

// Push is never called: Table adds entries only while they are not a heap.
func (*entryHeap[K, V]) Push(any) { panic("topk: push to a heap of fixed size") }

// Pop is never called: Table replaces the top entry instead.
func (*entryHeap[K, V]) Pop() any { panic("topk: pop from a heap of fixed size") }
