package live

import (
	"io"
	"os"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/internal/cputime"
	"github.com/tcpshift/tcpshift/internal/filter"
)

// timeout bounds every wait. Only a failing test waits that long.
const timeout = 30 * time.Second

// ownNetns is a filter for the namespace of this process.
func ownNetns(t *testing.T) *filter.Filter {
	t.Helper()
	info, err := os.Stat("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	return &filter.Filter{Netns: []uint32{uint32(info.Sys().(*syscall.Stat_t).Ino)}}
}

// walks are the walks of a walker: each has so many reads, which take CPU time.
type walks struct {
	reads   int
	cost    time.Duration
	crowded byte

	mu    sync.Mutex
	at    []time.Time // of all reads
	begun int
	ended chan struct{} // one for each walk, if there is room
}

func newWalks(reads int, cost time.Duration) *walks {
	return &walks{reads: reads, cost: cost, ended: make(chan struct{}, 100)}
}

func (w *walks) open() (io.ReadCloser, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.begun++
	return &walk{walks: w, left: w.reads}, nil
}

func (w *walks) times() []time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]time.Time(nil), w.at...)
}

func (w *walks) awaitEnd(t *testing.T) {
	t.Helper()
	select {
	case <-w.ended:
	case <-time.After(timeout):
		t.Fatal("no walk ends")
	}
}

type walk struct {
	*walks
	left int
}

func (w *walk) Read(p []byte) (int, error) {
	for timer := cputime.Start(); timer.Elapsed() < w.cost; {
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.at = append(w.at, time.Now())
	if w.left == 0 {
		return 0, io.EOF
	}
	w.left--
	p[0] = w.crowded
	return 1, nil
}

func (w *walk) Close() error {
	select {
	case w.ended <- struct{}{}:
	default:
	}
	return nil
}

func start(t *testing.T, interval time.Duration, w *walks, warn func(string)) *Walker {
	t.Helper()
	walker := New(Config{Interval: interval, Open: w.open, Filter: ownNetns(t), Warn: warn})
	t.Cleanup(walker.Stop)
	return walker
}

// Between two reads the walker rests for 99 times the CPU time of the first.
func TestWalker_Rests(t *testing.T) {
	w := newWalks(3, time.Millisecond)
	start(t, time.Millisecond, w, func(string) {})
	w.awaitEnd(t)
	at := w.times()
	for i := 1; i < 4; i++ {
		if rest := at[i].Sub(at[i-1]); rest < restFactor*time.Millisecond {
			t.Errorf("after a read of 1ms it reads again within %v", rest)
		}
	}
}

// While the rings have little room the walker rests, however little it has done.
func TestWalker_CrowdedRings(t *testing.T) {
	w := newWalks(3, 0)
	w.crowded = 1
	start(t, time.Millisecond, w, func(string) {})
	w.awaitEnd(t)
	at := w.times()
	for i := 1; i < 4; i++ {
		if rest := at[i].Sub(at[i-1]); rest < crowdedRest {
			t.Errorf("it reads again within %v", rest)
		}
	}
}

// A round that takes longer than the interval makes the walker leave out others, which it counts, and reports
// once.
func TestWalker_Late(t *testing.T) {
	w, warnings := newWalks(1, 2*time.Millisecond), make(chan string, 10)
	walker := start(t, 20*time.Millisecond, w, func(message string) { warnings <- message })
	for range 3 {
		w.awaitEnd(t)
	}
	walker.Stop()
	if late := walker.Late(); late < 2 {
		t.Errorf("%d rounds were left out", late)
	}
	if len(warnings) != 1 {
		t.Errorf("%d warnings", len(warnings))
	}
}

// Once Stop returns, no walk is under way and none begins, also if the walker rested.
func TestWalker_Stop(t *testing.T) {
	w := newWalks(1000, time.Millisecond)
	walker := start(t, time.Millisecond, w, func(string) {})
	for began := time.Now(); len(w.times()) == 0; time.Sleep(time.Millisecond) {
		if time.Since(began) > timeout {
			t.Fatal("no walk begins")
		}
	}
	walker.Stop()
	w.awaitEnd(t)
	before := len(w.times())
	walker.Stop()
	time.Sleep(3 * restFactor * time.Millisecond / 2)
	if after := len(w.times()); after != before {
		t.Errorf("%d reads after Stop", after-before)
	}
}

// A namespace that the filter does not pass is not walked, and one that it names is found where it is costly.
func TestSearch_Filter(t *testing.T) {
	f := ownNetns(t)
	s := newSearch(f)
	if found, _ := s.find(); len(found) != 1 || found[0].Inode != s.own {
		t.Errorf("found %v, want the namespace %d", found, s.own)
	}
	excluding := newSearch(&filter.Filter{Not: filter.Exclusions{Netns: f.Netns}})
	found, _ := excluding.find()
	if contains(found, s.own) {
		t.Errorf("found %v, and %d is excluded", found, s.own)
	}
	missing := newSearch(&filter.Filter{Netns: []uint32{1}}) // there is none
	if found, _ := missing.find(); len(found) != 0 || missing.next.IsZero() {
		t.Errorf("found %v, the next search is at %v", found, missing.next)
	}
}

// Without a filter the next search is due 400 times the CPU time of the last one later. A namespace that is gone is not
// walked until then.
func TestSearch_Due(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	s := newSearch(&filter.Filter{})
	first, cost := s.find()
	if cost == 0 || !contains(first, s.own) || time.Until(s.due) > searchFactor*cost {
		t.Fatalf("the first search takes %v and finds %v; the next is due in %v", cost, first, time.Until(s.due))
	}
	s.due = time.Now().Add(time.Hour)
	if again, cost := s.find(); cost != 0 || !slices.Equal(again, first) {
		t.Errorf("before it is due it searches for %v, and finds %v, not %v", cost, again, first)
	}
	s.forget(s.own)
	if left, cost := s.find(); cost != 0 || contains(left, s.own) || len(left) != len(first)-1 {
		t.Errorf("without %d it searches for %v, and finds %v of %v", s.own, cost, left, first)
	}
	s.due = time.Now()
	if again, cost := s.find(); cost == 0 || !contains(again, s.own) {
		t.Errorf("when it is due it searches for %v, and finds %v", cost, again)
	}
}

// While all namespaces that the filter names are known, nothing is searched for.
func TestSearch_Named(t *testing.T) {
	s := newSearch(ownNetns(t))
	for _, searches := range []bool{true, false} {
		s.due = time.Time{}
		if found, cost := s.find(); !contains(found, s.own) || cost > 0 != searches {
			t.Errorf("it searches for %v, and finds %v", cost, found)
		}
	}
	s.forget(s.own)
	if found, cost := s.find(); !contains(found, s.own) || cost == 0 {
		t.Errorf("without the only one it searches for %v, and finds %v", cost, found)
	}
}

// A search makes rests longer by a third until it is paid for.
func TestWalker_PaysForSearch(t *testing.T) {
	w := Walker{searched: 1500 * time.Microsecond}
	for _, paid := range []time.Duration{time.Millisecond, 500 * time.Microsecond, 0} {
		w.worked = 3 * time.Millisecond
		if got, want := w.owed(), restFactor*(3*time.Millisecond+paid); got != want {
			t.Errorf("it rests %v, want %v", got, want)
		}
	}
	if w.worked = minWork - 1; w.owed() != 0 || w.worked == 0 {
		t.Errorf("it forgets or rests for work that is not worth it: %v is left", w.worked)
	}
}
