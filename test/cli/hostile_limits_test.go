package cli_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/test/attacker"
)

// stopFlooded is stop for a tracer that a flood made leave something out of detection, and that
// has reported that.
func (tr *tracer) stopFlooded() stream {
	tr.t.Helper()
	tr.signal(syscall.SIGTERM)
	r := tr.wait()
	r.mustEnd(tr.t, 0)
	for line := range strings.Lines(r.stderr) {
		if !strings.HasPrefix(line, "tcpshift: detection has more ") {
			tr.t.Errorf("standard error has %q", line)
		}
	}
	return parseStream(tr.t, r)
}

// links returns the ids of all BPF links of the host.
func links(t *testing.T) map[object]bool {
	t.Helper()
	all := make(map[object]bool)
	for id := uint32(0); ; {
		attr := [3]uint32{id} // start_id, next_id, open_flags
		_, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_LINK_GET_NEXT_ID, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
		if errno == unix.ENOENT {
			return all
		}
		if errno != 0 {
			t.Fatalf("list BPF links: %v", errno)
		}
		id = attr[1]
		all[object{"link_id", id}] = true
	}
}

// newLinks returns the links that were not there before.
func newLinks(t *testing.T, before map[object]bool) map[object]bool {
	t.Helper()
	all := links(t)
	for o := range before {
		delete(all, o)
	}
	return all
}

// A tracer that is killed at any moment, its start included, leaves nothing attached.
func TestHostile_KilledAtAnyTime(t *testing.T) {
	requireRoot(t)
	before := links(t)
	attacker.Start(t, attacker.Attack{Connections: 1000, Destinations: 1000, Endless: true})
	for _, n := range []int{0, 1, 4, 7} {
		tr := launch(t, flags("alerts"), func(cmd *exec.Cmd) { cmd.Stderr = nil })
		began, attached := time.Now(), newLinks(t, before)
		for len(attached) < n && time.Since(began) < waitLimit { // the more, the later in its start
			time.Sleep(2 * time.Millisecond)
			attached = newLinks(t, before)
		}
		tr.signal(syscall.SIGKILL)
		tr.waitUnread()
		if len(attached) < n {
			t.Errorf("%d links within %v, want %d", len(attached), waitLimit, n)
		}
		mustBeGone(t, attached)
		mustBeGone(t, newLinks(t, before))
	}
}

// controller makes a cgroup of a v1 controller, or skips the test.
func controller(t *testing.T, name string) (dir string) {
	t.Helper()
	root := "/sys/fs/cgroup/" + name
	if _, err := os.Stat(filepath.Join(root, "cgroup.procs")); err != nil {
		t.Skipf("needs the %s controller of cgroup v1: %v", name, err)
	}
	dir, err := os.MkdirTemp(root, "tcpshift-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for began := time.Now(); ; time.Sleep(20 * time.Millisecond) {
			err := os.Remove(dir)
			if err == nil {
				return
			}
			if time.Since(began) > waitLimit {
				t.Errorf("remove the test's cgroup: %v", err)
				return
			}
		}
	})
	return dir
}

// inCgroup starts a program in a v1 cgroup.
func inCgroup(dir string) func(*exec.Cmd) {
	return func(cmd *exec.Cmd) {
		cmd.Args = append([]string{"sh", "-c", `echo $$ >"$0" && exec "$@"`, filepath.Join(dir, "cgroup.procs"), cmd.Path}, cmd.Args[1:]...)
		cmd.Path = "/bin/sh"
	}
}

func writeTo(t *testing.T, path, value string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(value), 0); err != nil {
		t.Fatal(err)
	}
}

