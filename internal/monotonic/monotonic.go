// Package monotonic reads the clock that BPF programs stamp events with. It must not
// know what is timed.
package monotonic

import (
	"bufio"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Now is CLOCK_MONOTONIC as bpf_ktime_get_ns() gives it: of the host, whatever time
// namespace this process is in.
func Now() time.Duration {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) // it always exists
	return time.Duration(ts.Nano()) - offset()
}

// offset is what this process's time namespace adds to the host's clock
// (time_namespaces(7)); no process can change its own. The file is of the namespace
// that its children will be in, which is another where somebody unshared it and did
// not fork.
var offset = sync.OnceValue(func() time.Duration {
	own, err1 := os.Readlink("/proc/self/ns/time")
	childrens, err2 := os.Readlink("/proc/self/ns/time_for_children")
	if err1 != nil || err2 != nil || own != childrens {
		return 0
	}
	f, err := os.Open("/proc/self/timens_offsets")
	if err != nil {
		return 0 // a kernel without time namespaces
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if d, ok := parse(lines.Text()); ok {
			return d
		}
	}
	return 0
})

// parse reads a line such as "monotonic  -86400  0": seconds, then nanoseconds.
func parse(line string) (time.Duration, bool) {
	fields := strings.Fields(line)
	if len(fields) != 3 || fields[0] != "monotonic" {
		return 0, false
	}
	seconds, err1 := strconv.ParseInt(fields[1], 10, 64)
	nanoseconds, err2 := strconv.ParseInt(fields[2], 10, 64)
	return time.Duration(seconds)*time.Second + time.Duration(nanoseconds), err1 == nil && err2 == nil
}
