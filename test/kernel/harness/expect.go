// Package kernel_test loads the real programs into the running kernel, lets the
// lab make connections beside them, and compares all that the tracer says with
// all that happened. It needs root and nothing else: it also runs as a static
// binary in guests of other kernels.
package harness

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/test/kernelmatrix/expect"
	"github.com/tcpshift/tcpshift/test/tcplab"
)

// switchedOff are features that this run of the tests is to do without, although
// the kernel has them: as if it were one of those that do not.
func switchedOff() []string {
	return strings.FieldsFunc(os.Getenv("TCPSHIFT_WITHOUT"), func(r rune) bool { return r == ',' })
}

// ThisKernel is the table's row for the running kernel, less what is switched off;
// other kernels have none.
func ThisKernel(t *testing.T) (row expect.Row, known bool) {
	t.Helper()
	release := kernelRelease(t)
	row, known = expect.ForRelease(release)
	if !known {
		t.Logf("the table says nothing about %s", release)
	}
	row.Features = slices.DeleteFunc(slices.Clone(row.Features), func(f string) bool {
		return slices.Contains(switchedOff(), f)
	})
	return row, known
}

// Lacks leaves a test out for want of something, but not where the table says that
// this kernel has it. The runner reads from the attribute what it was.
func Lacks(t *testing.T, what string, reason any) {
	t.Helper()
	t.Attr("lacks", what)
	if row, known := ThisKernel(t); known && !row.Lacks(what) {
		t.Fatalf("no %s, which the table says that this kernel has: %v", what, reason)
	}
	t.Skipf("no %s: %v", what, reason)
}

func kernelRelease(t *testing.T) string {
	t.Helper()
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		t.Fatal(err)
	}
	return unix.ByteSliceToString(u.Release[:])
}

// IsBefore tells whether the running kernel is older than a version.
func IsBefore(t *testing.T, major, minor int) bool {
	t.Helper()
	var m [2]int
	if _, err := fmt.Sscanf(kernelRelease(t), "%d.%d", &m[0], &m[1]); err != nil {
		t.Fatalf("read the kernel's version: %v", err)
	}
	return slices.Compare(m[:], []int{major, minor}) < 0
}

func CheckInstructions(t *testing.T, tr *Tracer) (walked map[string]uint32) {
	t.Helper()
	walked, err := tr.Probe.Instructions()
	if err != nil {
		t.Fatal(err)
	}
	for _, program := range slices.Sorted(maps.Keys(walked)) {
		t.Attr("instructions", fmt.Sprintf("%s=%d", program, walked[program]))
		if walked[program] > expect.MaxInstructions {
			t.Errorf("%s: %d instructions, at most %d are allowed", program, walked[program], expect.MaxInstructions)
		}
	}
	return walked
}

// RequireFeature leaves out a test of what this kernel does not give; which kernel
// must give what, another test demands.
func RequireFeature(t *testing.T, name string) {
	t.Helper()
	tcplab.RequireRoot(t)
	for _, f := range kernel.Features() {
		if f.Name == name && f.Err != nil {
			Lacks(t, name, f.Err)
		}
	}
}
