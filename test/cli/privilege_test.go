package cli_test

import (
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
	for name, tt := range map[string]struct {
		args []string
		kept uint64
	}{
		"without alerts": {flags("--only", "transition"), 1 << unix.CAP_BPF},
		"with alerts": {nil, 1<<unix.CAP_BPF | 1<<unix.CAP_SYS_ADMIN | 1<<unix.CAP_SYS_PTRACE |
			1<<unix.CAP_DAC_READ_SEARCH},
	} {
		t.Run(name, func(t *testing.T) {
			tr := startTracer(t, append(tt.args, "--stats-interval", "10ms", "--port", "1"))
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
			if got := tr.stop(); got.result.status != 0 || got.result.stderr != "" {
				t.Errorf("want status 0 and no message\n%v", got.result)
			}
		})
	}
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
