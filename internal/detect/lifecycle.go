package detect

import (
	"cmp"
	"slices"
	"strconv"
	"time"
)

// quietPeriod is how long a cause must have been absent for its alert to close.
const quietPeriod = 10 * time.Second

// lifecycle leads each alert through its phases: one open, updates at an interval,
// and in any case one close.
type lifecycle struct {
	updateInterval time.Duration
	gone           func(Process) bool // see Config
	open           map[alertKey]*openAlert
	opened         []Alert       // not reported yet
	count          uint64        // of all alerts so far
	inGroup        map[group]int // open alerts
	suppressed     suppressed
}

type alertKey struct {
	kind  string
	cause cause
}

func (k alertKey) group() group { return group{k.kind, k.cause.inNetns()} }

type openAlert struct {
	alert      Alert
	openedAt   time.Duration
	reportedAt time.Duration
	raisedAt   time.Duration // when its cause was raised last
	describe   func() Finding
	refuted    bool // the kernel does not confirm its cause
}

func newLifecycle(c *Config) lifecycle {
	return lifecycle{updateInterval: c.UpdateInterval, gone: c.Gone, open: make(map[alertKey]*openAlert),
		inGroup: make(map[group]int), suppressed: suppressed{causes: make(map[alertKey]*suppressedCause)}}
}

// raise reports whether the cause has an open alert now.
func (l *lifecycle) raise(kind string, cause cause, c claim, describe func() Finding, now time.Duration) (isOpen bool) {
	key := alertKey{kind, cause}
	if known := l.open[key]; known != nil {
		if c == refuted {
			known.refuted = true
			return true
		}
		known.raisedAt, known.describe, known.refuted = now, describe, false
		return true
	}
	if c != opens || !l.admits(key, describe, now) {
		return false
	}
	l.count++
	id := strconv.FormatInt(now.Milliseconds(), 36) + "-" + strconv.FormatUint(l.count, 10)
	o := &openAlert{
		alert:    Alert{ID: id, Kind: kind, Phase: Open, Monotonic: now, Finding: describe()},
		openedAt: now, reportedAt: now, raisedAt: now, describe: describe,
	}
	l.open[key] = o
	l.inGroup[key.group()]++
	l.opened = append(l.opened, o.alert)
	return true
}

func (l *lifecycle) remove(key alertKey) {
	delete(l.open, key)
	g := key.group()
	if l.inGroup[g]--; l.inGroup[g] == 0 {
		delete(l.inGroup, g)
	}
}

// due returns the alerts to report now, and closes those whose causes are gone.
func (l *lifecycle) due(now time.Duration) []Alert {
	if l.suppressed.sweep(now) {
		l.raise(AlertsSuppressed, suppressionCause{}, opens, func() Finding { return l.suppressed.describe(now) }, now)
	}
	due := l.opened
	l.opened = nil
	for key, o := range l.open {
		switch {
		case o.refuted:
			due = append(due, l.close(o, Refuted, now))
			l.remove(key)
		case now-o.raisedAt >= quietPeriod:
			due = append(due, l.close(o, Resolved, now))
			l.remove(key)
		case now-o.reportedAt >= l.updateInterval && o.raisedAt == now:
			o.alert.Finding = o.describe()
			due = append(due, o.next(Update, now))
		}
	}
	return sorted(due)
}

func (l *lifecycle) closeAll(now time.Duration) []Alert {
	due := l.opened
	l.opened = nil
	for _, o := range l.open {
		due = append(due, l.close(o, Stopped, now))
	}
	clear(l.open)
	return sorted(due)
}

// close reports the last numbers again, but no process that is gone.
func (l *lifecycle) close(o *openAlert, reason CloseReason, now time.Duration) Alert {
	o.alert.Culprit.settle(l.gone)
	o.alert.Reason = reason
	return o.next(Close, now)
}

func (o *openAlert) next(phase Phase, now time.Duration) Alert {
	o.reportedAt = now
	o.alert.Phase, o.alert.Monotonic, o.alert.Lasted = phase, now, now-o.openedAt
	return o.alert
}

func sorted(due []Alert) []Alert {
	slices.SortFunc(due, func(a, b Alert) int {
		return cmp.Or(cmp.Compare(a.Monotonic, b.Monotonic), cmp.Compare(a.ID, b.ID))
	})
	return due
}
