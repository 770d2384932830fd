package detect

import (
	"fmt"
	"math"
	"time"

	"github.com/tcpshift/tcpshift/internal/detect/rate"
)

const (
	// maxOpenAlerts bounds the open alerts of one user, of one kind in one network namespace. As
	// many as maxCriticalAlerts more may open if they are critical. All users together have twice
	// as many: see openCount.
	maxOpenAlerts     = 128
	maxCriticalAlerts = 64
	// maxFirstAlerts is how many users get one alert even if others have used up all that.
	maxFirstAlerts = 64
	// maxSuppressed bounds the causes without an alert that are remembered. The tables of
	// the detectors have about as many.
	maxSuppressed = 1 << 14
	// severityInterval is how often the severity of a cause without an alert is found out.
	severityInterval = time.Second
)

// AlertsSuppressed is the kind of the alert about causes that have no alert of their own.
const AlertsSuppressed = "alerts_suppressed"

// group is the alerts of one kind in one namespace. Their number is bounded.
type group struct {
	kind  string
	netns uint32
}

// suppressed are the causes that have no alert because too many are open.
type suppressed struct {
	causes   map[alertKey]*suppressedCause
	more     uint64 // causes raised in the tick at moreAt that are not in causes, for lack of room
	moreAt   time.Duration
	excess   excess       // of more
	total    uint64       // causes since the start
	bySecond rate.Counter // of total
}

type suppressedCause struct {
	raisedAt  time.Duration // when it was raised last
	checkedAt time.Duration // when its severity and its user were last found out
}

// suppressionCause is the cause of the only alert of the kind AlertsSuppressed, which is about all
// namespaces.
type suppressionCause struct{}

func (suppressionCause) netnsInode() uint32 { return 0 }

// openCount counts the open alerts of a group by user. A user may have at most as many as are free (see
// quota), so whatever one user does, others still get alerts.
type openCount struct{ quota }

// take counts one more alert of a user. It reports false, and counts nothing, if there is no room for it. Users
// who have alerts leave room for the first one of others: some uids of one user would else use up all of it.
func (c *openCount) take(user uint32, s Severity) bool {
	if c.limit = 2 * maxOpenAlerts; s == Critical {
		c.limit += 2 * maxCriticalAlerts
	}
	if c.quota.take(user) {
		return true
	}
	if c.users[user] > 0 || c.total >= 2*(maxOpenAlerts+maxCriticalAlerts)+maxFirstAlerts {
		return false
	}
	c.recount(user)
	return true
}

// admits decides whether one more alert may open, and for which user. If it may not, its cause is
// remembered as suppressed. No open alert is ever closed for another one.
func (l *lifecycle) admits(key alertKey, describe func() Finding, now time.Duration) (user uint32, admitted bool) {
	if !l.mayBeAdmitted(key, now) {
		l.suppressed.add(key, now)
		return 0, false
	}
	f := describe()
	g := l.inGroup[key.group()]
	if g == nil {
		g = &openCount{newQuota(0)}
		l.inGroup[key.group()] = g
	}
	if !g.take(f.Culprit.user, f.Severity) {
		l.suppressed.add(key, now)
		return 0, false
	}
	delete(l.suppressed.causes, key)
	return f.Culprit.user, true
}

// mayBeAdmitted reports whether admits is to find out the severity and the user of a cause, which costs CPU. While
// a group has maxOpenAlerts or more, that is once in severityInterval for each suppressed cause.
func (l *lifecycle) mayBeAdmitted(key alertKey, now time.Duration) bool {
	s := l.suppressed.causes[key]
	if g := l.inGroup[key.group()]; s == nil || g == nil || g.total < maxOpenAlerts {
		return true
	}
	if now-s.checkedAt < severityInterval {
		return false
	}
	s.checkedAt = now
	return true
}

// add takes a suppressed cause that is raised. It counts once for as long as it lasts.
func (s *suppressed) add(key alertKey, now time.Duration) {
	if known := s.causes[key]; known != nil {
		known.raisedAt = now
		return
	}
	if len(s.causes) >= maxSuppressed {
		s.addMore(now)
		return
	}
	s.causes[key] = &suppressedCause{raisedAt: now, checkedAt: now}
	s.count(1, now)
}

// addMore takes a suppressed cause for which there is no room in causes. Such causes are raised again in each tick,
// so sweep adds to the total only how many more there are than in the tick before.
func (s *suppressed) addMore(now time.Duration) {
	if s.moreAt != now {
		s.more, s.moreAt = 0, now
	}
	s.more++
}

func (s *suppressed) count(causes uint64, now time.Duration) {
	s.total += causes
	s.bySecond.Advance(int64(now / time.Second))
	s.bySecond.Add(int32(min(causes, math.MaxInt32)))
}

// sweep forgets the causes that were not raised for quietPeriod, after each tick. It reports whether one
// of those that are remembered was raised in this tick.
func (s *suppressed) sweep(now time.Duration) (lasts bool) {
	if s.moreAt != now {
		s.more = 0
	}
	s.count(s.excess.grow(s.more), now)
	for key, c := range s.causes {
		lasts = lasts || c.raisedAt == now
		if now-c.raisedAt >= quietPeriod {
			delete(s.causes, key)
		}
	}
	return lasts
}

// describe makes the finding of the alert AlertsSuppressed. It names the group with the most suppressed causes.
func (s *suppressed) describe(now time.Duration) Finding {
	groups := make(map[group]int)
	var largest group
	for key := range s.causes {
		g := key.group()
		groups[g]++
		n, most := groups[g], groups[largest]
		if n > most || n == most && (g.kind < largest.kind || g.kind == largest.kind && g.netns < largest.netns) {
			largest = g
		}
	}
	s.bySecond.Advance(int64(now / time.Second))
	f := Finding{
		Severity: Warning, Netns: largest.netns, RateUnit: "more causes without an alert",
		Rate:      float64(s.bySecond.Sum(0, outcomeWindow)) / outcomeWindow,
		Occupancy: uint64(len(s.causes)) + s.more, OccupancySource: FromEvents, Approximate: s.more > 0,
	}
	f.Cause = fmt.Sprintf("%s own, because a user has too many open alerts of one kind in one "+
		"network namespace already: %d, and %d more if they are critical, or fewer if several users have that many; %s "+
		"of kind %s in this network namespace", counted(f.Occupancy, "cause has no alert of its", "causes have no alert of their"),
		maxOpenAlerts, maxCriticalAlerts, counted(uint64(groups[largest]), "of the causes is", "of the causes are"), largest.kind)
	f.Advice = "look for what the open alerts of that kind have in common, such as a network or a service that is down, or a scan; " +
		"where so many are normal, raise the threshold of that kind (`tcpshift alerts --help`)"
	return f
}
