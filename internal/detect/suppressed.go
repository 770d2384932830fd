package detect

import (
	"fmt"
	"time"

	"github.com/tcpshift/tcpshift/internal/detect/rate"
)

const (
	// maxOpenAlerts bounds the open alerts of one kind in one network namespace. As many as
	// maxCriticalAlerts more may open if they are critical.
	maxOpenAlerts     = 128
	maxCriticalAlerts = 64
	// maxSuppressed bounds the causes without an alert that are remembered. The tables of
	// the detectors have about as many.
	maxSuppressed = 1 << 14
	// severityInterval is how often the severity of a cause without an alert is found out.
	severityInterval = time.Second
)

// AlertsSuppressed is the kind of the alert about causes that have no alert of their own.
const AlertsSuppressed = "alerts_suppressed"

// group is what the cap on open alerts is for.
type group struct {
	kind  string
	netns uint32
}

// suppressed are the causes that have no alert because too many are open.
type suppressed struct {
	causes   map[alertKey]*suppressedCause
	total    uint64       // since the start
	bySecond rate.Counter // of total
}

type suppressedCause struct {
	raisedAt  time.Duration
	checkedAt time.Duration // when it was last found not to be critical, or when it was suppressed first
}

// suppressionCause is what the one alert of kind AlertsSuppressed is about: all namespaces.
type suppressionCause struct{}

func (suppressionCause) netnsInode() uint32 { return 0 }

// admits decides whether one more alert may open, and remembers the cause otherwise. An
// alert that is open is never closed for another one.
func (l *lifecycle) admits(key alertKey, describe func() Finding, now time.Duration) bool {
	open := l.inGroup[key.group()]
	if open < maxOpenAlerts || open < maxOpenAlerts+maxCriticalAlerts && l.isCritical(key, describe, now) {
		delete(l.suppressed.causes, key)
		return true
	}
	l.suppressed.add(key, now)
	return false
}

func (l *lifecycle) isCritical(key alertKey, describe func() Finding, now time.Duration) bool {
	if s := l.suppressed.causes[key]; s != nil {
		if now-s.checkedAt < severityInterval {
			return false
		}
		s.checkedAt = now
	}
	return describe().Severity == Critical
}

// add counts a cause without an alert, once for as long as it lasts.
func (s *suppressed) add(key alertKey, now time.Duration) {
	if known := s.causes[key]; known != nil {
		known.raisedAt = now
		return
	}
	if len(s.causes) >= maxSuppressed {
		return
	}
	s.causes[key] = &suppressedCause{raisedAt: now, checkedAt: now}
	s.total++
	s.bySecond.Advance(int64(now / time.Second))
	s.bySecond.Add(1)
}

// sweep forgets the causes that are gone, and reports whether there is one now.
func (s *suppressed) sweep(now time.Duration) (lasts bool) {
	for key, c := range s.causes {
		lasts = lasts || c.raisedAt == now
		if now-c.raisedAt >= quietPeriod {
			delete(s.causes, key)
		}
	}
	return lasts
}

// describe names the kind and the namespace that most of the causes are of.
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
		Occupancy: uint64(len(s.causes)), OccupancySource: FromEvents, Approximate: len(s.causes) >= maxSuppressed,
	}
	f.Cause = fmt.Sprintf("%d causes have no alert of their own, because %d alerts of their kind are open in their network namespace "+
		"already; %d more may open if they are critical; %d of the causes are of kind %s in this network namespace",
		len(s.causes), maxOpenAlerts, maxCriticalAlerts, groups[largest], largest.kind)
	f.Advice = "look for what the open alerts of that kind have in common, such as a network or a service that is down, or a scan; " +
		"where so many are normal, raise the threshold of that kind (`tcpshift alerts --help`)"
	return f
}
