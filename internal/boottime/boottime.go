// Package boottime reads the clock of the timestamps that BPF programs make, and the wall clock for comparison. The
// former never steps, and it advances while the host is suspended. The package must not know what is timed.
package boottime

import (
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/internal/safeopen"
)

// Now is the host's CLOCK_BOOTTIME, as bpf_ktime_get_boot_ns() returns it, whatever time
// namespace this process is in. It is safe for concurrent use.
func Now() time.Duration {
	return read(unix.CLOCK_BOOTTIME) - NamespaceOffset()
}

// Realtime returns the Unix time of the wall clock. It is safe for concurrent use.
func Realtime() time.Duration { return read(unix.CLOCK_REALTIME) }

// read reads a clock by a call that the Go runtime does not know of: one that it knows of wakes the thread that watches
// system calls (sysmon in runtime/proc.go), which then looks every 20 µs. The call never fails for these clocks.
func read(clock uintptr) time.Duration {
	var ts unix.Timespec
	_, _, _ = unix.RawSyscall(unix.SYS_CLOCK_GETTIME, clock, uintptr(unsafe.Pointer(&ts)), 0)
	return time.Duration(ts.Nano())
}

// NamespaceOffset is what this process's time namespace adds to the host's clock
// (time_namespaces(7)). It is constant: a process with several threads, as each Go
// program has, cannot change its own time namespace (timens_install in
// kernel/time/namespace.c). timens_offsets belongs to the namespace of future children, which after
// an unshare(2) differs from that of the process; its offset is then unknown, and
// taken as 0.
var NamespaceOffset = sync.OnceValue(func() time.Duration {
	own, err1 := os.Readlink("/proc/self/ns/time")
	ofChildren, err2 := os.Readlink("/proc/self/ns/time_for_children")
	if err1 != nil || err2 != nil || own != ofChildren {
		return 0
	}
	text, err := safeopen.ReadFile("/proc/self/timens_offsets")
	if err != nil {
		return 0 // it cannot be read
	}
	for line := range strings.Lines(string(text)) {
		if d, ok := parse(line); ok {
			return d
		}
	}
	return 0
})

// parse reads a line such as "boottime  -86400  0": seconds, then nanoseconds.
func parse(line string) (time.Duration, bool) {
	fields := strings.Fields(line)
	if len(fields) != 3 || fields[0] != "boottime" {
		return 0, false
	}
	seconds, err1 := strconv.ParseInt(fields[1], 10, 64)
	nanoseconds, err2 := strconv.ParseInt(fields[2], 10, 64)
	return time.Duration(seconds)*time.Second + time.Duration(nanoseconds), err1 == nil && err2 == nil
}
