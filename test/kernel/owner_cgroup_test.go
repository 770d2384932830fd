package kernel_test

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/test/kernelmatrix/expect"
)

// requireCgroups skips where no hierarchy is mounted that the tracer looks at: the
// guests of other kernels need not have one.
func (w *world) requireCgroups() {
	w.t.Helper()
	_, root := cgroupHierarchy()
	var fs unix.Statfs_t
	if unix.Statfs(root, &fs) != nil || fs.Type != unix.CGROUP_SUPER_MAGIC && fs.Type != unix.CGROUP2_SUPER_MAGIC {
		lacks(w.t, expect.Cgroups, "no hierarchy at "+root)
	}
}

func sysctlExists(name string) bool {
	_, err := os.Stat("/proc/sys/" + strings.ReplaceAll(name, ".", "/"))
	return err == nil
}

// moveToCgroup makes a cgroup below the process's first one and moves the process there.
func (a *actor) moveToCgroup(name string) {
	t := a.w.t
	t.Helper()
	_, root := cgroupHierarchy()
	dir := filepath.Join(root, a.cgroups[0].value, "tcpshift-"+strconv.Itoa(os.Getpid())+"-"+name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	a.w.cgroupDirs = append(a.w.cgroupDirs, dir)
	from := now()
	if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(a.pid)), 0); err != nil {
		t.Fatal(err)
	}
	a.cgroups.add(from, now(), cgroupOf(a.pid))
	a.w.stepped(a, from, now())
}
