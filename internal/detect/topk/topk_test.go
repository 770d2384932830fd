package topk

import (
	"math/rand/v2"
	"testing"
)

// A key always leads to its own entry: when keys share a slot of the cache, when they
// replace each other, and when a key comes back after a sweep.
func TestTable_KeyLeadsToItsOwnEntry(t *testing.T) {
	random := rand.New(rand.NewPCG(11, 12))
	table := New[uint32, int](8)
	kept := make(map[uint32]*Entry[uint32, int]) // what the table should have
	hash := func(key uint32) uint64 { return uint64(key % 3) }
	for range 100_000 {
		key := random.Uint32N(12)
		switch random.IntN(8) {
		case 0:
			table.Sweep(func(e *Entry[uint32, int]) bool {
				if random.IntN(4) > 0 {
					return true
				}
				delete(kept, e.Key)
				return false
			})
		case 1, 2:
			if got, want := table.Find(key, hash(key)), kept[key]; got != want {
				t.Fatalf("found %+v for %d, want %+v", got, key, want)
			}
		default:
			e := table.GetOrInsert(key, hash(key), User{Part: uint64(key % 2)})
			for other, of := range kept {
				if of == e && other != key {
					delete(kept, other) // the key replaced this one
				}
			}
			kept[key] = e
			if e.Key != key || len(kept) != table.Len() || table.Len() > 8 {
				t.Fatalf("got %+v for %d, one of %d entries, want %d", e, key, table.Len(), len(kept))
			}
			table.Add(e, 1+random.Uint64N(3))
		}
	}
}

// A key that weighs more than its share of the table is never missing, and its weight
// is right within the error bound.
func TestTable_HeavyKeyIsNeverMissing(t *testing.T) {
	random := rand.New(rand.NewPCG(15, 16))
	const limit, adds = 32, 50_000
	table := New[uint32, int](limit)
	truth := make(map[uint32]uint64)
	for range adds {
		key := random.Uint32N(500)
		if random.IntN(2) == 0 {
			key %= 8 // these are heavy
		}
		truth[key]++
		table.Add(table.GetOrInsert(key, uint64(key), User{}), 1)
	}
	heavy := 0
	for key, count := range truth {
		if count <= adds/limit {
			continue
		}
		heavy++
		e := table.Find(key, uint64(key))
		if e == nil {
			t.Errorf("key %d is missing, with %d of %d", key, count, adds)
		} else if count < e.Weight || count > e.Weight+e.Missed {
			t.Errorf("key %d has weight %d and at most %d before, want %d", key, e.Weight, e.Missed, count)
		}
	}
	if heavy != 8 {
		t.Errorf("%d keys are heavy, want 8", heavy)
	}
}

// Pinned entries are not replaced by any number of new keys, and others are, though half of
// the table is pinned at most.
func TestTable_PinnedKeysStay(t *testing.T) {
	const limit = 16
	table := New[int, int](limit)
	flood := func() {
		for key := range 1000 {
			table.Add(table.GetOrInsert(100+key, uint64(key), User{}), 5)
			if key%100 == 99 {
				table.Sweep(func(e *Entry[int, int]) bool { return e.Key < limit || e.Key%7 != 3 })
			}
		}
	}
	for key := range limit {
		table.Add(table.GetOrInsert(key, uint64(key), User{}), 1)
	}
	for key := range limit {
		table.Pin(key, uint64(key))
	}
	flood()
	for key := range limit {
		if found := table.Find(key, uint64(key)) != nil; found != (key < limit/2) {
			t.Errorf("the table has the key %d: %v", key, found)
		}
	}
	table.Sweep(func(e *Entry[int, int]) bool { return e.Key != 1 })
	if table.pins != limit/2-1 {
		t.Errorf("%d entries are pinned, want %d", table.pins, limit/2-1)
	}
	table.Unpin()
	flood()
	for key := range limit {
		if table.Find(key, uint64(key)) != nil {
			t.Errorf("the key %d is not replaced after Unpin", key)
		}
	}
}
