package trace

import (
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/internal/monotonic"
)

// The wall-clock time of a monotonic time is right within 1 ms.
func TestClock_WithinMillisecond(t *testing.T) {
	var c clock
	for range 100 {
		c.sync()
		// However long this goroutine is preempted, the time lies between before and after.
		before := time.Now()
		got := c.wall(monotonic.Now())
		after := time.Now()
		if got.Before(before.Add(-time.Millisecond)) || got.After(after.Add(time.Millisecond)) {
			t.Fatalf("got %v, want a time from %v to %v", got, before, after)
		}
	}
}

// A sync follows a wall clock that was set.
func TestClock_FollowsStep(t *testing.T) {
	var c clock
	c.sync()
	right := c.offset
	c.offset += time.Hour
	c.sync()
	if got := (c.offset - right).Abs(); got > time.Millisecond {
		t.Errorf("after the sync the offset is %v off, want 1 ms at most", got)
	}
}

// A conversion keeps nanoseconds, and so the order of events.
func TestClock_KeepsNanoseconds(t *testing.T) {
	c := clock{offset: 1_800_000_000 * time.Second}
	for _, nanoseconds := range []time.Duration{0, 1, 999_999_999, 1_000_000_001} {
		if got, want := c.wall(nanoseconds).UnixNano(), int64(1_800_000_000_000_000_000+nanoseconds); got != want {
			t.Errorf("%d ns of monotonic time is %d, want %d", nanoseconds, got, want)
		}
	}
}

// A reading that was interrupted moves the offset only if it contradicts it, or is too
// long after the last one.
func TestClock_InterruptedReading(t *testing.T) {
	const offset = 1_800_000_000 * time.Second
	at := func(before, early, late time.Duration) reading {
		return reading{before, before + early + offset, before + early + late}
	}
	for _, tt := range []struct {
		name string
		next reading // after one that is 2 µs wide
		want time.Duration
	}{
		{"interrupted before the wall clock was read", at(time.Millisecond, 400*time.Microsecond, time.Microsecond), 0},
		{"interrupted after the wall clock was read", at(time.Millisecond, time.Microsecond, 400*time.Microsecond), 0},
		{"as narrow as the first, and a little off", at(time.Millisecond, 2*time.Microsecond, 0), time.Microsecond},
		{"off by more than it was interrupted for", at(time.Millisecond, -time.Second, time.Second+10*time.Microsecond), -time.Second - 5*time.Microsecond},
		{"interrupted, and long after the first", at(time.Hour, 400*time.Microsecond, 0), 200 * time.Microsecond},
	} {
		var c clock
		c.apply(at(0, time.Microsecond, time.Microsecond))
		c.apply(tt.next)
		if got := c.offset - offset; got != tt.want {
			t.Errorf("%s: the offset moves by %v, want %v", tt.name, got, tt.want)
		}
	}
}
