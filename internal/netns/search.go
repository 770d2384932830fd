package netns

import (
	"iter"
	"slices"
	"time"

	"github.com/tcpshift/tcpshift/internal/boottime"
	"github.com/tcpshift/tcpshift/internal/cputime"
)

const (
	// searchShare is the part of one CPU that a Search may use on average, and searchCredit
	// the CPU time that it may use at once after a quiet time.
	searchShare  = 0.01
	searchCredit = 100 * time.Millisecond
	// The costly part of a walk begins at a credit of costlyStart, and goes on while the
	// credit is at least costlyReserve. The rest is for namespaces that the cheap part finds at once.
	costlyStart   = searchCredit / 2
	costlyReserve = searchCredit / 4
	// searchSlice is the time after which Step returns, so that its caller can do other work.
	searchSlice = 5 * time.Millisecond
	// minRetry and maxRetry are the time until a namespace that was nowhere is looked for
	// again. It doubles with each walk that finds nothing.
	minRetry = 10 * time.Second
	maxRetry = 10 * time.Minute
	// maxSearched bounds the namespaces that a Search remembers: those that it has found, and
	// those that it has not. Hosts create and remove namespaces all the time.
	maxSearched = 16384
)

// Status is what a [Search] knows of a namespace.
type Status uint8

// The values of Status.
const (
	Missing   Status = iota // it is not found; a later walk may still find it
	Searching               // Step will return it, found or missing, unless the caller adds it first
	Found
)

// Search finds namespaces for a caller that asks for many of them, again and again: those
// that are missing share one walk. The cheap part of it (processes and mounts) comes at once,
// the costly part (threads and open files) afterwards. Both share a budget of CPU time. A
// namespace that is nowhere is looked for again after ever longer times, and only if it is
// asked for again: it may be one that only sockets refer to. A Search must not be used by
// several goroutines. The caller must Close it.
type Search struct {
	paths   map[uint32]string // by inode number, where they were found
	missing map[uint32]*absence
	cheap   stage
	costly  stage

	credit     time.Duration // CPU time that may be used now; negative: it was exceeded
	creditedAt time.Duration

	now   func() time.Duration
	timer func() (elapsed func() time.Duration) // of CPU time; starts now
}

// absence is a namespace that was asked for and is not found.
type absence struct {
	stage   *stage        // whose next walk looks for it; nil: none
	queued  uint64        // the number of walks that stage had begun by then
	retryAt time.Duration // stage is nil: from then on Locate begins a walk for it again
	retry   time.Duration // the time between the last walk that found nothing and retryAt
}

// stage is one part of the walk, which may take many steps.
type stage struct {
	references iter.Seq[reference]
	next       func() (reference, bool) // nil: no walk is under way
	stop       func()
	begun      uint64 // number of walks
	waiting    int    // the namespaces in this stage
}

// Result is a namespace that Step has found, or has not found.
type Result struct {
	Inode uint32
	Found bool
}

// NewSearch returns a Search that has found nothing.
func NewSearch() *Search {
	var w walk // its error is not used: the namespaces are then missing
	s := newSearch(
		func(yield func(reference) bool) { w.cheap(yield) },
		func(yield func(reference) bool) { w.costly(yield) },
		boottime.Now,
	)
	s.timer = func() func() time.Duration {
		timer := cputime.Start()
		return func() time.Duration { return costOf(timer) }
	}
	return s
}

// costOf is the CPU time of a step. On a busy host the goroutine may have moved to another
// thread, and then only the CPU time of the whole process is known. A step takes no more than
// twice searchSlice, or it would have ended before.
func costOf(timer cputime.Timer) time.Duration {
	if timer.HasMoved() {
		return min(timer.Elapsed(), 2*searchSlice)
	}
	return timer.Elapsed()
}

// newSearch returns a Search for which all time that passes is CPU time.
func newSearch(cheap, costly iter.Seq[reference], now func() time.Duration) *Search {
	return &Search{
		paths: make(map[uint32]string), missing: make(map[uint32]*absence),
		cheap: stage{references: cheap}, costly: stage{references: costly},
		credit: searchCredit, creditedAt: now(), now: now,
		timer: func() func() time.Duration {
			began := now()
			return func() time.Duration { return now() - began }
		},
	}
}

// Close ends a walk that is under way.
func (s *Search) Close() {
	s.cheap.end()
	s.costly.end()
}

// Add takes a namespace that the caller has found itself. If the Search remembers as many as it can, it
// ignores one that it was not asked for: a user may hold any number of namespaces.
func (s *Search) Add(n Namespace) {
	a := s.missing[n.Inode]
	if s.paths[n.Inode] == "" && len(s.paths) >= maxSearched {
		if a == nil {
			return
		}
		s.forgetSome()
	}
	s.paths[n.Inode] = n.Path
	if a != nil {
		s.moveTo(a, nil)
		delete(s.missing, n.Inode)
	}
}

