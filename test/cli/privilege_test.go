package cli_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// After the start no thread has more capabilities than the features that are on need, and none
// can gain one.
func TestPrivilege_AfterStart(t *testing.T) {
	requireRoot(t)
	var maps uint64 // needs CAP_BPF up to Linux 5.18
	if isBefore(t, 5, 19) {
		maps = 1 << unix.CAP_BPF
	}
	for name, tt := range map[string]struct {
		args   []string
		kept   uint64
		status int
	}{
		"without alerts": {flags("--only", "transition"), maps, 0},
		"with alerts":    {nil, maps | 1<<unix.CAP_SYS_ADMIN | 1<<unix.CAP_SYS_PTRACE | 1<<unix.CAP_DAC_READ_SEARCH, 0},
		"with a command": {flags("--only", "transition", "--output", "-", "--", "sleep", "1000"), maps | 1<<unix.CAP_KILL, 128 + int(unix.SIGTERM)},
	} {
		t.Run(name, func(t *testing.T) {
			tr := startTracer(t, append(flags("trace", "--stats-interval", "10ms", "--port", "1"), tt.args...))
			want := map[string]uint64{"CapInh": 0, "CapPrm": tt.kept, "CapEff": tt.kept, "CapBnd": tt.kept, "CapAmb": 0, "NoNewPrivs": 1}
			threads, err := filepath.Glob("/proc/" + strconv.Itoa(tr.cmd.Process.Pid) + "/task/*/status")
			if err != nil || len(threads) < 2 {
				t.Fatalf("%d threads, %v", len(threads), err)
			}
			for _, path := range threads {
				for key, got := range privilegesIn(t, path) {
					if got != want[key] {
						t.Errorf("%s: %s is %#x, want %#x", path, key, got, want[key])
					}
				}
			}
			tr.signal(unix.SIGTERM)
			r := tr.wait()
			r.mustEnd(t, tt.status)
			r.mustPrintError(t, "")
		})
	}
}

// isBefore reports whether this kernel is older than a version.
func isBefore(t *testing.T, major, minor int) bool {
	t.Helper()
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		t.Fatal(err)
	}
	var hasMajor, hasMinor int
	if _, err := fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &hasMajor, &hasMinor); err != nil {
		t.Fatal(err)
	}
	return hasMajor < major || hasMajor == major && hasMinor < minor
}

// privilegesIn reads the sets of capabilities and no_new_privs from /proc/PID/task/TID/status.
// A thread that has ended has none.
func privilegesIn(t *testing.T, path string) map[string]uint64 {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	found := make(map[string]uint64)
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ":\t")
		if strings.HasPrefix(key, "Cap") || key == "NoNewPrivs" {
			if found[key], err = strconv.ParseUint(value, 16, 64); err != nil {
				t.Fatalf("%s: %q: %v", path, line, err)
			}
		}
	}
	if len(found) != 6 {
		t.Fatalf("%s has %v", path, found)
	}
	return found
}
