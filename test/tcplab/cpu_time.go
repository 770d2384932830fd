package tcplab

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// CPUTime is the CPU time of a process so far, in user space and in the kernel: clock_getcpuclockid(3).
func CPUTime(t testing.TB, pid int) time.Duration {
	t.Helper()
	const cpuclockSched = 2 // include/linux/posix-timers_types.h
	var spent unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|cpuclockSched), &spent); err != nil {
		t.Fatal(err)
	}
	return time.Duration(spent.Nano())
}
