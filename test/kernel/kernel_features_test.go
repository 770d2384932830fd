package kernel_test

import (
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/internal/probe"
	"github.com/tcpshift/tcpshift/test/kernel/harness"
	"github.com/tcpshift/tcpshift/test/kernelmatrix/expect"
	"github.com/tcpshift/tcpshift/test/tcplab"
)

// The kernel must have the features of its row in the table, no fewer and no more: the
// table is what users are promised.
func TestKernel_Features(t *testing.T) {
	tr := harness.SharedTracers(t)[0]
	var given []string
	for _, f := range tr.Probe.Features() {
		if f.Err == nil {
			given = append(given, f.Name)
		} else {
			t.Logf("no %s: %v", f.Name, f.Err)
		}
	}
	layout, err := probe.DetectKernelDifferences()
	if err != nil {
		t.Fatal(err)
	}
	t.Attr("features", strings.Join(given, ","))
	t.Attr("layout", fmt.Sprintf("%+v", layout))
	row, known := harness.ThisKernel(t)
	if !known {
		return
	}
	if !slices.Equal(given, row.Features) {
		t.Errorf("features %v, want %v as in the table", given, row.Features)
	}
	if got, want := row.Lacks(expect.DeadOwners), harness.IsBefore(t, 6, 2); got != want {
		t.Errorf("the table lacks owners whose processes have exited: %v, want %v for this release", got, want)
	}
	if want := (probe.KernelDifferences{AcceptArguments: row.AcceptArguments, TableByNetns: row.TableByNetns}); layout != want {
		t.Errorf("layout %+v, want %+v as in the table", layout, want)
	}
}

// Before 5.11 the memory of BPF maps and programs counts as locked memory
// (RLIMIT_MEMLOCK). The features must be the same for a process with a limit of 0.
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
	out, err := child.CombinedOutput() // inherits the limit
	if e := unix.Setrlimit(unix.RLIMIT_MEMLOCK, &limit); e != nil {
		t.Fatal(e)
	}
	if err != nil || !strings.Contains(string(out), "--- PASS: TestKernel_Features") {
		t.Errorf("%v\n%s", err, out)
	}
}

// The verifier processes at most expect.MaxInstructions instructions for each program.
func TestKernel_VerifierInstructions(t *testing.T) {
	walked := harness.CheckInstructions(t, harness.SharedTracers(t)[0])
	if row, known := harness.ThisKernel(t); known && row.Instructions != (len(walked) > 0) {
		t.Errorf("the kernel reports instructions for %d programs, the table has %v for that", len(walked), row.Instructions)
	}
}

// There is a third program exactly where the kernel preempts programs.
func TestKernel_ChainLength(t *testing.T) {
	walked, err := harness.SharedTracers(t)[0].Probe.VerifiedInstructions()
	if err != nil {
		t.Fatal(err)
	}
	row, known := harness.ThisKernel(t)
	if !known || !row.Instructions {
		return // the names of the programs are not known
	}
	if _, third := walked["set_state_second_backup"]; third != harness.HasThirdProgram(row) {
		t.Errorf("programs %v, want a third one of the chain: %v", walked, !third)
	}
}

// Up to 6.12 the first transition of a child, LISTEN to SYN_RECV, fires before the
// child has a peer. With per-socket state it is deferred until the child has one, else
// emitted as it is.
func TestKernel_ChildFirstTransition(t *testing.T) {
	n := tcplab.NewNetns(t)
	tr := harness.StartTracer(t, harness.InNamespace(n))
	out := tcplab.ClientCloses(n, tcplab.V4)
	lines := tr.Stop()
	i := slices.IndexFunc(lines, func(l harness.Record) bool { return l.Old == "LISTEN" && l.New == "SYN_RECV" })
	if i < 0 {
		t.Fatal("no record of LISTEN to SYN_RECV")
	}
	counters, err := tr.Probe.Counters()
	if err != nil {
		t.Fatal(err)
	}
	deferred := counters.Sum().Deferred > 0
	empty := lines[i].PeerPort == 0
	t.Logf("deferred %v, without a peer %v: %s", deferred, empty, lines[i].Raw)
	row, known := harness.ThisKernel(t)
	if !known {
		return
	}
	if storage := row.HasFeature(expect.SocketStorage); deferred != (row.EmptyChild && storage) || empty != (row.EmptyChild && !storage) {
		t.Errorf("deferred %v, without a peer %v; the table has %+v", deferred, empty, row)
	}
	if !empty && lines[i].PeerPort != out.Client.Local.Port() {
		t.Errorf("peer port is not %d: %s", out.Client.Local.Port(), lines[i].Raw)
	}
}
