package tcplab

import (
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// HidesEvents is true on kernels on which in some runs a few events in a million
// reach no program at all and move no miss counter, while the kernel's own
// counters show that they happened. Seen on one hardened build of 6.18, never on
// a distribution's.
func HidesEvents() bool {
	b, err := os.ReadFile("/proc/sys/kernel/osrelease")
	return err == nil && strings.Contains(string(b), "-fc-")
}

// Attempts is how often a count may be taken until it agrees with the kernel's: once,
// but on kernels that hide events, which they do in some runs and not in others.
func Attempts() int {
	if HidesEvents() {
		return 4
	}
	return 1
}

// MountTracefs makes /sys/kernel/tracing usable, as systemd does at boot; other
// tracers need it, ours does not. It stays: somebody else may use it by now.
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