// forgetSome forgets an arbitrary eighth of the paths: most of them may be of namespaces that are gone, or of
// a user who holds very many. One that is still needed is found again by the next walk.
func (s *Search) forgetSome() {
	left := maxSearched / 8
	for inode := range s.paths {
		if left--; left < 0 {
			return
		}
		delete(s.paths, inode)
	}
}

// Forget removes a namespace that was not where it was found ([ErrGone]). The next Locate begins
// to search for it.
func (s *Search) Forget(inode uint32) { delete(s.paths, inode) }

// Locate returns a namespace that was found, or begins to search for it.
func (s *Search) Locate(inode uint32) (Namespace, Status) {
	if path, found := s.paths[inode]; found {
		return Namespace{Inode: inode, Path: path}, Found
	}
	a := s.missing[inode]
	switch {
	case a == nil && !s.makeRoom():
		return Namespace{}, Missing
	case a == nil:
		a = &absence{}
		s.missing[inode] = a
		s.moveTo(a, &s.cheap)
	case a.stage == nil && s.now() >= a.retryAt:
		s.moveTo(a, &s.cheap)
	}
	if a.stage == &s.cheap {
		return Namespace{}, Searching
	}
	return Namespace{}, Missing
}

// makeRoom forgets missing namespaces that no walk will look for. It reports false if there
// is none and no room.
func (s *Search) makeRoom() bool {
	if len(s.missing) < maxSearched {
		return true
	}
	for inode, a := range s.missing {
		if a.stage == nil {
			delete(s.missing, inode)
		}
	}
	return len(s.missing) < maxSearched
}

// moveTo puts a into a stage (nil: none). If nothing waits in the old stage any more, it ends that
// walk, which would keep a directory open.
func (s *Search) moveTo(a *absence, stage *stage) {
	if a.stage != nil {
		if a.stage.waiting--; a.stage.waiting == 0 {
			a.stage.end()
		}
	}
	if a.stage = stage; stage != nil {
		stage.waiting++
		a.queued = stage.begun
	}
}

// StepDue returns the time until Step has something to do. ok is false if it has nothing to
// do before Locate is called again.
func (s *Search) StepDue() (in time.Duration, ok bool) {
	s.refill()
	var enough time.Duration
	switch {
	case s.cheap.waiting > 0:
		enough = searchSlice
	case s.costly.waiting == 0:
		return 0, false
	case s.costly.next == nil:
		enough = costlyStart
	default:
		enough = costlyReserve
	}
	return max(0, time.Duration(float64(enough-s.credit)/searchShare)), true
}

func (s *Search) refill() {
	now := s.now()
	s.credit = min(searchCredit, s.credit+time.Duration(float64(now-s.creditedAt)*searchShare))
	s.creditedAt = now
}

// Step walks on for a moment. It returns the namespaces that it has found among those asked
// for, and those that the cheap part has not found.
func (s *Search) Step() (results []Result) {
	if in, ok := s.StepDue(); !ok || in > 0 {
		return nil
	}
	stage := &s.cheap
	if stage.waiting == 0 {
		stage = &s.costly
	}
	began, elapsed := s.now(), s.timer()
	if stage.next == nil {
		stage.begun++
		stage.next, stage.stop = iter.Pull(stage.references)
	}
	for s.now()-began < searchSlice && stage.next != nil {
		r, more := stage.next()
		switch {
		case !more:
			results = append(results, s.finish(stage)...)
		case r != pause && s.paths[r.inode] == "":
			_, asked := s.missing[r.inode]
			s.Add(Namespace{Inode: r.inode, Path: r.path})
			if asked {
				results = append(results, Result{r.inode, true})
			}
		}
	}
	s.credit -= elapsed()
	return results
}

// finish ends a walk that has seen everything. What it has not found goes to the next stage,
// or waits for longer than before.
func (s *Search) finish(stage *stage) (missing []Result) {
	stage.end()
	now := s.now()
	for inode, a := range s.missing {
		switch {
		case stage == &s.costly && a.stage == nil:
			a.retryAt = now + a.retry // this walk has looked for it, too
		case a.stage != stage || a.queued >= stage.begun:
			// The walk was not for it, or had begun before.
		case stage == &s.cheap:
			s.moveTo(a, &s.costly)
			missing = append(missing, Result{inode, false})
		default:
			s.moveTo(a, nil)
			a.retry = min(max(minRetry, 2*a.retry), maxRetry)
			a.retryAt = now + a.retry
		}
	}
	slices.SortFunc(missing, func(a, b Result) int { return int(int64(a.Inode) - int64(b.Inode)) })
	return missing
}

func (l *stage) end() {
	if l.next != nil {
		l.stop()
		l.next, l.stop = nil, nil
	}
}
