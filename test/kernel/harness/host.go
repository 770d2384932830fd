package harness

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/tcpshift/tcpshift/test/tcplab"
)

// ReadThreadFile reads a file below /proc/thread-self, in the namespaces of this
// thread.
func ReadThreadFile(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile("/proc/thread-self/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// CompareCount compares a count with the kernel's own, and returns a problem if they
// differ. On kernels that hide a few events from every program, 0.05 % may be missing.
func CompareCount(what string, got, want uint64) []string {
	slack := uint64(0)
	if tcplab.HidesEvents() {
		slack = want / 2000
	}
	if got <= want && got+slack >= want {
		return nil
	}
	return []string{fmt.Sprintf("%d %s, want %d (allowed: %d fewer)", got, what, want, slack)}
}

// SysctlExists reports whether the kernel has the sysctl.
func SysctlExists(name string) bool {
	_, err := os.Stat("/proc/sys/" + strings.ReplaceAll(name, ".", "/"))
	return err == nil
}
