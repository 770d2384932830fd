package tcplab

import (
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// HidesEvents reports whether this kernel hides events: in some runs, a few events in a
// million, once 3 in 1,000, reach no program and move no miss counter, although the kernel's
// own counters include them. This was seen on one hardened build of 6.18, and on no distribution's
// kernel.
func HidesEvents() bool {
	b, err := os.ReadFile("/proc/sys/kernel/osrelease")
	return err == nil && strings.Contains(string(b), "-fc-")
}

// Attempts is how often a test may repeat a count until it agrees with the kernel's:
// once, except on kernels that hide events.
func Attempts() int {
	if HidesEvents() {
		return 4
	}
	return 1
}

// MountTracefs mounts tracefs at /sys/kernel/tracing, as systemd does at boot. Other
// tracers need it; tcpshift does not. It stays mounted, because other programs may use
// it then.
func MountTracefs(t testing.TB) {
	t.Helper()
	const at = "/sys/kernel/tracing"
	if _, err := os.Stat(at + "/events"); err == nil {
		return
	}
	if err := unix.Mount("tracefs", at, "tracefs", 0, ""); err != nil {
		t.Fatalf("mount tracefs at %s: %v", at, err)
	}
}
