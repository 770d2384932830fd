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
	opened         []*openAlert // of open: those that are not reported yet and have no id
	count          uint64       // of all alerts so far
	inGroup        map[group]*openCount
	suppressed     suppressed
}

type alertKey struct {
	kind  string
	cause cause
}

func (k alertKey) group() group { return group{k.kind, k.cause.netnsInode()} }

type openAlert struct {
	alert      Alert
	openedAt   time.Duration
	user       uint32 // on whose account it is open: see quotaOf
	reportedAt time.Duration
	raisedAt   time.Duration // when its cause was raised last
	describe   func() Finding
	closes     CloseReason // why it closes at the next report; "": it does not
	verified   bool        // the kernel confirms its cause now: see claim
	confirmed  bool        // it has done so at some time: see isConfirmed
	answered   bool        // the kernel has answered since the alert opened
	failures   uint64      // failed connects, see failureCounter: never fewer than before
}

func newLifecycle(c *Config) lifecycle {
	return lifecycle{updateInterval: c.UpdateInterval, gone: c.Gone, open: make(map[alertKey]*openAlert),
		inGroup: make(map[group]*openCount), suppressed: suppressed{causes: make(map[alertKey]*suppressedCause)}}
}

// raise takes a cause and what it claims. It opens the alert of the cause, keeps it open, or marks
// it to be closed. It returns that alert, or nil if none is open, or if the claim only casts doubt on it.
func (l *lifecycle) raise(kind string, cause cause, c claim, describe func() Finding, now time.Duration) *openAlert {
	key := alertKey{kind, cause}
	if known := l.open[key]; known != nil {
		if !known.take(c, describe, now) {
			return nil
		}
		return known
	}
	if c&opens == 0 {
		return nil
	}
	user, admitted := l.admits(key, describe, now)
	if !admitted {
		return nil
	}
	o := &openAlert{
		user:     user,
		alert:    Alert{Kind: kind, Phase: Open, Monotonic: now, Finding: l.makeFinding(describe)},
		openedAt: now, reportedAt: now, raisedAt: now, describe: describe, confirmed: c&verified != 0,
	}
	l.open[key] = o
	l.opened = append(l.opened, o)
	return o
}

// take applies a claim to the alert. Of several in one tick the last one counts. It reports false if the claim only
// casts doubt on the alert.
func (o *openAlert) take(c claim, describe func() Finding, now time.Duration) bool {
	switch {
	case c == refuted:
		o.closes = Refuted
	case c == ended, c == gone && o.isConfirmed():
		o.closes = Resolved
	case c == gone:
		o.closes = Refuted
	case c&doubted != 0 && !o.isConfirmed():
		if o.answered = true; c&denied != 0 {
			o.closes = Refuted
		}
		return false
	case c&(opens|keeps) == 0:
		return false
	default:
		o.raisedAt, o.describe, o.closes, o.verified = now, describe, "", c&(verified|doubted) != 0
		o.confirmed = o.confirmed || c&verified != 0
	}
	return true
}

// isConfirmed reports whether the kernel has confirmed the alert at some time: it opened or was reported with numbers
// that the kernel's tables have shown, or connects have failed.
func (o *openAlert) isConfirmed() bool { return o.confirmed || !o.alert.Unverified || o.failures > 0 }

// reason is why an alert closes whose cause has been gone for quietPeriod.
func (o *openAlert) reason() CloseReason {
	switch {
	case o.isConfirmed():
		return Resolved
	case o.answered:
		return Refuted
	}
	return Unverified
}

// makeFinding describes a cause, and names only processes that live.
func (l *lifecycle) makeFinding(describe func() Finding) Finding {
	f := describe()
	f.Culprit.nameLiving(l.gone)
	return f
}

