package cli_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/internal/sandbox"
	"github.com/tcpshift/tcpshift/test/tcplab"
)

// requireSandbox skips the test on a kernel that lacks a part of the sandbox.
func requireSandbox(t *testing.T) {
	t.Helper()
	requireRoot(t)
	for _, part := range sandbox.Available() {
		if part.Err != nil {
			t.Skipf("this kernel lacks %s: %v", part.Name, part.Err)
		}
	}
}

// featuresOf returns the features of a start record.
func featuresOf(t *testing.T, line string) map[string]any {
	t.Helper()
	var start struct{ Features map[string]any }
	if err := json.Unmarshal([]byte(line), &start); err != nil {
		t.Fatalf("%v: %s", err, line)
	}
	return start.Features
}

// Under the sandbox a trace lives as without: it finds a namespace that is made after the start,
// verifies an alert with the kernel, opens its output again, and ends in order.
func TestSandbox_WholeLife(t *testing.T) {
	requireSandbox(t)
	dir := t.TempDir()
	path, old := filepath.Join(dir, "records"), filepath.Join(dir, "old")
	// The ports are below those that the host gives to clients: others fill no table.
	tr := launch(t, flags("--sandbox", "--port", "20000-20999", "--stats-interval", "100ms", "--output", path))
	f := awaitFile(t, path)
	defer f.Close()

	n := tcplab.NewNetns(t)
	n.Sysctl("net.ipv4.ip_local_port_range", "20000 20999")
	n.Sysctl("net.ipv4.tcp_tw_reuse", "0")
	inode := `"netns":` + strconv.FormatUint(uint64(n.Inode()), 10) + ","
	enough, stormed := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stormed)
		at := tcplab.V4.At(80)
		listener := n.Listen(at)
		for range 990 { // of 1000 ports: it does not stop before the alert, however slow this machine is
			select {
			case <-enough:
				return
			default:
			}
			c := n.Dial(at)
			s := listener.Accept()
			c.Close()
			s.ReadEOF()
			s.Close()
			time.Sleep(5 * time.Millisecond)
		}
	}()
	awaitLine(t, f, func(line string) bool {
		return strings.HasPrefix(line, `{"type":"alert"`) && strings.Contains(line, inode) &&
			strings.Contains(line, `"kind":"time_wait_storm"`) && strings.Contains(line, `"occupancy_source":"kernel"`)
	})
	close(enough)
	<-stormed

	if err := os.Rename(path, old); err != nil {
		t.Fatal(err)
	}
	tr.signal(syscall.SIGHUP)
	awaitGrowth(t, path, 0)
	tr.signal(syscall.SIGTERM)
	r := tr.waitUnread()
	r.mustEnd(t, 0)
	r.mustPrintError(t, "")
	for _, file := range []string{old, path} {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		r.stdout += string(content)
	}
	s := parseStream(t, r)
	if got := featuresOf(t, s.records[0].line); got[sandbox.Seccomp] != true {
		t.Errorf("the sandbox is not in force: %v", got)
	}
}

// The start record reports which parts of the sandbox are in force, and each thread has the
// filter. Without the flag there is neither.
func TestSandbox_StartRecord(t *testing.T) {
	requireSandbox(t)
	for name, tt := range map[string]struct {
		args              []string
		seccomp, landlock any
		mode              string
	}{
		"with alerts":      {flags("--sandbox"), true, "alerts, updates and metrics search the namespaces of other processes, which Landlock does not permit", "2"},
		"without alerts":   {flags("--sandbox", "--only", "transition,connection"), true, true, "2"},
		"without the flag": {nil, nil, nil, "0"},
	} {
		t.Run(name, func(t *testing.T) {
			n := tcplab.NewNetns(t)
			tr := startTracer(t, append(tt.args, "--netns", strconv.FormatUint(uint64(n.Inode()), 10)))
			if got := featuresOf(t, tr.started); got[sandbox.Seccomp] != tt.seccomp || got[sandbox.Landlock] != tt.landlock {
				t.Errorf("the features are %v", got)
			}
			threads, err := filepath.Glob("/proc/" + strconv.Itoa(tr.cmd.Process.Pid) + "/task/*/status")
			if err != nil || len(threads) < 2 {
				t.Fatalf("%d threads, %v", len(threads), err)
			}
			for _, path := range threads {
				if status, err := os.ReadFile(path); err == nil && !strings.Contains(string(status), "\nSeccomp:\t"+tt.mode+"\n") {
					t.Errorf("%s: want mode %s of seccomp:\n%s", path, tt.mode, status)
				}
			}
			n.Do(func() {
				fd := listenUnbound(t)
				defer unix.Close(fd)
				tr.await("listener with its port", func(line string) bool {
					return strings.Contains(line, `"new_state":"LISTEN"`) && strings.Contains(line, `"local_port":`)
				})
			})
			s := tr.stop()
			s.result.mustPrintError(t, "")
		})
	}
}

// listenUnbound listens on a port that the kernel chooses in listen(2): the tracer must ask the
// kernel for it.
func listenUnbound(t *testing.T) (fd int) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		err = unix.Listen(fd, 1)
	}
	if err != nil {
		t.Error(err)
	}
	return fd
}

// With Landlock the output is opened again, where it was and nowhere else.
func TestSandbox_ReopenUnderLandlock(t *testing.T) {
	requireSandbox(t)
	for name, follow := range map[string]bool{"path": false, "link": true} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "in", "records")
			if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			args := flags("--sandbox", "--only", "stats", "--stats-interval", "10ms", "--output", path)
			file := path
			if follow {
				file = filepath.Join(dir, "target")
				if err := os.WriteFile(file, nil, 0o600); err != nil {
					t.Fatal(err)
				}
				if err := os.Symlink(file, path); err != nil {
					t.Fatal(err)
				}
				args = append(args, "--output-follow")
			}
			tr := launch(t, args)
			awaitFile(t, path).Close()
			if err := os.Rename(file, file+".old"); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			tr.signal(syscall.SIGHUP)
			awaitGrowth(t, file, 0)
			tr.signal(syscall.SIGTERM)
			r := tr.waitUnread()
			r.mustEnd(t, 0)
			r.mustPrintError(t, "")
		})
	}
}
