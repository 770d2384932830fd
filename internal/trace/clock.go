package trace

import (
	"time"

	"golang.org/x/sys/unix"
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
		before, wall, after := read(unix.CLOCK_MONOTONIC), read(unix.CLOCK_REALTIME), read(unix.CLOCK_MONOTONIC)
		if width := after - before; tightest < 0 || width < tightest {
			tightest = width
			c.offset = wall - before - width/2
		}
	}
}

func read(id int32) time.Duration {
	var ts unix.Timespec
	_ = unix.ClockGettime(id, &ts) // both clocks always exist
	return time.Duration(ts.Nano())
}

func (c *clock) wall(monotonic time.Duration) time.Time {
	return time.Unix(0, int64(monotonic+c.offset))
}
