package trace

import (
	"time"

	"github.com/tcpshift/tcpshift/internal/detect"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// Recording writes what the loop adds to the alerts that Monitor has just returned; [*replay.Recorder] is one.
type Recording interface {
	// Wall takes by how much the wall clock is ahead of CLOCK_BOOTTIME.
	Wall(offset time.Duration)
	// Named takes what is known of a cgroup by its id; nil: nothing.
	Named(id uint64, c *tcp.Cgroup)
}

// recordAlerts notes by which clock the alerts get their times.
func (l *loop) recordAlerts(alerts []detect.Alert) {
	if l.Recording != nil && len(alerts) > 0 {
		l.Recording.Wall(l.clock.now.offset)
	}
}
