package cgroup

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

func TestACacheGivesWhatWasPut(t *testing.T) {
	c := NewCache(0)
	if info, ok := c.Get(7); ok || info != nil {
		t.Errorf("an empty cache gives %+v", info)
	}
	c.Put(7, "/docker/"+outer)
	got, ok := c.Get(7)
	if want := (Info{Path: "/docker/" + outer, Container: outer, Runtime: "docker"}); !ok || *got != want {
		t.Errorf("got %+v, %v, want %+v", got, ok, want)
	}
}

func TestTheNewestPathWinsInEitherGeneration(t *testing.T) {
	for _, between := range []int{0, 2, 3} { // with a limit of 2: still young, aged, forgotten
		c := NewCache(2)
		c.Put(1, "/old")
		old, _ := c.Get(1)
		for id := range between {
			c.Put(uint64(100+id), "/other")
		}
		c.Put(1, "/new")
		c.Put(2, "/other") // the stale entry must not come back when generations change
		c.Put(3, "/other")
		if got, ok := c.Get(1); !ok || got.Path != "/new" {
			t.Errorf("after %d others: got %+v, %v, want /new", between, got, ok)
		}
		if old.Path != "/old" {
			t.Errorf("after %d others: what was given out became %+v", between, old)
		}
	}
}

func TestPuttingTheSamePathAgainKeepsWhatIsKnown(t *testing.T) {
	c := NewCache(4)
	c.Put(1, "/docker/"+outer)
	first, _ := c.Get(1)
	c.Put(1, "/docker/"+outer)
	if again, _ := c.Get(1); again != first {
		t.Error("the same path was described anew")
	}
}

func TestWhatIsAskedForOutlivesWhatIsNot(t *testing.T) {
	c := NewCache(2)
	c.Put(1, "/asked")
	c.Put(2, "/forgotten")
	for id := range uint64(20) {
		c.Put(100+id, "/other")
		if _, ok := c.Get(1); !ok {
			t.Fatalf("after %d others the one that is always asked for is gone", id+1)
		}
	}
	if _, ok := c.Get(2); ok {
		t.Error("one that was never asked for is still there")
	}
}

// Against a list of ids by last use: the last limit ids are there with their
// newest paths, no id ever has an older one, and the size stays bounded.
func TestACacheIsBoundedAndHasAllRecentOnes(t *testing.T) {
	const limit, ids, steps = 8, 40, 20000
	random := rand.New(rand.NewPCG(1, 2))
	c := NewCache(limit)
	newest := map[uint64]string{}
	var recent []uint64 // the most recent last
	for step := range steps {
		id := random.Uint64N(1 + random.Uint64N(ids)) // some far more often than others
		at := slices.Index(recent, id)
		due := at >= 0 && at >= len(recent)-limit
		if random.IntN(3) == 0 {
			newest[id] = fmt.Sprintf("/%d", random.IntN(4))
			c.Put(id, newest[id])
			due = true
		}
		got, ok := c.Get(id)
		if due && !ok {
			t.Fatalf("step %d: id %d, among the last %d, is gone", step, id, limit)
		}
		if ok && got.Path != newest[id] {
			t.Fatalf("step %d: id %d has %q, want %q", step, id, got.Path, newest[id])
		}
		if len(c.young) > limit || len(c.aged) > limit {
			t.Fatalf("step %d: %d and %d entries, want at most %d each", step, len(c.young), len(c.aged), limit)
		}
		if ok {
			if at >= 0 {
				recent = slices.Delete(recent, at, at+1)
			}
			recent = append(recent, id)
		}
	}
}

func TestALimitOfOneWorks(t *testing.T) {
	c := NewCache(1)
	for id := range uint64(5) {
		c.Put(id, "/x")
		if _, ok := c.Get(id); !ok {
			t.Fatalf("id %d is gone at once", id)
		}
	}
	if len(c.young)+len(c.aged) > 2 {
		t.Errorf("%d entries, want at most 2", len(c.young)+len(c.aged))
	}
}

func TestALookupAllocatesNothing(t *testing.T) {
	c := NewCache(DefaultLimit)
	c.Put(1, "/docker/"+outer)
	if n := testing.AllocsPerRun(100, func() { c.Get(1); c.Get(2); c.Put(1, "/docker/"+outer) }); n != 0 {
		t.Errorf("%v allocations for a hit, a miss and a path put again, want none", n)
	}
}

func BenchmarkCacheGet(b *testing.B) {
	c := NewCache(DefaultLimit)
	for id := range uint64(1000) {
		c.Put(id, "/system.slice/docker-"+outer+".scope")
	}
	b.ReportAllocs()
	for id := uint64(0); b.Loop(); id++ {
		if _, ok := c.Get(id % 1000); !ok {
			b.Fatal("a miss")
		}
	}
}
