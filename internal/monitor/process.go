package monitor

import (
	"errors"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/internal/detect"
	"github.com/tcpshift/tcpshift/internal/privilege"
	"github.com/tcpshift/tcpshift/internal/process"
	"github.com/tcpshift/tcpshift/internal/safeopen"
)

// isGone reports whether a process that lived at a time has ended since. It reads one file
// of /proc, which the kernel makes up at once, and only for the few processes that an alert
// is about to name. Where it cannot know, the process is not gone: in another pid namespace
// than the initial one /proc has other pids.
func isGone(p detect.Process) bool {
	if p.PID == 0 || !inInitialPidns() {
		return false
	}
	if errors.Is(unix.Kill(int(p.PID), 0), unix.ESRCH) {
		return true
	}
	stat, err := safeopen.ReadFile("/proc/" + strconv.FormatUint(uint64(p.PID), 10) + "/stat")
	if err != nil {
		return errors.Is(err, unix.ESRCH) // it has ended since; ENOENT may be the mount option hidepid
	}
	return statShowsEnd(stat, p.At)
}

// statShowsEnd reports whether a text of /proc/PID/stat is of a process that has ended and
// waits for its parent, or of another process: one that has started after the time at, which
// is CLOCK_BOOTTIME of the host.
func statShowsEnd(stat []byte, at time.Duration) bool {
	s, ok := process.ParseStat(stat)
	// A main thread that has ended before the others is a zombie as well.
	return ok && (s.State == 'X' || s.State == 'Z' && s.Threads == 1 || s.Started > at)
}

// inInitialPidns reports whether this process has the pids that the kernel programs emit.
var inInitialPidns = sync.OnceValue(func() bool { return privilege.CheckHostPIDs() == nil })
