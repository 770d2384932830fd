package cgroup

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// A cache returns the description of the path that was put, and nothing for other ids.
func TestCache_PutGet(t *testing.T) {
	c := NewCache(0)
	if info, ok := c.Get(7); ok || info != nil {
		t.Errorf("an empty cache gives %+v", info)
	}
	c.Put(7, "/docker/"+outer, 0)
	got, ok := c.Get(7)
	if want := (Info{Path: "/docker/" + outer, Container: outer, Runtime: "docker"}); !ok || *got != want {
		t.Errorf("got %+v, %v, want %+v", got, ok, want)
	}
}

// The newest path of an id wins, whichever generation its older entry is in.
func TestCache_NewestPath(t *testing.T) {
	for _, between := range []int{0, 2, 3} { // with a limit of 2: still young, aged, dropped
		c := NewCache(2)
		c.Put(1, "/old", 0)
		old, _ := c.Get(1)
		for id := range between {
			c.Put(uint64(100+id), "/other", 0)
		}
		c.Put(1, "/new", 0)
		c.Put(2, "/other", 0) // the stale entry must not come back when generations change
		c.Put(3, "/other", 0)
		if got, ok := c.Get(1); !ok || got.Path != "/new" {
			t.Errorf("after %d others: got %+v, %v, want /new", between, got, ok)
		}
		if old.Path != "/old" {
			t.Errorf("after %d others: the Info returned before became %+v", between, old)
		}
	}
}

// The description is kept if the same path is put again.
func TestCache_SamePath(t *testing.T) {
	c := NewCache(4)
	c.Put(1, "/docker/"+outer, 0)
	first, _ := c.Get(1)
	c.Put(1, "/docker/"+outer, 0)
	if again, _ := c.Get(1); again != first {
		t.Error("the path was described again")
	}
}

// An entry that is looked up stays, however many others come.
func TestCache_KeepsUsed(t *testing.T) {
	c := NewCache(2)
	c.Put(1, "/used", 0)
	c.Put(2, "/unused", 0)
	for id := range uint64(20) {
		c.Put(100+id, "/other", 0)
		if _, ok := c.Get(1); !ok {
			t.Fatalf("after %d others the entry that is always looked up is gone", id+1)
		}
	}
	if _, ok := c.Get(2); ok {
		t.Error("an entry that was never looked up is still there")
	}
}

// A model with the ids by their last use: the last limit ids are in the cache, no id
// has a path that is not its newest, and the size is bounded.
func TestCache_Bounded(t *testing.T) {
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
			c.Put(id, newest[id], 0)
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

// A cache with a limit of one keeps the newest entry.
func TestCache_LimitOfOne(t *testing.T) {
	c := NewCache(1)
	for id := range uint64(5) {
		c.Put(id, "/x", 0)
		if _, ok := c.Get(id); !ok {
			t.Fatalf("id %d is gone at once", id)
		}
	}
	if len(c.young)+len(c.aged) > 2 {
		t.Errorf("%d entries, want at most 2", len(c.young)+len(c.aged))
	}
}

// A hit, a miss, and a put of a known path allocate nothing.
func TestCache_NoAllocations(t *testing.T) {
	c := NewCache(DefaultLimit)
	c.Put(1, "/docker/"+outer, 0)
	if n := testing.AllocsPerRun(100, func() { c.Get(1); c.Get(2); c.Put(1, "/docker/"+outer, 0) }); n != 0 {
		t.Errorf("%v allocations for a hit, a miss and a path put again, want none", n)
	}
}

func BenchmarkCacheGet(b *testing.B) {
	c := NewCache(DefaultLimit)
	for id := range uint64(1000) {
		c.Put(id, "/system.slice/docker-"+outer+".scope", 0)
	}
	b.ReportAllocs()
	for id := uint64(0); b.Loop(); id++ {
		if _, ok := c.Get(id % 1000); !ok {
			b.Fatal("a miss")
		}
	}
}

// Names are added to a copy of the description, and only if it is still that of the container.
func TestCache_SetNames(t *testing.T) {
	const id = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	names := Names{Pod: "web", Namespace: "shop", Container: "nginx", Image: "nginx:1.27"}
	c := NewCache(2)
	before := c.Put(7, "/docker/"+id, 0)
	c.SetNames(7, id, "", names)
	after, _ := c.Get(7)
	if before.Pod != "" || after.Pod != "web" || after.Namespace != "shop" || after.ContainerName != "nginx" || after.Image != "nginx:1.27" || after.Path != before.Path {
		t.Errorf("got %+v, and %+v before", after, before)
	}
	if c.Put(7, "/docker/"+id, 0) != nil {
		t.Error("a path that is known makes a new description")
	}
	if kept, _ := c.Get(7); kept != after {
		t.Errorf("got %+v after the path came again, want %+v", kept, after)
	}
	c.Put(7, "/system.slice/ssh.service", 0)
	c.SetNames(7, id, "", names)
	c.SetNames(8, id, "", names)
	if other, _ := c.Get(7); other.Pod != "" {
		t.Errorf("the names of another container: %+v", other)
	}
	if _, known := c.Get(8); known {
		t.Error("names make a cgroup")
	}
}

// systemd writes an underscore before a unit's name that would look like a file of the kernel's.
func TestDescribe_EscapedUnit(t *testing.T) {
	for path, want := range map[string]string{
		"/system.slice/_cpu.service":                          "cpu.service",
		`/system.slice/dev-sda\x2d1.service`:                  `dev-sda\x2d1.service`,
		"/system.slice/system-getty.slice/getty@tty1.service": "getty@tty1.service",
		"/system.slice": "",
	} {
		if info := Describe(path, 0); info.Unit != want {
			t.Errorf("%s: got %q, want %q", path, info.Unit, want)
		}
	}
}
