package trace

import (
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/internal/boottime"
)

// The wall-clock time of a monotonic time is right within 1 ms.
func TestClock_WithinMillisecond(t *testing.T) {
	var c clock
	for range 100 {
		c.sync()
		// However long this goroutine is preempted, the time lies between before and after.
		before := time.Now()
		got := c.wall(boottime.Now())
		after := time.Now()
		if got.Before(before.Add(-time.Millisecond)) || got.After(after.Add(time.Millisecond)) {
			t.Fatalf("got %v, want a time from %v to %v", got, before, after)
		}
	}
}

// As long as nobody sets the clock, the offset is one number, on the real clocks too.
func TestClock_OneOffset(t *testing.T) {
	var c clock
	c.sync()
	for range 10_000 {
		c.sync()
	}
	// The first reading may have been interrupted.
	if steps := len(c.past); steps > 1 {
		t.Errorf("%d steps, want one at most", steps)
	}
}

// A sync follows a wall clock that was set.
func TestClock_FollowsStep(t *testing.T) {
	var c clock
	c.sync()
	right := c.now.offset
	c.now.offset += time.Hour
	c.sync()
	if got := (c.now.offset - right).Abs(); got > time.Millisecond {
		t.Errorf("after the sync the offset is %v off, want 1 ms at most", got)
	}
}

// A conversion keeps nanoseconds, and so the order of events.
func TestClock_KeepsNanoseconds(t *testing.T) {
	var c clock
	c.apply(readingAt(0, epoch))
	for _, nanoseconds := range []time.Duration{0, 1, 999_999_999, 1_000_000_001} {
		if got, want := c.wall(nanoseconds).UnixNano(), int64(epoch+nanoseconds); got != want {
			t.Errorf("%d ns of monotonic time is %d, want %d", nanoseconds, got, want)
		}
	}
}

const epoch = 1_800_000_000 * time.Second

// readingAt is an exact reading while the clocks have this offset.
func readingAt(at, offset time.Duration) reading { return reading{at, at + offset, at} }

// A time stays what the stream has shown, however the wall clock is set after it, forward
// and backward: by the offset of its own time, not of the latest.
func TestClock_StepsForwardAndBackward(t *testing.T) {
	var c clock
	offsets := []time.Duration{epoch, epoch + time.Hour, epoch - 24*time.Hour, epoch, epoch + 3*time.Microsecond}
	shown := make(map[time.Duration]time.Time)
	for i, offset := range offsets {
		c.apply(readingAt(time.Duration(i)*time.Minute, offset))
		for second := range 60 {
			at := time.Duration(i)*time.Minute + time.Duration(second)*time.Second
			c.apply(readingAt(at, offset))
			shown[at] = c.wall(at)
			if want := time.Unix(0, int64(at+offset)); !shown[at].Equal(want) {
				t.Fatalf("at %v the time is %v, want %v", at, shown[at], want)
			}
		}
	}
	for at, want := range shown {
		if got := c.wall(at); !got.Equal(want) {
			t.Errorf("the time of %v was %v and is now %v", at, want, got)
		}
	}
	if got, want := c.wall(-time.Second), time.Unix(0, int64(epoch-time.Second)); !got.Equal(want) {
		t.Errorf("before the first sync the time is %v, want %v", got, want)
	}
	if got := len(c.past) + 1; got != len(offsets) {
		t.Errorf("%d steps, want %d", got, len(offsets))
	}
}

// A suspended host makes no step: the boot clock and the wall clock both advance. So the
// first event after it has the right time before the loop has run again, and a connection
// that was open meanwhile has lasted from its opened to its end. By CLOCK_MONOTONIC, which
// stops, the event would be an hour early.
func TestClock_Suspend(t *testing.T) {
	const suspended = time.Hour
	var c clock
	opened, end := time.Minute, 2*time.Minute+suspended
	c.apply(readingAt(opened, epoch))
	if got, want := c.wall(end), time.Unix(0, int64(epoch+end)); !got.Equal(want) {
		t.Errorf("before the next sync the end is at %v, want %v", got, want)
	}
	c.apply(readingAt(end, epoch))
	if lasted := c.wall(end).Sub(c.wall(opened)); lasted != end-opened || len(c.past) != 0 {
		t.Errorf("it lasted %v and there are %d steps, want %v and none", lasted, len(c.past), end-opened)
	}

	var stopped clock // if the events had CLOCK_MONOTONIC
	stopped.apply(readingAt(opened, epoch))
	if got := time.Unix(0, int64(epoch+end)).Sub(stopped.wall(end - suspended)); got != suspended {
		t.Errorf("by the clock that stops the end is %v early, want %v", got, suspended)
	}
}

// The memory is bounded. Times before the oldest step that is kept take its offset.
func TestClock_BoundedSteps(t *testing.T) {
	var c clock
	offset := func(i int) time.Duration { return epoch + time.Duration(i)*time.Millisecond }
	const steps = 3 * maxSteps
	for i := range steps {
		c.apply(readingAt(time.Duration(i)*time.Second, offset(i)))
	}
	if len(c.past) >= maxSteps || cap(c.past) > 2*maxSteps {
		t.Errorf("%d steps in room for %d are kept, want %d at most", len(c.past), cap(c.past), maxSteps)
	}
	for i := range steps {
		at := time.Duration(i) * time.Second
		want := offset(max(i, steps-maxSteps))
		if got := time.Duration(c.wall(at).UnixNano()) - at; got != want {
			t.Fatalf("second %d has the offset %v, want %v", i, got-epoch, want-epoch)
		}
	}
}

// A reading that was interrupted moves the offset only if it contradicts it.
func TestClock_InterruptedReading(t *testing.T) {
	at := func(before, early, late time.Duration) reading {
		return reading{before, before + early + epoch, before + early + late}
	}
	for _, tt := range []struct {
		name string
		next reading // after one that is 2 µs wide
		want time.Duration
	}{
		{"interrupted before the wall clock was read", at(time.Millisecond, 400*time.Microsecond, time.Microsecond), 0},
		{"interrupted after the wall clock was read", at(time.Millisecond, time.Microsecond, 400*time.Microsecond), 0},
		{"as narrow as the first, and a little off", at(time.Millisecond, 2*time.Microsecond, 0), 0},
		{"off by more than it was interrupted for", at(time.Millisecond, -time.Second, time.Second+10*time.Microsecond), -time.Second - 5*time.Microsecond},
		{"interrupted, and long after the first", at(time.Hour, 400*time.Microsecond, 0), 0},
	} {
		var c clock
		c.apply(at(0, time.Microsecond, time.Microsecond))
		c.apply(tt.next)
		if got := c.now.offset - epoch; got != tt.want {
			t.Errorf("%s: the offset moves by %v, want %v", tt.name, got, tt.want)
		}
	}
}
