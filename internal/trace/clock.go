package trace

import (
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/internal/monotonic"
)

// clock turns the kernel's CLOCK_MONOTONIC into wall-clock time. NTP and people
// move the wall clock, so the offset is taken anew with every sync.
type clock struct {
	offset time.Duration // wall − monotonic
	width  time.Duration // of the reading that it is from
	at     time.Duration // of that reading, monotonic
}

// reading is the wall clock between two readings of the other.
type reading struct{ before, wall, after time.Duration }

func (c *clock) sync() {
	const tries = 3
	for range tries {
		c.take(reading{monotonic.Now(), realtime(), monotonic.Now()})
	}
}

// slewing bounds how much faster or slower the wall clock is made to go: one in so many.
// The kernel's own bound is 500 ppm (MAXFREQ in include/linux/timex.h).
const slewing = 1000

// take ignores a reading that was interrupted: one that allows for the offset that is
// known, and is not as narrow as what the clocks can have come apart since.
func (c *clock) take(r reading) {
	width := r.after - r.before
	known := r.wall-r.after <= c.offset && c.offset <= r.wall-r.before
	if known && width > c.width+(r.before-c.at)/slewing {
		return
	}
	c.offset, c.width, c.at = r.wall-r.before-width/2, width, r.before
}

func realtime() time.Duration {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_REALTIME, &ts) // it always exists
	return time.Duration(ts.Nano())
}

func (c *clock) wall(at time.Duration) time.Time {
	return time.Unix(0, int64(at+c.offset))
}
