package trace

import (
	"time"

	"github.com/tcpshift/tcpshift/internal/detect"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// Recording writes what the loop adds to the alerts that Monitor has just returned. [*replay.Recorder] implements it.
type Recording interface {
	// Wall is called at the start and with alerts. It writes by how much the wall clock is ahead of CLOCK_BOOTTIME.
	Wall(offset time.Duration)
	// Named writes what is known of the cgroup with an id; nil: nothing.
	Named(id uint64, c *tcp.Cgroup)
}

// recordAlerts writes to the recording by which offset the alerts get their times on the wall clock.
func (l *loop) recordAlerts(alerts []detect.Alert) {
	if l.Recording != nil && len(alerts) > 0 {
		l.Recording.Wall(l.clock.now.offset)
	}
}
