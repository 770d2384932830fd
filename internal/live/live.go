// Package live walks the connections of the host at an interval, in the background, so that the BPF programs
// emit an update of each one that lives. It must not read what they emit, nor take more than a hundredth of one
// CPU.
package live

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"
	"time"

	"github.com/tcpshift/tcpshift/internal/cputime"
	"github.com/tcpshift/tcpshift/internal/filter"
	"github.com/tcpshift/tcpshift/internal/netns"
)

const (
	// restFactor is how many times as long as it has worked the walker rests, which leaves it a hundredth of
	// one CPU.
	restFactor = 99
	// minWork is the work after which it rests. Less is added to the next.
	minWork = 250 * time.Microsecond
	// crowdedRest is the least rest while the rings have little room. The loop reads them every 40 ms.
	crowdedRest = 50 * time.Millisecond
	// stopLimit bounds the wait for a walk at the end.
	stopLimit = 500 * time.Millisecond
)

// Config is what New needs.
type Config struct {
	// Interval is the time from the beginning of one round over all connections to the next. After a round that
	// takes longer, the next one begins at a later multiple of Interval.
	Interval time.Duration
	// Open begins the walk over the connections of the network namespace that the calling thread is in:
	// [*probe.Probe.OpenUpdates].
	Open func() (io.ReadCloser, error)
	// Filter is the kernel's. Namespaces that it does not pass are not walked.
	Filter *filter.Filter
	// Warn gets at most one message of each kind for the operator, and must not wait.
	Warn func(message string)
}

// Walker walks until it is stopped.
type Walker struct {
	interval time.Duration
	open     func() (io.ReadCloser, error)
	search   search
	warn     func(message string)

	stop, stopped chan struct{}
	stopOnce      sync.Once

	mu   sync.Mutex
	late uint64
	due  time.Time // of the round after the one that is under way, or after the next one; zero: it has ended

	worked                   time.Duration // CPU time of walks since the last rest
	searched                 time.Duration // CPU time of the last search that has not been rested for yet
	warnedLate, warnedFailed bool
}

// New starts a walker. The first round begins after one interval. The caller must Stop it.
func New(c Config) *Walker {
	w := &Walker{
		interval: c.Interval, open: c.Open, search: newSearch(c.Filter), warn: c.Warn,
		stop: make(chan struct{}), stopped: make(chan struct{}), due: time.Now().Add(2 * c.Interval),
	}
	go w.run()
	return w
}

// Stop ends the walks, and returns when none is under way, or when one has not ended within half a second. The
// kernel waits for the lock of each socket, and a process may hold that for as long as it likes. Stop may be
// called several times.
func (w *Walker) Stop() {
	w.stopOnce.Do(func() { close(w.stop) })
	select {
	case <-w.stopped:
	case <-time.After(stopLimit):
	}
}

// Late is how many rounds were left out because the one before took longer than the interval, also if that one
// has not ended yet. Any goroutine may call it.
func (w *Walker) Late() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.late + w.missed()
}

// missed is how many rounds are due since the last one began. w.mu must be locked.
func (w *Walker) missed() uint64 {
	if behind := time.Since(w.due); behind > 0 && !w.due.IsZero() {
		return uint64(behind/w.interval) + 1
	}
	return 0
}

// end notes that no further round is due.
func (w *Walker) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.due = time.Time{}
	close(w.stopped)
}

// endRound counts the rounds that were left out, and returns when the next one is due.
func (w *Walker) endRound() (next time.Time, missed uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	missed = w.missed()
	w.late += missed
	next = w.due.Add(time.Duration(missed) * w.interval)
	w.due = next.Add(w.interval)
	return next, missed
}

func (w *Walker) run() {
	runtime.LockOSThread() // so that its CPU time can be measured
	defer runtime.UnlockOSThread()
	defer w.end()
	for next := w.due.Add(-w.interval); w.sleep(time.Until(next)); {
		w.round()
		var missed uint64
		if next, missed = w.endRound(); missed > 0 {
			w.warnOnce(&w.warnedLate, fmt.Sprintf("--updates: with a hundredth of one CPU a walk over all connections takes longer than %v: updates come less often, see late_updates in stats", w.interval))
		}
	}
}

// sleep reports false if the walker is stopped.
func (w *Walker) sleep(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-w.stop:
		return false
	case <-timer.C:
		return true
	}
}

// round walks over the connections of all namespaces, unless the walker is stopped.
func (w *Walker) round() {
	namespaces, cost := w.search.find()
	if cost > 0 {
		w.searched = cost // what is left of the one before need not be rested for: the walks since took less than their share
	}
	for _, n := range namespaces {
		if !w.rest(0) {
			return
		}
		err := w.walk(n)
		switch {
		case errors.Is(err, netns.ErrGone):
			w.search.forget(n.Inode)
		case err != nil:
			w.search.forget(n.Inode) // another process of it may permit what this one refuses
			w.warnOnce(&w.warnedFailed, fmt.Sprintf("--updates: no updates of the connections in network namespace %d: %v", n.Inode, err))
		}
	}
}

// walk walks over the connections of one namespace, unless the walker is stopped.
func (w *Walker) walk(n netns.Namespace) error {
	sockets, err := w.openIn(n)
	if err != nil {
		return err
	}
	defer sockets.Close()
	for {
		var crowded [1]byte
		w.measure(func() { _, err = sockets.Read(crowded[:]) })
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		if !w.rest(time.Duration(crowded[0]) * crowdedRest) {
			return nil
		}
	}
}

// openIn begins the walk over one namespace. That of this process needs no privilege.
func (w *Walker) openIn(n netns.Namespace) (sockets io.ReadCloser, err error) {
	if n.Inode == w.search.own {
		return w.open()
	}
	err = n.Do(func() (err error) {
		sockets, err = w.open()
		return err
	})
	return sockets, err
}

// measure adds the CPU time of some work to what the walker has to rest for.
func (w *Walker) measure(work func()) {
	timer := cputime.Start()
	work()
	w.worked += timer.Elapsed()
}

// rest rests for as long as it owes, and at least for so long. It reports false if
// the walker is stopped.
func (w *Walker) rest(atLeast time.Duration) bool {
	return w.sleep(max(atLeast, w.owed()))
}

// owed returns how long the walker has to rest now; 0: it has worked too little. The CPU time of a search is added in
// parts, a third of that of the walks at most, so that it delays no round. Searches take a quarter of the hundredth (see
// searchFactor). If walks take less than three quarters, a part of a search may never be added, and both still take less
// than a hundredth.
func (w *Walker) owed() time.Duration {
	if w.worked < minWork {
		return 0
	}
	part := min(w.searched, w.worked/3)
	d := (w.worked + part) * restFactor
	w.worked, w.searched = 0, w.searched-part
	return d
}

func (w *Walker) warnOnce(warned *bool, message string) {
	if !*warned {
		*warned = true
		w.warn(message)
	}
}
