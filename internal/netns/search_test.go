package netns

import (
	"os"
	"testing"
	"time"
)

// host is a host on a virtual clock, whose walks cost what they are set to.
type host struct {
	now           time.Duration
	search        *Search
	inCheap       []reference
	inCostly      []reference
	cost          time.Duration // of each reference
	cheap, costly int           // walks begun
	used          time.Duration // by all walks
}

func newHost() *host {
	h := &host{now: time.Hour, cost: 10 * time.Microsecond}
	part := func(begun *int, all *[]reference) func(func(reference) bool) {
		return func(yield func(reference) bool) {
			*begun++
			for _, r := range append(*all, pause) {
				h.now += h.cost
				h.used += h.cost
				if !yield(r) {
					return
				}
			}
		}
	}
	h.search = newSearch(part(&h.cheap, &h.inCheap), part(&h.costly, &h.inCostly), func() time.Duration { return h.now })
	return h
}

// run steps through a time, and returns what the search returns.
func (h *host) run(d time.Duration) (results []Result) {
	for end := h.now + d; h.now < end; {
		wait, more := h.search.StepDue()
		if !more || h.now+wait >= end {
			h.now = end
			break
		}
		h.now += wait
		results = append(results, h.search.Step()...)
	}
	return results
}

func (h *host) locate(t *testing.T, inode uint32, want Status) {
	t.Helper()
	if n, status := h.search.Locate(inode); status != want || want == Found && n.Inode != inode {
		t.Errorf("Locate(%d) returns %v and status %d, want status %d", inode, n, status, want)
	}
}

// others are references to namespaces that no test asks for.
func others(n int) (all []reference) {
	for i := range n {
		all = append(all, reference{uint32(1e6 + i%10), "/other"})
	}
	return all
}

// All namespaces that are missing share one walk. What one walk finds needs no other.
func TestSearch_OneWalkForAll(t *testing.T) {
	h := newHost()
	h.inCheap, h.inCostly = others(100), others(1000)
	const namespaces = 150
	h.inCostly = append(h.inCostly, reference{7, "/proc/1/fd/7"})
	for inode := range uint32(namespaces) {
		h.locate(t, inode+1, Searching)
	}
	results := h.run(10 * time.Second)
	if h.cheap != 1 || h.costly != 1 {
		t.Errorf("%d cheap and %d costly walks, want one of each", h.cheap, h.costly)
	}
	if want := (Result{7, true}); len(results) != namespaces+1 || results[namespaces] != want {
		t.Errorf("%d results, want one for each, missing, and then %v", len(results), want)
	}
	h.locate(t, 7, Found)
	h.locate(t, 1e6, Found) // not asked for before
	h.locate(t, 1, Missing)
	if h.cheap != 1 || h.costly != 1 {
		t.Error("what was found is searched for again")
	}
}

// A namespace that is nowhere is looked for ever more seldom, and not at all unless it is
// asked for.
func TestSearch_BackOff(t *testing.T) {
	h := newHost()
	h.locate(t, 1, Searching)
	h.run(time.Hour)
	if h.costly != 1 {
		t.Errorf("%d walks for one question, want one", h.costly)
	}
	for range 3600 {
		h.search.Locate(1)
		h.run(time.Second)
	}
	// After 10, 20, 40, 80, 160, 320, 600, 600 ... seconds.
	if h.costly < 8 || h.costly > 12 || h.cheap > 12 {
		t.Errorf("%d costly and %d cheap walks in an hour, want about 11", h.costly, h.cheap)
	}
	h.inCostly = []reference{{1, "/proc/1/fd/3"}}
	h.run(maxRetry)
	h.locate(t, 1, Searching)
	if results := h.run(time.Minute); len(results) != 2 || results[1] != (Result{1, true}) {
		t.Errorf("it appears, and the results are %v", results)
	}
}

// However many namespaces come and go, and however long a walk takes, the search stays within
// its budget.
func TestSearch_Budget(t *testing.T) {
	h := newHost()
	h.inCheap, h.inCostly = others(500), others(400_000)
	start := h.now
	for inode := uint32(1); h.now-start < 10*time.Minute; inode++ {
		h.search.Locate(inode)
		h.run(100 * time.Millisecond)
	}
	elapsed := h.now - start
	if limit := searchCredit + time.Duration(float64(elapsed)*searchShare) + searchSlice; h.used > limit {
		t.Errorf("it uses %v in %v, want at most %v", h.used, elapsed, limit)
	}
	if h.costly == 0 || h.cheap < 10 {
		t.Errorf("%d cheap and %d costly walks", h.cheap, h.costly)
	}
}

