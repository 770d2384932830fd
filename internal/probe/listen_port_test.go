package probe

import (
	"testing"
	"time"
)

// The reader waits 100 ms at once, and 5 % of the time in the long run.
func TestListenPort_WaitsAreBounded(t *testing.T) {
	const wait = time.Millisecond
	var b waitBudget
	waits := func(now time.Time) (n int) {
		for b.take(now, wait) {
			n++
		}
		return n
	}
	now := time.Now()
	for _, step := range []struct {
		later time.Duration
		want  int
	}{{0, 100}, {0, 0}, {10 * time.Millisecond, 0}, {10 * time.Millisecond, 1}, {time.Second, 50}, {time.Hour, 100}} {
		now = now.Add(step.later)
		if got := waits(now); got != step.want {
			t.Errorf("%v later: %d waits of %v, want %d", step.later, got, wait, step.want)
		}
	}
}
