// Package peers_test compares the real binary with other programs that use the same
// tracepoint, or that make connections: perf, tcpstates, curl. Tests that need no other
// program are elsewhere.
package peers_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/test/tcplab"
)

// program is tcpshift, built once.
var program string

func TestMain(m *testing.M) {
	if os.Getenv(actorEnv) != "" {
		os.Exit(runActor())
	}
	os.Exit(buildAndRun(m))
}

func buildAndRun(m *testing.M) int {
	dir, err := os.MkdirTemp("", "tcpshift-peers-")
	if err != nil {
		fmt.Fprintln(os.Stderr, "make a directory for the binary:", err)
		return 1
	}
	defer os.RemoveAll(dir)
	program = filepath.Join(dir, "tcpshift")
	cmd := exec.Command("go", "build", "-buildvcs=false", "-o", program, "../../cmd/tcpshift")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "build tcpshift:", err)
		return 1
	}
	return m.Run()
}

// requireProgram returns the path of another program. Without it the test is skipped; under
// CI=true it fails.
func requireProgram(t *testing.T, name string) string {
	t.Helper()
	tcplab.RequireRoot(t)
	path, err := exec.LookPath(name)
	if err == nil {
		return path
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("needs %s: make install-deps", name)
	}
	t.Skipf("needs %s: make install-deps", name)
	return ""
}

// running is a program that runs beside the test.
type running struct {
	t      *testing.T
	cmd    *exec.Cmd
	stdout *os.File
	stderr bytes.Buffer
}

// start runs a program with its standard output in a file, so that no reader can block
// it.
func start(t *testing.T, path string, args ...string) *running {
	t.Helper()
	return startWith(t, nil, path, args...)
}

func startWith(t *testing.T, stdin *os.File, path string, args ...string) *running {
	t.Helper()
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	r := &running{t: t, cmd: exec.Command(path, args...), stdout: out}
	r.cmd.Stdout, r.cmd.Stderr = out, &r.stderr
	if stdin != nil {
		r.cmd.Stdin = stdin
	}
	if err := r.cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", path, err)
	}
	t.Cleanup(func() {
		if r.cmd.ProcessState == nil {
			_ = r.cmd.Process.Kill()
			_ = r.cmd.Wait()
		}
		out.Close()
	})
	return r
}

// await waits until the output contains the text, by which programs show that they are
// ready.
func (r *running) await(text string) {
	r.t.Helper()
	const waitLimit = 30 * time.Second
	for began := time.Now(); time.Since(began) < waitLimit; time.Sleep(10 * time.Millisecond) {
		if b, err := os.ReadFile(r.stdout.Name()); err == nil && bytes.Contains(b, []byte(text)) {
			return
		}
	}
	r.t.Fatalf("%s did not write %q within %v; standard error: %s", r.cmd.Path, text, waitLimit, r.stderr.String())
}

// awaitCount waits until the output has the text at least count times.
func (r *running) awaitCount(text string, count int) {
	r.t.Helper()
	const waitLimit = 30 * time.Second
	for began := time.Now(); time.Since(began) < waitLimit; time.Sleep(10 * time.Millisecond) {
		if b, err := os.ReadFile(r.stdout.Name()); err == nil && bytes.Count(b, []byte(text)) >= count {
			return
		}
	}
	r.t.Fatalf("%s did not print %q %d times within %v; standard error: %s", r.cmd.Path, text, count, waitLimit, r.stderr.String())
}

// interrupt ends the program as Ctrl-C does and waits for its end.
func (r *running) interrupt() {
	r.t.Helper()
	if err := r.cmd.Process.Signal(syscall.SIGINT); err != nil {
		r.t.Fatalf("interrupt %s: %v", r.cmd.Path, err)
	}
	_ = r.cmd.Wait() // some end by the signal, others with a status
}

// record is the keys of a record that these tests check.
type record struct {
	Type      string `json:"type"`
	Seq       uint64 `json:"seq"`
	Netns     uint32 `json:"netns"`
	LocalAddr string `json:"local_addr"`
	LocalPort uint16 `json:"local_port"`
	PeerAddr  string `json:"peer_addr"`
	PeerPort  uint16 `json:"peer_port"`
	Old       string `json:"old_state"`
	New       string `json:"new_state"`
	KernelNew string `json:"kernel_new_state"`
	Role      string `json:"role"`
	Comm      string `json:"comm"`
	PID       int    `json:"pid"`

	Time time.Time `json:"time"`

	Seen, Filtered, Read, Fired, Missed uint64

	LostRingFull uint64 `json:"lost_ring_full"`
	LostRingBusy uint64 `json:"lost_ring_busy"`
	LostReentry  uint64 `json:"lost_reentry"`

	raw string
}

// kernelNew returns the new state as the tracepoint shows it.
func (r *record) kernelNew() string {
	if r.KernelNew != "" {
		return r.KernelNew
	}
	return r.New
}

// records returns all records of a tracer that has ended. It checks that seq has no
// gap.
func (r *running) records() []record {
	r.t.Helper()
	f, err := os.Open(r.stdout.Name())
	if err != nil {
		r.t.Fatal(err)
	}
	defer f.Close()
	var all []record
	for lines := bufio.NewScanner(f); lines.Scan(); {
		rec := record{raw: lines.Text()}
		if err := json.Unmarshal(lines.Bytes(), &rec); err != nil {
			r.t.Fatalf("line %d is not JSON: %v: %s", len(all)+1, err, rec.raw)
		}
		all = append(all, rec)
		if rec.Seq != uint64(len(all)) {
			r.t.Fatalf("line %d has seq %d", len(all), rec.Seq)
		}
	}
	if len(all) == 0 || all[len(all)-1].Type != "stop" {
		r.t.Fatalf("the last record is not stop; standard error: %s", r.stderr.String())
	}
	return all
}
