package harness

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/internal/probe"
	"github.com/tcpshift/tcpshift/test/kernelmatrix/expect"
	"github.com/tcpshift/tcpshift/test/tcplab"
)

// switchedOff returns the features that TCPSHIFT_WITHOUT switches off for this run, as
// on a kernel without them.
func switchedOff() []string {
	return strings.FieldsFunc(os.Getenv("TCPSHIFT_WITHOUT"), func(r rune) bool { return r == ',' })
}

// forcedPreemption returns whether programs may be preempted according to
// TCPSHIFT_PREEMPTED, true or false; nil without the variable. False is wrong on kernels
// that preempt them, and gives duplicates there.
func forcedPreemption() *bool {
	forced, err := strconv.ParseBool(os.Getenv("TCPSHIFT_PREEMPTED"))
	if err != nil {
		return nil
	}
	return &forced
}

// HasThirdProgram reports whether the tracer must have a third program for each
// tracepoint: on kernels that preempt programs, if nothing forces the answer.
func HasThirdProgram(row expect.Row) bool {
	if forced := forcedPreemption(); forced != nil {
		return *forced
	}
	return row.PreemptsPrograms
}

// ThisKernel returns the row of the running kernel in the table, without the features
// that are switched off. known is false for a kernel without a row.
func ThisKernel(t *testing.T) (row expect.Row, known bool) {
	t.Helper()
	release := kernelRelease(t)
	row, known = expect.ForRelease(release)
	if !known {
		t.Logf("the table has no row for %s", release)
	}
	row.Features = slices.DeleteFunc(slices.Clone(row.Features), func(f string) bool {
		return slices.Contains(switchedOff(), f)
	})
	return row, known
}

// SkipUnlessRequired skips a test that needs what the kernel lacks, and logs the reason.
// It fails the test if the table requires this kernel to have it. test/kernelmatrix reads
// the attribute "lacks" from the output.
func SkipUnlessRequired(t *testing.T, what string, reason any) {
	t.Helper()
	t.Attr("lacks", what)
	if row, known := ThisKernel(t); known && !row.Lacks(what) {
		t.Fatalf("no %s, but the table requires it of this kernel: %v", what, reason)
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

// IsBefore reports whether the running kernel is older than a version.
func IsBefore(t *testing.T, major, minor int) bool {
	t.Helper()
	var m [2]int
	if _, err := fmt.Sscanf(kernelRelease(t), "%d.%d", &m[0], &m[1]); err != nil {
		t.Fatalf("read the kernel's version: %v", err)
	}
	return slices.Compare(m[:], []int{major, minor}) < 0
}

// CheckInstructions checks how many instructions the verifier processed for each
// program.
func CheckInstructions(t *testing.T, tr *Tracer) (walked map[string]uint32) {
	t.Helper()
	walked, err := tr.Probe.VerifiedInstructions()
	if err != nil {
		t.Fatal(err)
	}
	for _, program := range slices.Sorted(maps.Keys(walked)) {
		t.Attr("instructions", fmt.Sprintf("%s=%d", program, walked[program]))
		if walked[program] > expect.MaxInstructions {
			t.Errorf("%s: the verifier processed %d instructions, want at most %d", program, walked[program], expect.MaxInstructions)
		}
	}
	return walked
}

// RequireFeature skips the test on a kernel without the feature, or where
// TCPSHIFT_WITHOUT switches it off. TestKernel_Features checks which kernel must have
// which feature.
func RequireFeature(t *testing.T, name string) {
	t.Helper()
	tcplab.RequireRoot(t)
	if slices.Contains(switchedOff(), name) {
		t.Skipf("%s is switched off", name)
	}
	for _, f := range kernel.Features() {
		if f.Name == name && f.Err != nil {
			SkipUnlessRequired(t, name, f.Err)
		}
	}
}

// TracesResets reports whether the tracers see the resets that are received and sent.
func TracesResets() bool {
	for _, f := range kernel.Features() {
		if f.Name == probe.ResetReceived || f.Name == probe.ResetSent {
			if f.Err != nil || slices.Contains(switchedOff(), f.Name) {
				return false
			}
		}
	}
	return true
}

// RequireTracedResets skips the test where the tracers do not see resets.
func RequireTracedResets(t *testing.T) {
	t.Helper()
	RequireFeature(t, probe.ResetReceived)
	RequireFeature(t, probe.ResetSent)
	if !TracesResets() {
		t.Skip("the tracepoints of resets are switched off")
	}
}
