package monitor

import (
	"bytes"
	"errors"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/internal/boottime"
	"github.com/tcpshift/tcpshift/internal/detect"
	"github.com/tcpshift/tcpshift/internal/privilege"
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
	return statShowsEnd(stat, p.At+boottime.NamespaceOffset())
}

// statShowsEnd reports whether a text of /proc/PID/stat is of a process that has ended and
// waits for its parent, or of another process: one that has started after the time at, which
// is CLOCK_BOOTTIME of this process's time namespace. See proc_pid_stat(5).
func statShowsEnd(stat []byte, at time.Duration) bool {
	const (
		first                     = 3 // the field behind the name; the name may have spaces in it
		state, threads, startedAt = 3 - first, 20 - first, 22 - first
		tick                      = 10 * time.Millisecond // USER_HZ is 100 on all that Go runs on
	)
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) <= startedAt {
		return false
	}
	// A main thread that has ended before the others is a zombie as well.
	if s := fields[state][0]; s == 'X' || s == 'Z' && string(fields[threads]) == "1" {
		return true
	}
	ticks, err := strconv.ParseInt(string(fields[startedAt]), 10, 64)
	return err == nil && time.Duration(ticks)*tick > at
}

// inInitialPidns reports whether this process has the pids that the kernel programs emit.
var inInitialPidns = sync.OnceValue(func() bool { return privilege.CheckHostPIDs() == nil })