// readFrom reads a number.
func readFrom(t *testing.T, path string) int {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// A tracer that can start no thread any more goes on: it reads new namespaces, and ends in
// order.
func TestHostile_FullProcessTable(t *testing.T) {
	requireRoot(t)
	dir := controller(t, "pids")
	tr := startTracer(t, flags("--stats-interval", "100ms", "--only", "alert,stats", "--connect-failures", "10"), inCgroup(dir))
	writeTo(t, filepath.Join(dir, "pids.max"), fmt.Sprint(readFrom(t, filepath.Join(dir, "pids.current"))))
	a := attacker.Start(t, attacker.Attack{Connections: 2000, Destinations: 2, Namespaces: 20, Refused: true, Endless: true})
	alerts := 0
	tr.await("alerts", func(line string) bool {
		if strings.Contains(line, `"kind":"connect_failures","phase":"open"`) {
			alerts++
		}
		return alerts >= 5
	})
	a.Stop()
	tr.stopFlooded()
}

// In little memory a tracer either works or does not start, and leaves nothing attached. What
// one user floods does not make it take more.
func TestHostile_OutOfMemory(t *testing.T) {
	requireRoot(t)
	before := links(t)
	dir := controller(t, "memory")
	limit := filepath.Join(dir, "memory.limit_in_bytes")
	for _, mib := range []int{4, 12} {
		writeTo(t, limit, fmt.Sprint(mib<<20))
		r := run(flags("--duration", "100ms"), inCgroup(dir))
		if r.status != 0 && r.signal != syscall.SIGKILL && r.stderr == "" {
			t.Errorf("with %d MiB it ends without a message\n%v", mib, r)
		}
		mustBeGone(t, newLinks(t, before))
	}
	writeTo(t, limit, fmt.Sprint(128<<20))
	tr := startTracer(t, flags("alerts"), inCgroup(dir))
	var attackers []*attacker.Process
	for _, a := range []attacker.Attack{
		{Connections: 1 << 20, Destinations: 1 << 20},
		{Connections: 1 << 20, Destinations: 300, InARow: 100, Refused: true},
		{Connections: 2000, Destinations: 20, Namespaces: 200, Refused: true},
		{HalfClosed: 3000}, {Listeners: 3000},
	} {
		a.Endless = true
		attackers = append(attackers, attacker.Start(t, a))
	}
	time.Sleep(3 * time.Second)
	for _, a := range attackers {
		a.Stop()
	}
	t.Logf("at most %d MiB", readFrom(t, filepath.Join(dir, "memory.max_usage_in_bytes"))>>20)
	tr.stopFlooded()
}

// A tracer that is stopped and continued in a flood has counted what it missed.
func TestHostile_StoppedInAFlood(t *testing.T) {
	requireRoot(t)
	attacker.Start(t, attacker.Attack{Connections: 1 << 20, Destinations: 1 << 20, Endless: true})
	tr := startTracer(t, flags("--only", "alert,stats,loss", "--stats-interval", "100ms", "--buffer-size", "64KiB"))
	for range 3 {
		tr.signal(syscall.SIGSTOP)
		tr.awaitStopped()
		time.Sleep(200 * time.Millisecond)
		tr.signal(syscall.SIGCONT)
		tr.await("loss", func(line string) bool { return strings.Contains(line, `"cause":"ring_full"`) })
	}
	if s := tr.stopFlooded(); s.last().LostRingFull == 0 {
		t.Errorf("want losses: %s", s.last().line)
	}
}

// Namespaces that die while they are read end neither a trace nor a snapshot.
func TestHostile_DyingNamespaces(t *testing.T) {
	requireRoot(t)
	tr := startTracer(t, flags("alerts", "--connect-failures", "10"))
	var attackers []*attacker.Process
	for range 3 {
		attackers = append(attackers, attacker.Start(t, attacker.Attack{Connections: 20, Destinations: 2, Namespaces: 1, Refused: true, Endless: true}))
	}
	for range 2 {
		r := run(flags("snapshot"))
		r.mustEnd(t, 0)
		r.mustPrintError(t, "")
	}
	for _, a := range attackers {
		a.Stop()
	}
	tr.stopFlooded()
}

// A descriptor that refers to a namespace by turns with a FIFO and a terminal is never opened as
// one of them.
func TestHostile_SwappedDescriptor(t *testing.T) {
	requireRoot(t)
	dir, err := os.MkdirTemp("", "tcpshift-hostile-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	fifo := filepath.Join(dir, "fifo")
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(fifo, 0o644); err != nil {
		t.Fatal(err)
	}
	tr := startTracer(t, flags("alerts", "--connect-failures", "10"))
	var attackers []*attacker.Process
	for range 2 {
		attackers = append(attackers, attacker.Start(t, attacker.Attack{SwapPath: fifo, Connections: 500, Destinations: 2, Refused: true, Endless: true}))
	}
	over := make(chan struct{})
	go func() {
		defer close(over)
		for range 2 {
			run(flags("snapshot")).mustEnd(t, 0)
		}
	}()
	for running := true; running; {
		select {
		case <-over:
			running = false
		case <-time.After(100 * time.Microsecond):
		}
		// That fails with ENXIO while nobody has it open for reading.
		if fd, err := unix.Open(fifo, unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0); err == nil {
			unix.Close(fd)
			t.Error("somebody has opened the FIFO")
			break
		}
	}
	<-over
	for _, a := range attackers {
		a.Stop()
	}
	tr.stopFlooded()
}

// hostileName has what rules a terminal, and what does not show.
const hostileName = "\x1b[2J\r\n\u202eab\u200b\x07"

// The names of processes reach neither a terminal nor NDJSON as they are.
func TestHostile_Names(t *testing.T) {
	requireRoot(t)
	for _, format := range []string{"text", "ndjson"} {
		tr := launch(t, flags("--format", format, "--connect-failures", "10", "--stats-interval", "100ms"))
		tr.next()
		a := attacker.Start(t, attacker.Attack{Name: hostileName, Connections: 100, Destinations: 1, Refused: true, Endless: true})
		alerts := 0
		tr.await("alert", func(line string) bool {
			if strings.Contains(line, "connect_failures") {
				alerts++
			}
			return alerts > 0
		})
		a.Stop()
		tr.signal(syscall.SIGTERM)
		r := tr.wait()
		r.mustEnd(t, 0)
		if !strings.Contains(r.stdout, "ab") {
			t.Errorf("%s: the name is missing", format)
		}
		for _, bad := range []string{"\x1b", "\r", "\x07", "\u202e", "\u200b"} {
			if strings.Contains(r.stdout, bad) {
				t.Errorf("%s: the output has %q", format, bad)
			}
		}
		for line := range strings.Lines(r.stdout) {
			if bytes.ContainsFunc([]byte(strings.TrimSuffix(line, "\n")), func(r rune) bool { return r < ' ' }) {
				t.Errorf("%s: a line has a control character: %q", format, line)
				break
			}
		}
	}
}
