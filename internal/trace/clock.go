package trace

import (
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/internal/monotonic"
)

// clock converts the kernel's CLOCK_MONOTONIC to wall-clock time. NTP and operators
// move the wall clock, so every sync measures the offset again.
type clock struct {
	offset time.Duration // wall-clock time − monotonic time
	width  time.Duration // the uncertainty of offset: how long its reading took
	at     time.Duration // monotonic time of that reading
}

// reading is the wall-clock time between two monotonic times.
type reading struct{ before, wall, after time.Duration }

func (c *clock) sync() {
	const tries = 3
	for range tries {
		c.apply(reading{monotonic.Now(), realtime(), monotonic.Now()})
	}
}

// driftDivisor bounds the drift: while a time d passes, the wall clock moves against the
// monotonic one by less than d / driftDivisor. The kernel's own bound is 500 ppm (MAXFREQ
// in include/linux/timex.h).
const driftDivisor = 1000

// apply takes the offset from a reading. It ignores a reading that agrees with the known
// offset and is less certain than that offset, even with the drift since then: the thread
// was interrupted during the reading.
func (c *clock) apply(r reading) {
	width := r.after - r.before
	consistent := r.wall-r.after <= c.offset && c.offset <= r.wall-r.before
	if consistent && width > c.width+(r.before-c.at)/driftDivisor {
		return
	}
	c.offset, c.width, c.at = r.wall-r.before-width/2, width, r.before
}

func realtime() time.Duration {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_REALTIME, &ts) // never fails for this clock
	return time.Duration(ts.Nano())
}

// wall converts a monotonic time of the host.
func (c *clock) wall(at time.Duration) time.Time {
	return time.Unix(0, int64(at+c.offset))
}
