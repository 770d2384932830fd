package kernel_test

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/internal/probe"
	"github.com/tcpshift/tcpshift/test/kernelmatrix/expect"
	"github.com/tcpshift/tcpshift/test/tcplab"
)

// switchedOff are features that this run of the tests is to do without, although
// the kernel has them: as if it were one of those that do not.
func switchedOff() []string {
	return strings.FieldsFunc(os.Getenv("TCPSHIFT_WITHOUT"), func(r rune) bool { return r == ',' })
}

// thisKernel is the table's row for the running kernel, less what is switched off;
// other kernels have none.
func thisKernel(t *testing.T) (row expect.Row, known bool) {
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

// lacks leaves a test out for want of something, but not where the table says that
// this kernel has it. The runner reads from the attribute what it was.
func lacks(t *testing.T, what string, reason any) {
	t.Helper()
	t.Attr("lacks", what)
	if row, known := thisKernel(t); known && !row.Lacks(what) {
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

// isBefore tells whether the running kernel is older than a version.
func isBefore(t *testing.T, major, minor int) bool {
	t.Helper()
	var m [2]int
	if _, err := fmt.Sscanf(kernelRelease(t), "%d.%d", &m[0], &m[1]); err != nil {
		t.Fatalf("read the kernel's version: %v", err)
	}
	return slices.Compare(m[:], []int{major, minor}) < 0
}

// A feature that falls back silently and one that nobody expected are both wrong:
// the table is what users are promised.
func TestKernel_Features(t *testing.T) {
	tr := sharedTracers(t)[0]
	var given []string
	for _, f := range tr.probe.Features() {
		if f.Err == nil {
			given = append(given, f.Name)
		} else {
			t.Logf("no %s: %v", f.Name, f.Err)
		}
	}
	layout, err := probe.KernelLayout()
	if err != nil {
		t.Fatal(err)
	}
	t.Attr("features", strings.Join(given, ","))
	t.Attr("layout", fmt.Sprintf("%+v", layout))
	row, known := thisKernel(t)
	if !known {
		return
	}
	if !slices.Equal(given, row.Features) {
		t.Errorf("features %v, the table says %v", given, row.Features)
	}
	if want := isBefore(t, 6, 2); row.Lacks(expect.DeadOwners) != want {
		t.Errorf("owners of dead processes' sockets: the table says that they are told: %v", want)
	}
	if want := (probe.Layout{AcceptArguments: row.AcceptArguments, TableByNetns: row.TableByNetns}); layout != want {
		t.Errorf("layout %+v, the table says %+v", layout, want)
	}
}

// Before 5.11 what BPF takes counts as locked memory, of which a process may have little.
func TestKernel_FeaturesWithoutLockedMemory(t *testing.T) {
	tcplab.RequireRoot(t)
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit); err != nil {
		t.Fatal(err)
	}
	child := exec.Command("/proc/self/exe", "-test.run=^TestKernel_Features$", "-test.v")
	none := unix.Rlimit{Cur: 0, Max: limit.Max}
	if err := unix.Setrlimit(unix.RLIMIT_MEMLOCK, &none); err != nil {
		t.Fatal(err)
	}
	out, err := child.CombinedOutput() // it inherits the limit
	if e := unix.Setrlimit(unix.RLIMIT_MEMLOCK, &limit); e != nil {
		t.Fatal(e)
	}
	if err != nil || !strings.Contains(string(out), "--- PASS: TestKernel_Features") {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestKernel_VerifierInstructions(t *testing.T) {
	walked := checkInstructions(t, sharedTracers(t)[0])
	if row, known := thisKernel(t); known && row.Instructions != (len(walked) > 0) {
		t.Errorf("the kernel tells the instructions of %d programs, the table says that it tells: %v", len(walked), row.Instructions)
	}
}

func checkInstructions(t *testing.T, tr *tracer) (walked map[string]uint32) {
	t.Helper()
	walked, err := tr.probe.Instructions()
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

// Up to 6.12 a child's first transition comes before it has a peer. With memory on
// the socket it is held until it has one, without it goes out as it is.
func TestKernel_ChildFirstTransition(t *testing.T) {
	n := tcplab.NewNetns(t)
	tr := startTracer(t, in(n))
	out := tcplab.ClientCloses(n, tcplab.V4)
	lines := tr.stop()
	i := slices.IndexFunc(lines, func(l line) bool { return l.Old == "LISTEN" && l.New == "SYN_RECV" })
	if i < 0 {
		t.Fatal("no LISTEN to SYN_RECV")
	}
	counters, err := tr.probe.Counters()
	if err != nil {
		t.Fatal(err)
	}
	held := counters.Primary.Deferred+counters.Backup.Deferred > 0
	empty := lines[i].PeerPort == 0
	t.Logf("held %v, empty %v: %s", held, empty, lines[i].raw)
	row, known := thisKernel(t)
	if !known {
		return
	}
	if storage := row.Gives(expect.SocketStorage); held != (row.EmptyChild && storage) || empty != (row.EmptyChild && !storage) {
		t.Errorf("held %v, empty %v; the table says %+v", held, empty, row)
	}
	if !empty && lines[i].PeerPort != out.Client.Local.Port() {
		t.Errorf("peer port is not %d: %s", out.Client.Local.Port(), lines[i].raw)
	}
}
