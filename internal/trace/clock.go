package trace

import (
	"math"
	"slices"
	"time"

	"github.com/tcpshift/tcpshift/internal/boottime"
)

// clock converts the kernel's monotonic time, CLOCK_BOOTTIME, to wall-clock time. The kernel
// derives both from one counter, NTP slews both alike, and both advance while the host is
// suspended (kernel/time/timekeeping.c). So their offset changes only where the wall clock
// is set: by an operator, by NTP after a large error, and for a leap second. Every sync
// measures it.
//
// A step applies to the events after it and to no others. So the time of an event stays
// the one that the stream has shown, however often the clock is set after it.
type clock struct {
	now  clockStep
	past []clockStep // older ones, by time
}

// clockStep is the offset of the wall clock from a monotonic time on.
type clockStep struct {
	from   time.Duration
	offset time.Duration // wall-clock time − monotonic time
}

const (
	// maxSteps bounds the memory for steps, to 64 KiB. Times before the oldest one take its
	// offset.
	maxSteps = 4096
	// stepThreshold is how far the wall clock must be from the known offset to have been set.
	// It is a multiple of the uncertainty of a reading that was not interrupted.
	stepThreshold = 2 * time.Microsecond
)

// reading is the wall-clock time between two monotonic times.
type reading struct{ before, wall, after time.Duration }

func (r *reading) width() time.Duration { return r.after - r.before }

// sync measures the offset. The narrowest of three readings counts, because the thread may
// be interrupted during a reading.
func (c *clock) sync() {
	best := read()
	for range 2 {
		if r := read(); r.width() < best.width() {
			best = r
		}
	}
	c.apply(best)
}

func read() reading {
	return reading{boottime.Now(), boottime.Realtime(), boottime.Now()}
}

// apply takes the offset from a reading that contradicts the known one. Events that have
// been converted are older than the reading, so that their times stay.
func (c *clock) apply(r reading) {
	lowest, highest := r.wall-r.after, r.wall-r.before
	if c.known() && lowest-stepThreshold <= c.now.offset && c.now.offset <= highest+stepThreshold {
		return
	}
	next := clockStep{from: r.before, offset: r.wall - r.before - r.width()/2}
	if !c.known() {
		next.from = math.MinInt64 // events that are older than the first sync
	} else {
		c.past = append(c.past, c.now)
	}
	if len(c.past) == maxSteps {
		c.past = slices.Delete(c.past, 0, 1)
	}
	c.now = next
}

// known reports whether the offset has been measured.
func (c *clock) known() bool { return c.now != clockStep{} }

// wall converts a monotonic time of the host, by the offset that applied then.
func (c *clock) wall(at time.Duration) time.Time {
	offset := c.now.offset
	if at < c.now.from {
		offset = c.offsetAt(at)
	}
	return time.Unix(0, int64(at+offset))
}

// offsetAt returns the offset that applied at a time before the last step.
func (c *clock) offsetAt(at time.Duration) time.Duration {
	after, _ := slices.BinarySearchFunc(c.past, at, func(s clockStep, at time.Duration) int {
		if s.from <= at {
			return -1
		}
		return 1
	})
	return c.past[max(0, after-1)].offset
}
