package trace

import (
	"cmp"
	"context"
	"time"
)

const (
	// firstSleep bounds a sleep on a host that has just become quiet. After each sleep the loop looks
	// whether the reader of an output is gone, whether firings were lost, and whether an alert is due. Each
	// sleep without a firing doubles the bound, up to longestSleep: half of the default interval of stats, so
	// that a quiet host has two wake-ups in each interval.
	firstSleep   = time.Second
	longestSleep = 5 * time.Second
	// alertSleep bounds a sleep while alerts are open or transitions have come lately, so that alerts and
	// requests of detection are not late.
	alertSleep = 250 * time.Millisecond
	// lately is how long after the last transition alertSleep applies.
	lately = 2 * time.Second
	// quietTurns is the number of turns without an event after which the loop sleeps instead of
	// polling.
	quietTurns = 2
	// recheckTurns is the number of turns that read the counters again if there were firings during a
	// sleep. The ledger compares readings that are about settleTime apart, as firings in between hide
	// a loss.
	recheckTurns = int(settleTime / maxWait)
)

// wakeAtEnd makes the end of ctx end a sleep.
func (l *loop) wakeAtEnd(ctx context.Context) (stop func() bool) {
	return context.AfterFunc(ctx, l.Source.Wake)
}

// sleep waits until there is an event or something is due, if nothing has come for quietTurns. Otherwise it
// returns at once. expired means that the sleep ended because something is due: then the turn must not wait.
func (l *loop) sleep() (expired bool, err error) {
	if l.idle <= quietTurns || l.rechecks > 0 || l.pending.count > 0 || len(l.dumps) > 0 || l.outs.stalled() {
		return false, nil
	}
	limit := l.sleepLimit()
	if limit <= 0 {
		return true, nil
	}
	woken, err := l.Source.Sleep(limit)
	return !woken, err
}

// sleepLimit is the time until something is due, longestSleep at most; 0 or less: it is due now.
func (l *loop) sleepLimit() time.Duration {
	limit := min(firstSleep<<l.quietSleeps, longestSleep)
	if l.Monitor != nil && (l.Monitor.HasOpenAlerts() || time.Since(l.lastEvent) < lately) {
		limit = alertSleep
	}
	if l.Duration > 0 {
		limit = min(limit, l.Duration-time.Since(l.started))
	}
	return l.outs.untilStats(l.outs.untilSummary(limit))
}

// wait is how long this turn waits for events. expired is that of sleep.
func (l *loop) wait(expired bool) time.Duration {
	if expired {
		return 0
	}
	wait := cmp.Or(l.MaxWait, maxWait)
	if l.Duration > 0 {
		wait = max(0, min(wait, l.Duration-time.Since(l.started)))
	}
	if l.pending.count > 0 {
		wait = min(wait, pendingWait)
	}
	return wait
}

// readCountersInTurn reads the counters if an output can report them or has to. After a sleep without an event
// (slept) it does so only if there was a firing since it read them, and then keeps the loop awake for
// recheckTurns.
func (l *loop) readCountersInTurn(slept bool) error {
	if !l.outs.wantCounters() {
		return nil
	}
	l.rechecks = max(0, l.rechecks-1)
	if slept {
		entered, err := l.Source.Entered()
		if err != nil {
			return err
		}
		if entered == l.outs.totals.kernel.first.Entered {
			l.quietSleeps = min(3, l.quietSleeps+1)
			return nil
		}
		l.rechecks = recheckTurns
	}
	l.quietSleeps = 0
	return l.readCounters(false)
}
