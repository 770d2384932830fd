package detect

import (
	"cmp"
	"slices"
	"strconv"
	"time"
)

const (
	// calm is how long a cause is to be gone before its alert is closed.
	calm = 10 * time.Second
	// openLimit bounds the alerts that are open at a time.
	openLimit = 1024
)

// alarms leads each alert through its life: one open, updates that are not too
// many, and in any case one close.
type alarms struct {
	every time.Duration
	open  map[cause]*alarm
	fresh []Alert
	made  uint64
}

type cause struct {
	kind string
	what any
}

type alarm struct {
	alert    Alert
	opened   time.Duration
	told     time.Duration
	seen     time.Duration // when it was raised last
	describe func() Finding
}

func newAlarms(every time.Duration) alarms {
	return alarms{every: every, open: make(map[cause]*alarm)}
}

func (a *alarms) raise(kind string, what any, lasting bool, describe func() Finding, now time.Duration) {
	c := cause{kind, what}
	if known := a.open[c]; known != nil {
		known.seen, known.describe = now, describe
		return
	}
	if lasting || len(a.open) >= openLimit {
		return
	}
	a.made++
	id := strconv.FormatInt(now.Milliseconds(), 36) + "-" + strconv.FormatUint(a.made, 10)
	opened := &alarm{
		alert:  Alert{ID: id, Kind: kind, Phase: Open, Monotonic: now, Finding: describe()},
		opened: now, told: now, seen: now, describe: describe,
	}
	a.open[c] = opened
	a.fresh = append(a.fresh, opened.alert)
}

// due gives what is to be told now.
func (a *alarms) due(now time.Duration) []Alert {
	due := a.fresh
	a.fresh = nil
	for c, known := range a.open {
		switch {
		case now-known.seen >= calm:
			due = append(due, known.next(Close, now))
			delete(a.open, c)
		case now-known.told >= a.every && known.seen == now:
			known.alert.Finding = known.describe()
			due = append(due, known.next(Update, now))
		}
	}
	return inOrder(due)
}

func (a *alarms) closeAll(now time.Duration) []Alert {
	due := a.fresh
	a.fresh = nil
	for _, known := range a.open {
		due = append(due, known.next(Close, now))
	}
	clear(a.open)
	return inOrder(due)
}

func (k *alarm) next(phase Phase, now time.Duration) Alert {
	k.told = now
	k.alert.Phase, k.alert.Monotonic, k.alert.Lasted = phase, now, now-k.opened
	return k.alert
}

func inOrder(due []Alert) []Alert {
	slices.SortFunc(due, func(a, b Alert) int {
		return cmp.Or(cmp.Compare(a.Monotonic, b.Monotonic), cmp.Compare(a.ID, b.ID))
	})
	return due
}
