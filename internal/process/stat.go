package process

import (
	"bytes"
	"strconv"
	"time"

	"github.com/tcpshift/tcpshift/internal/boottime"
)

// Stat is what a text of /proc/PID/stat says, see proc_pid_stat(5).
type Stat struct {
	State   byte // such as Z
	Parent  uint32
	Threads int
	Started time.Duration // CLOCK_BOOTTIME of the host, rounded down to a Tick
}

// Tick is the precision of [Stat.Started]: USER_HZ is 100 on all that Go runs on.
const Tick = 10 * time.Millisecond

// ParseStat parses the text of /proc/PID/stat. It reports false if fields are missing or are not numbers.
func ParseStat(text []byte) (s Stat, ok bool) {
	const (
		first                             = 3 // the field behind the name; the name may have spaces in it
		state, parent, threads, startedAt = 3 - first, 4 - first, 20 - first, 22 - first
	)
	fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
	if len(fields) <= startedAt {
		return s, false
	}
	ppid, parentErr := strconv.ParseUint(string(fields[parent]), 10, 32)
	count, threadsErr := strconv.Atoi(string(fields[threads]))
	ticks, startedErr := strconv.ParseInt(string(fields[startedAt]), 10, 64)
	if parentErr != nil || threadsErr != nil || startedErr != nil {
		return s, false
	}
	started := time.Duration(ticks)*Tick - boottime.NamespaceOffset()
	return Stat{fields[state][0], uint32(ppid), count, started}, true
}
