package detect

import "container/heap"

// heavy keeps the heaviest keys of a stream in bounded memory: the Space-Saving
// algorithm (Metwally, Agrawal, El Abbadi, "Efficient Computation of Frequent and
// Top-k Elements in Data Streams", 2005). Where there is no room, a new key takes
// the lightest one's place and inherits its weight as error: what it may have
// weighed before without having been kept. A key that weighs more than the sum of
// all weights divided by the limit is never missing. Weights here also fall, as
// what they count ends.
//
// As long as there is room no key has to give way, so their order is not kept.
type heavy[K comparable, V any] struct {
	limit  int
	index  map[K]*entry[K, V]
	recent recent[entry[K, V]]
	all    lightest[K, V]
	heap   bool // all is one
}

type entry[K comparable, V any] struct {
	key    K
	value  V
	weight uint64 // what was counted of it while it was kept
	missed uint64 // at most so much was counted before that
	at     int    // in the heap
}

func newHeavy[K comparable, V any](limit int) *heavy[K, V] {
	return &heavy[K, V]{limit: limit, index: make(map[K]*entry[K, V])}
}

// find gives nil for a key that is not kept. spread is the key's, see [recent].
func (h *heavy[K, V]) find(spread uint32, key *K) *entry[K, V] {
	place := h.recent.at(spread)
	if e := *place; e != nil && e.key == *key {
		return e
	}
	e := h.index[*key]
	if e != nil {
		*place = e
	}
	return e
}

// keep finds the key or makes room for it; its value is then a zero one.
func (h *heavy[K, V]) keep(spread uint32, key *K) *entry[K, V] {
	if e := h.find(spread, key); e != nil {
		return e
	}
	return h.enter(*key)
}

func (h *heavy[K, V]) enter(key K) *entry[K, V] {
	if len(h.all) < h.limit {
		e := &entry[K, V]{key: key, at: len(h.all)}
		h.index[key] = e
		h.all = append(h.all, e)
		return e
	}
	if !h.heap {
		heap.Init(&h.all)
		h.heap = true
	}
	e := h.all[0]
	delete(h.index, e.key)
	*e = entry[K, V]{key: key, missed: e.weight + e.missed} // in its place at the top
	h.index[key] = e
	return e
}

func (h *heavy[K, V]) weigh(e *entry[K, V], weight uint64) {
	e.weight = weight
	if h.heap {
		heap.Fix(&h.all, e.at)
	}
}

// sweep gives each entry its new weight, and drops those that fresh says are over.
func (h *heavy[K, V]) sweep(fresh func(e *entry[K, V]) (keep bool)) {
	kept := h.all[:0]
	for _, e := range h.all {
		if fresh(e) {
			e.at = len(kept)
			kept = append(kept, e)
		} else {
			delete(h.index, e.key)
		}
	}
	clear(h.all[len(kept):])
	h.all, h.heap = kept, false
	h.recent.forget()
}

// lightest is a heap (container/heap) with the least weight first.
type lightest[K comparable, V any] []*entry[K, V]

func (l lightest[K, V]) Len() int { return len(l) }

func (l lightest[K, V]) Less(i, j int) bool {
	return l[i].weight+l[i].missed < l[j].weight+l[j].missed
}

func (l lightest[K, V]) Swap(i, j int) {
	l[i], l[j] = l[j], l[i]
	l[i].at, l[j].at = i, j
}

// Push and Pop are what [heap.Interface] wants: a heap grows and shrinks unordered.
func (*lightest[K, V]) Push(any) { panic("storm: a heap is not pushed to") }

// Pop is not used either.
func (*lightest[K, V]) Pop() any { panic("storm: a heap is not popped from") }
