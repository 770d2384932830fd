package detect

import (
	"time"

	"github.com/tcpshift/tcpshift/internal/detect/rate"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// exhaustions counts the connects that found no local port lately, by destination.
type exhaustions struct {
	byDestination map[destination]*exhaustion
	room          quota // of byDestination
	perNetns      map[uint32]*quota
	leftOut       uint64 // failed connects that are not counted, for lack of room
	ending        bool   // Finish was called: no count of the kernel's table will come any more
}

// exhaustion is what is known of the connects to one destination that found no local port.
type exhaustion struct {
	topServices
	firstAt, lastAt time.Duration // of the failures
	gotAt           time.Duration // the first tick after the engine got the first failure; 0: there was none yet
	raisedAt        time.Duration // the last tick at which an alert had to report the failures
	user            uint32        // of the first one: see quotaOf
	bySecond        rate.Counter  // failures

	kind       exhaustionKind
	confirmed  bool          // the kernel's table has confirmed kind
	refuted    bool          // the kernel's table has shown that the kind before this one was wrong
	decidedAt  time.Duration // when kindOf decided last
	failed     uint64        // connects, since the alert of this kind counts them
	newly      uint64        // of failed: since decidedAt
	unreported uint64        // of failed: no alert that reports them has been raised yet
}

// exhaustionKind is which alert reports the failures: one cause has one alert.
type exhaustionKind int

const (
	undecided    exhaustionKind = iota
	byTimeWaits                 // a time_wait_storm: TIME_WAITs take most of the ports
	notTimeWaits                // a port_exhaustion: open connections or bound ports do
)

const (
	// maxExhausted bounds the exhaustions of one user in one namespace: some more than can have
	// alerts. So a namespace takes no room from another one. Of all users there are at most
	// twice as many (see quota).
	maxExhausted = 2*(maxOpenAlerts+maxCriticalAlerts) + maxCriticalAlerts
	// exhaustionWindow is how many seconds the rate of failures is taken over.
	exhaustionWindow = 10
	// timerDelay is how long a TIME_WAIT may last longer than in the model: the kernel's timers are up to 2 s late.
	timerDelay = 2 * time.Second
	// refusedFor is how long after a failed connect() no port counts as free, whatever the model counts.
	refusedFor = time.Second
)

// time_wait_storm reports the failures if TIME_WAITs take timeWaitShare of the ports or more, else
// port_exhaustion does. While one of the two alerts is open, the other one takes over only if
// TIME_WAITs take more than timeWaitShareTakes or less than timeWaitShareLoses: so they do not alternate.
const (
	timeWaitShare      = 0.5
	timeWaitShareTakes = 0.6
	timeWaitShareLoses = 0.4
)

func newExhaustions(limit int) exhaustions {
	return exhaustions{byDestination: make(map[destination]*exhaustion), perNetns: make(map[uint32]*quota), room: newQuota(2 * limit)}
}

// observe counts a connect() that found no local port.
func (s *exhaustions) observe(t *tcp.Transition) {
	key := destinationOf(t)
	x := s.byDestination[key]
	if x == nil {
		user := quotaOf(t.UID)
		if !s.take(t.Netns, user) {
			s.leftOut++
			return
		}
		x = &exhaustion{firstAt: t.Monotonic, user: user}
		s.byDestination[key] = x
	}
	x.count(t)
	x.failed++
	x.newly++
	x.unreported++
	x.lastAt = max(x.lastAt, t.Monotonic)
	x.bySecond.Advance(int64(x.lastAt / time.Second))
	x.bySecond.Add(1)
}

// take counts one more exhaustion, and reports false if there is no room.
func (s *exhaustions) take(netns, user uint32) bool {
	here := s.perNetns[netns]
	if here == nil {
		q := newQuota(2 * maxExhausted)
		here = &q
	}
	if !s.room.take(user) {
		return false
	}
	if !here.take(user) {
		s.room.release(user)
		return false
	}
	s.perNetns[netns] = here
	return true
}

// of returns the failures of a destination, nil if there was none lately.
func (s *exhaustions) of(key destination) *exhaustion {
	if len(s.byDestination) == 0 {
		return nil
	}
	return s.byDestination[key]
}

// failures is how many failed connects an alert about a destination has to report.
func (s *exhaustions) failures(c cause, kind exhaustionKind) uint64 {
	key, _ := c.(destination)
	if x := s.of(key); x != nil && x.kind == kind {
		return x.failed
	}
	return 0
}

func (s *exhaustions) remove(key destination) {
	user, here := s.byDestination[key].user, s.perNetns[key.netns]
	delete(s.byDestination, key)
	s.room.release(user)
	if here.release(user); here.total == 0 {
		delete(s.perNetns, key.netns)
	}
}

// isFailing reports whether a connect() has failed within quietPeriod, or earlier, but no alert has reported it: on a
// starved machine the engine may get it that late.
func (x *exhaustion) isFailing(now time.Duration) bool {
	return now-x.lastAt < quietPeriod || x.unreported > 0
}

// mayBeReported reports whether an alert that has to report the failures may still be open: it closes quietPeriod
// after it was last raised.
func (x *exhaustion) mayBeReported(now time.Duration) bool {
	return now-x.raisedAt <= quietPeriod+time.Second
}

// isRefused reports whether a connect() has failed within refusedFor: then no port is left. x may be
// nil.
func (x *exhaustion) isRefused(now time.Duration) bool { return x != nil && now-x.lastAt < refusedFor }

// correct corrects a forecast while isRefused. x may be nil.
func (x *exhaustion) correct(now time.Duration, f rate.Forecast) rate.Forecast {
	if x.isRefused(now) {
		f.Occupancy, f.Exhausts, f.ExhaustedIn = f.Capacity, true, 0
	}
	return f
}

// kindOf decides, once in a tick, which alert reports the failures. While neither the model nor the
// kernel's table explains them, it waits for the table, up to countWait after the engine got the first failure.
func (tr *tracker) kindOf(key destination, x *exhaustion) exhaustionKind {
	if x.decidedAt == tr.now && x.kind != undecided {
		return x.kind
	}
	if x.decidedAt = tr.now; x.gotAt == 0 {
		x.gotAt = tr.now
	}
	share, isExplained, isCounted := tr.shareOfTimeWaits(key, x)
	switch {
	case x.kind == undecided:
		tr.decide(key, x, share, isExplained)
	case isExplained && x.hasChangedKind(share) && (x.isRefused(tr.now) || isCounted && !x.confirmed):
		x.change()
	}
	x.confirmed = x.confirmed || isCounted && x.kind != undecided
	x.newly = 0
	return x.kind
}

// decide sets the kind of an exhaustion as soon as it is known, or after countWait at the latest.
func (tr *tracker) decide(key destination, x *exhaustion, share float64, isExplained bool) {
	least, hasStorm := timeWaitShare, tr.hasStorm(key)
	if hasStorm {
		least = timeWaitShareLoses
	}
	if isExplained || hasStorm || tr.exhausted.ending || tr.now-x.gotAt >= countWait {
		x.kind = kindFor(share >= least)
		x.confirmed = hasStorm && x.kind == byTimeWaits && tr.isVerified(key)
	}
}

// isVerified reports whether the kernel's table confirms what the model counts for a destination.
func (tr *tracker) isVerified(key destination) bool {
	e := tr.destinations.Find(key, key.hash())
	return e != nil && e.Value.kernel.isVerified(tr)
}

func kindFor(byTimeWait bool) exhaustionKind {
	if byTimeWait {
		return byTimeWaits
	}
	return notTimeWaits
}

// hasChangedKind reports whether TIME_WAITs have clearly begun or ceased to take most of the ports.
func (x *exhaustion) hasChangedKind(share float64) bool {
	if x.kind == byTimeWaits {
		return share < timeWaitShareLoses
	}
	return share > timeWaitShareTakes
}

// change gives the failures to the other kind: all of them if the first kind was not confirmed, else those since the
// last decision, at least one.
func (x *exhaustion) change() {
	x.kind = kindFor(x.kind == notTimeWaits)
	if x.refuted = !x.confirmed; !x.refuted {
		x.failed = max(1, x.newly)
	}
}

// shareOfTimeWaits is the fraction of the ports of a destination that TIME_WAITs take. isExplained
// means that what is counted explains why connect() has failed; isCounted that the kernel's table was
// counted after the first failure.
func (tr *tracker) shareOfTimeWaits(key destination, x *exhaustion) (share float64, isExplained, isCounted bool) {
	e := tr.destinations.Find(key, key.hash())
	if e == nil {
		return 0, tr.knownNamespace(key.netns) != nil, false
	}
	u := &e.Value
	capacity, ns := tr.portCapacity(key, u)
	switch {
	case ns == nil:
		return 0, false, false
	case capacity == 0: // all are bound, or TIME_WAITs alone cannot take all of them
		return 0, true, false
	}
	u.Advance(tr.now)
	model := ns.modelFor(tr.now, key, u)
	isCounted = u.kernel.verifiedAt >= x.firstAt
	isExplained = isCounted || u.Occupancy(model) >= exhaustedShare*capacity && !tr.isStale(ns)
	return min(1, u.lateTimeWaits(model)/capacity), isExplained, isCounted
}

// lateTimeWaits is the number of TIME_WAITs with those whose timers may be late: where a connect() has found no port,
// they probably are.
func (u *destinationUse) lateTimeWaits(m rate.TimeWaitModel) float64 {
	m.Hold += timerDelay
	return u.TimeWaits(m)
}

// hasStorm reports whether an alert about a portStorm of a destination is open.
func (tr *tracker) hasStorm(key destination) bool {
	e := tr.destinations.Find(key, key.hash())
	return e != nil && e.Value.stormAt > 0 && tr.now-e.Value.stormAt < quietPeriod
}