// A namespace that is easily found is found at once, also while a long walk is under way.
func TestSearch_CheapFirst(t *testing.T) {
	h := newHost()
	h.inCostly = others(1_000_000)
	h.locate(t, 1, Searching)
	h.run(20 * time.Second)
	if h.costly != 1 || h.search.costly.next == nil {
		t.Fatal("no long walk is under way")
	}
	h.inCheap = []reference{{2, "/proc/2/ns/net"}}
	for range 10 {
		h.locate(t, 2, Searching)
		began := h.now
		if results := h.run(searchSlice); len(results) != 1 || results[0] != (Result{2, true}) {
			t.Fatalf("%v after the question the results are %v", h.now-began, results)
		}
		h.search.Forget(2)
	}
	h.search.Close()
}

// A walk that nothing waits for any more ends: it would keep a directory of /proc open.
func TestSearch_EndsWithoutNeed(t *testing.T) {
	h := newHost()
	h.inCostly = others(1_000_000)
	h.locate(t, 1, Searching)
	h.locate(t, 2, Searching)
	h.run(20 * time.Second)
	h.search.Add(Namespace{Inode: 1, Path: "/proc/1/ns/net"})
	if h.search.costly.next == nil {
		t.Error("the walk ends while a namespace is missing")
	}
	h.search.Add(Namespace{Inode: 2, Path: "/proc/2/ns/net"})
	if h.search.costly.next != nil {
		t.Error("the walk goes on although no namespace is missing")
	}
}

// A user who holds more namespaces than a search remembers takes no room of those that were found first, which
// are those of the oldest processes. One that is asked for is found all the same, and costs an eighth of the others.
func TestSearch_FloodOfNamespaces(t *testing.T) {
	h := newHost()
	const first, flood = 1000, 3 * maxSearched
	for inode := range uint32(first) {
		h.search.Add(Namespace{Inode: inode + 1, Path: "/proc/1/ns/net"})
	}
	for inode := range uint32(flood) {
		r := reference{1e6 + inode, "/proc/9/fd/9"}
		h.inCostly = append(h.inCostly, r)
		h.search.Add(Namespace{Inode: r.inode, Path: r.path})
	}
	for inode := range uint32(first) {
		h.locate(t, inode+1, Found)
	}
	h.inCheap = []reference{{2000, "/proc/2/ns/net"}}
	h.locate(t, 2000, Searching)
	h.locate(t, 3000, Searching) // it is nowhere: the walk sees the whole flood
	if results := h.run(time.Minute); len(results) != 2 || results[0] != (Result{2000, true}) || h.costly != 1 {
		t.Errorf("the results are %v after %d costly walks", results, h.costly)
	}
	kept := 0
	for inode := range uint32(first) {
		if h.search.paths[inode+1] != "" {
			kept++
		}
	}
	if kept < first/2 || len(h.search.paths) > maxSearched {
		t.Errorf("%d of the first %d are left, and %d in all", kept, first, len(h.search.paths))
	}
}

// What is remembered is bounded.
func TestSearch_BoundedMemory(t *testing.T) {
	h := newHost()
	for inode := range uint32(5 * maxSearched) {
		h.search.Locate(inode + 1)
		h.search.Add(Namespace{Inode: 1e6 + inode, Path: "/"})
		if inode%1000 == 0 {
			h.run(time.Minute)
		}
	}
	if len(h.search.missing) > maxSearched || len(h.search.paths) > maxSearched {
		t.Errorf("it remembers %d missing and %d found ones, want at most %d", len(h.search.missing), len(h.search.paths), maxSearched)
	}
	if waiting := h.search.cheap.waiting + h.search.costly.waiting; waiting > len(h.search.missing) {
		t.Errorf("%d wait, of %d that are missing", waiting, len(h.search.missing))
	}
}

// The processes that have run for longest come first. A text that cannot be parsed comes last.
func TestWalk_OldestProcessFirst(t *testing.T) {
	for text, want := range map[string]uint64{
		"1 (a) b) (c) S 0 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 1234 5": 1234,
		"1 (init) S 0 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0":            1<<64 - 1,
		"": 1<<64 - 1,
	} {
		if got := startTime([]byte(text)); got != want {
			t.Errorf("%q starts at %d, want %d", text, got, want)
		}
	}
	var w walk
	processes, _ := w.oldestFirst(func(reference) bool { return true })
	var last uint64
	for _, pid := range processes {
		text, err := os.ReadFile("/proc/" + pid + "/stat")
		if err != nil {
			continue // it has ended
		}
		started := startTime(text)
		if started < last {
			t.Fatalf("process %s started at %d, and comes after one that started at %d", pid, started, last)
		}
		last = started
	}
	if len(processes) < 2 || last == 0 {
		t.Errorf("the processes are %v", processes)
	}
}
