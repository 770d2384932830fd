package topk

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// A flood of keys of one user replaces no key of another who has less than its share, even
// if that key is light and came later.
func TestShare_FloodOfOneUser(t *testing.T) {
	const limit = 256
	for _, flooders := range []struct {
		name  string
		of    func(n int) User
		least int // keys that the other user keeps
	}{
		{"one user", func(int) User { return User{Quota: 1} }, limit/2 - limit/searchEvery},
		{"many parts", func(n int) User { return User{Quota: 1, Part: uint64(n % 300)} }, limit/2 - limit/searchEvery},
		{"three quotas", func(n int) User { return User{Quota: 1 + uint32(n%3)} }, limit/4 - limit/searchEvery},
		{"parts of the same quota", func(n int) User { return User{Quota: 7, Part: 1 + uint64(n%3)} }, limit/4 - limit/searchEvery},
	} {
		for _, first := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, the victim first: %v", flooders.name, first), func(t *testing.T) {
				table := New[int, int](limit)
				flood := func() {
					for n := range 20 * limit {
						key := 1_000_000 + n
						table.Add(table.GetOrInsert(key, uint64(key), flooders.of(n)), 9)
					}
				}
				victim := func() {
					for key := range flooders.least {
						table.Add(table.GetOrInsert(key, uint64(key), User{Quota: 7}), 1)
					}
				}
				if !first {
					flood()
				}
				victim()
				flood()
				for key := range flooders.least {
					e := table.Find(key, uint64(key))
					if e == nil {
						t.Fatalf("the key %d of %d is replaced", key, flooders.least)
					}
					if e.Missed > 0 || e.Weight != 1 {
						t.Fatalf("%+v: no key of this user was evicted", e)
					}
				}
				if table.Len() != limit || table.Evicted() == 0 {
					t.Errorf("%d entries, %d evicted", table.Len(), table.Evicted())
				}
			})
		}
	}
}

// What is known of shares agrees with the entries after random calls, and the number of users
// that are remembered is bounded.
func TestShare_Accounts(t *testing.T) {
	random := rand.New(rand.NewPCG(21, 22))
	const limit = 64
	table := New[uint32, int](limit)
	for step := range 50_000 {
		key := random.Uint32N(1 + random.Uint32N(5000))
		hash := uint64(key)
		switch random.IntN(40) {
		case 0:
			table.Sweep(func(*Entry[uint32, int]) bool { return random.IntN(5) > 0 })
		case 1:
			table.Pin(key, hash)
		case 2:
			if random.IntN(10) == 0 {
				table.Unpin()
			}
		default:
			user := User{Quota: key % 11, Part: uint64(key % 500)}
			table.Add(table.GetOrInsert(key, hash, user), random.Uint64N(4))
		}
		if step%100 == 0 {
			checkShares(t, table)
		}
	}
}

func checkShares(t *testing.T, table *Table[uint32, int]) {
	t.Helper()
	quotas, pins, entries := make(map[uint32]int), 0, 0
	for user, s := range table.shares {
		quotas[user.Quota] += len(s.entries)
		entries += len(s.entries)
		pinned := 0
		for i, e := range s.entries {
			if e.share != s || e.pos != i || table.index[e.Key] != e || s.user != user {
				t.Fatalf("%+v is at %d", e, i)
			}
			if e.pinned {
				pinned++
			}
			if parent := (i - 1) / 2; s.ordered && i > 0 && s.entries.Less(i, parent) {
				t.Fatalf("the entries of %+v are not in order", user)
			}
		}
		if pinned != s.pins {
			t.Fatalf("%d pins, want %d", s.pins, pinned)
		}
		pins += pinned
	}
	for quota, n := range table.quotas {
		if quotas[quota] != n {
			t.Fatalf("quota %d has %d entries, counted as %d", quota, quotas[quota], n)
		}
	}
	if pins != table.pins || entries != len(table.entries) || len(table.index) != entries || len(table.shares) > 2*table.limit {
		t.Fatalf("%d and %d pins, %d and %d entries, %d keys, %d shares", pins, table.pins, entries, len(table.entries), len(table.index), len(table.shares))
	}
}

// What a new key costs in a full table of many users with one key each.
func BenchmarkShare_ManyUsers(b *testing.B) {
	t := New[int, int](4096)
	for i := range b.N {
		user := User{Quota: uint32(i % 60000)}
		t.Add(t.GetOrInsert(i, uint64(i)*0x9E3779B97F4A7C15, user), 1)
	}
}
