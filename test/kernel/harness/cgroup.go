package harness

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/test/kernelmatrix/expect"
)

// MoveToNestedCgroup makes all levels of a cgroup path below the root of the hierarchy,
// and moves the process there. It calls each, if that is not nil, with each new directory. The
// function that it returns removes these levels.
func (a *Actor) MoveToNestedCgroup(path string, each func(dir string)) (remove func()) {
	t := a.env.T
	t.Helper()
	_, dir := cgroupHierarchy()
	dir = filepath.Join(dir, "tcpshift-"+strconv.Itoa(os.Getpid()))
	var made []string
	for _, level := range append([]string{"."}, strings.Split(path, "/")...) {
		dir = filepath.Join(dir, level)
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		made = append(made, dir)
		if each != nil {
			each(dir)
		}
		level := dir
		t.Cleanup(func() { _ = os.Remove(level) }) // if the test has failed before remove
	}
	from := Now()
	if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(a.PID)), 0); err != nil {
		t.Fatal(err)
	}
	a.Cgroups.add(from, Now(), cgroupOf(a.PID))
	a.env.noteStep(a, from, Now())
	return func() {
		for i := range made {
			if err := os.Remove(made[len(made)-1-i]); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// RequireCgroups skips the test if no hierarchy is mounted that the tracer uses; guests
// may have none.
func (env *Env) RequireCgroups() {
	env.T.Helper()
	_, root := cgroupHierarchy()
	var fs unix.Statfs_t
	if unix.Statfs(root, &fs) != nil || fs.Type != unix.CGROUP_SUPER_MAGIC && fs.Type != unix.CGROUP2_SUPER_MAGIC {
		SkipUnlessRequired(env.T, expect.Cgroups, "no cgroup hierarchy at "+root)
	}
}

// MoveToCgroup makes a cgroup below the first cgroup of the process and moves the
// process there. The cgroup is removed after the test.
func (a *Actor) MoveToCgroup(name string) {
	t := a.env.T
	t.Helper()
	_, root := cgroupHierarchy()
	dir := filepath.Join(root, a.Cgroups[0].Value, "tcpshift-"+strconv.Itoa(os.Getpid())+"-"+name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	a.env.cgroupDirs = append(a.env.cgroupDirs, dir)
	from := Now()
	if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(a.PID)), 0); err != nil {
		t.Fatal(err)
	}
	a.Cgroups.add(from, Now(), cgroupOf(a.PID))
	a.env.noteStep(a, from, Now())
}

// EnterCgroup2 makes a cgroup of version 2 and moves the process there. It returns the
// directory of the cgroup. A BPF program can be attached to it.
func (a *Actor) EnterCgroup2(name string) (dir string) {
	t := a.env.T
	t.Helper()
	for _, root := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		var fs unix.Statfs_t
		if unix.Statfs(root, &fs) == nil && fs.Type == unix.CGROUP2_SUPER_MAGIC {
			dir = filepath.Join(root, "tcpshift-"+strconv.Itoa(os.Getpid())+"-"+name)
		}
	}
	if dir == "" {
		SkipUnlessRequired(t, expect.Cgroups, "no hierarchy of version 2")
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	a.env.cgroupDirs = append(a.env.cgroupDirs, dir)
	from := Now()
	if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(a.PID)), 0); err != nil {
		t.Fatal(err)
	}
	a.Cgroups.add(from, Now(), cgroupOf(a.PID))
	a.env.noteStep(a, from, Now())
	return dir
}

// cgroupOf returns the path that the tracer reports for a process: the path in cgroup v2
// if that is the only hierarchy, otherwise the path in the first v1 hierarchy that the
// tracer looks for. Bytes that are not UTF-8 are U+FFFD, as in a record.
func cgroupOf(pid int) string {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	controllers, _ := cgroupHierarchy()
	for _, l := range strings.Split(string(b), "\n") { // no cgroup's name has a \n
		if fields := strings.SplitN(l, ":", 3); len(fields) == 3 && fields[1] == controllers {
			return string([]rune(fields[2]))
		}
	}
	return ""
}

// cgroupHierarchy returns the controller ("" for v2) and its mount point.
func cgroupHierarchy() (controller, root string) {
	var fs unix.Statfs_t
	for _, c := range []string{"memory", "pids", "cpu"} {
		root := "/sys/fs/cgroup/" + c
		if unix.Statfs(root, &fs) == nil && fs.Type == unix.CGROUP_SUPER_MAGIC {
			return c, root
		}
	}
	return "", "/sys/fs/cgroup"
}