// takeOpened gives ids to the alerts that have opened, and returns them. Their order does not
// depend on that of a map: the same transitions and answers lead to the same ids.
func (l *lifecycle) takeOpened() (alerts []Alert) {
	slices.SortFunc(l.opened, func(a, b *openAlert) int { return a.alert.compareCause(&b.alert) })
	for _, o := range l.opened {
		l.count++
		o.alert.ID = strconv.FormatInt(o.openedAt.Milliseconds(), 36) + "-" + strconv.FormatUint(l.count, 10)
		alerts = append(alerts, o.alert)
	}
	l.opened = nil
	return alerts
}

// compareCause orders alerts that open, by what they are about.
func (a *Alert) compareCause(b *Alert) int {
	return cmp.Or(
		cmp.Compare(a.Monotonic, b.Monotonic), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Netns, b.Netns),
		cmp.Compare(a.Role, b.Role), a.Peer.Addr.Compare(b.Peer.Addr), cmp.Compare(a.Peer.Port, b.Peer.Port),
		a.Local.Addr.Compare(b.Local.Addr), cmp.Compare(a.Local.Port, b.Local.Port), cmp.Compare(a.Culprit.PID, b.Culprit.PID),
		cmp.Compare(a.Cause, b.Cause),
	)
}

func (l *lifecycle) remove(key alertKey) {
	user, g := l.open[key].user, key.group()
	delete(l.open, key)
	if l.inGroup[g].release(user); l.inGroup[g].total == 0 {
		delete(l.inGroup, g)
	}
}

// due returns the alerts to report now: those that open, those that close, and updates.
func (l *lifecycle) due(now time.Duration) []Alert {
	if l.suppressed.sweep(now) {
		l.raise(AlertsSuppressed, suppressionCause{}, opens, func() Finding { return l.suppressed.describe(now) }, now)
	}
	due := l.takeOpened()
	for key, o := range l.open {
		switch {
		case o.closes != "":
			due = append(due, l.close(o, o.closes, now))
			l.remove(key)
		case now-o.raisedAt >= quietPeriod:
			due = append(due, l.close(o, o.reason(), now))
			l.remove(key)
		case o.raisedAt == now && (now-o.reportedAt >= l.updateInterval || o.hasNews()):
			o.alert.Finding = l.makeFinding(o.describe)
			due = append(due, o.next(Update, now))
		}
	}
	return sorted(due)
}

// closeAll closes every alert, also those that have opened since the last report.
func (l *lifecycle) closeAll(now time.Duration) []Alert {
	var ended, stopped []Alert
	for _, o := range l.open {
		if o.closes != "" {
			ended = append(ended, l.close(o, o.closes, now))
		}
	}
	opened := l.takeOpened()
	for _, o := range l.open {
		if o.closes == "" {
			stopped = append(stopped, l.close(o, Stopped, now))
		}
	}
	clear(l.open)
	return append(append(sorted(ended), opened...), sorted(stopped)...)
}

// hasNews reports whether an update must not wait for the interval: the kernel has confirmed an
// alert that was unverified, or the first connect() has failed.
func (o *openAlert) hasNews() bool {
	return o.verified && o.alert.Unverified || o.failures > 0 && o.alert.Failures == 0
}

// close reports the numbers of the last report again, with all failures, and no process that is gone.
func (l *lifecycle) close(o *openAlert, reason CloseReason, now time.Duration) Alert {
	o.alert.Culprit.nameLiving(l.gone)
	o.alert.Failures = max(o.alert.Failures, o.failures)
	o.alert.Reason = reason
	return o.next(Close, now)
}

// next is the report of another phase.
func (o *openAlert) next(phase Phase, now time.Duration) Alert {
	o.reportedAt = now
	o.alert.Phase, o.alert.Monotonic, o.alert.Lasted = phase, now, now-o.openedAt
	return o.alert
}

// sorted orders reports. One that closes comes before one that opens, which may take over from it.
func sorted(due []Alert) []Alert {
	slices.SortFunc(due, func(a, b Alert) int {
		return cmp.Or(cmp.Compare(a.Monotonic, b.Monotonic), cmp.Compare(a.Phase, b.Phase), cmp.Compare(a.ID, b.ID))
	})
	return due
}
