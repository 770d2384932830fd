package cli_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// cgroupMount returns the mount point of cgroup v2.
func cgroupMount(t *testing.T) string {
	t.Helper()
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		// proc_pid_mountinfo(5): the fifth field is the mount point, the type follows "
		// - ".
		mount, kind, _ := strings.Cut(lines.Text(), " - ")
		if fields := strings.Fields(mount); len(fields) > 4 && strings.HasPrefix(kind, "cgroup2 ") {
			return fields[4]
		}
	}
	skipMissing(t, "needs cgroup v2 to be mounted")
	return ""
}

// newCgroup makes a cgroup and a child of it. adjust starts a process in one of them.
func newCgroup(t *testing.T, mount, in string) (dir string, adjust func(*exec.Cmd)) {
	t.Helper()
	dir, err := os.MkdirTemp(mount, fmt.Sprintf("tcpshift-test-%d-", os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { removeCgroup(t, dir) })
	below := filepath.Join(dir, "below")
	if err := os.Mkdir(below, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { removeCgroup(t, below) })
	f, err := os.Open(filepath.Join(dir, in))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return dir, func(cmd *exec.Cmd) {
		cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(f.Fd())}
	}
}

func removeCgroup(t *testing.T, dir string) {
	t.Helper()
	if err := os.Remove(dir); err != nil {
		t.Errorf("remove the test's cgroup: %v", err)
	}
}
