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
}

// sync reads the wall clock between two readings of the other; of a few tries the
// tightest counts, as it was the least interrupted.
func (c *clock) sync() {
	const tries = 3
	tightest := time.Duration(-1)
	for range tries {
		before, wall, after := monotonic.Now(), realtime(), monotonic.Now()
		if width := after - before; tightest < 0 || width < tightest {
			tightest = width
			c.offset = wall - before - width/2
		}
	}
}

func realtime() time.Duration {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_REALTIME, &ts) // it always exists
	return time.Duration(ts.Nano())
}

func (c *clock) wall(at time.Duration) time.Time {
	return time.Unix(0, int64(at+c.offset))
}
