package filter

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/internal/netns"
	"github.com/tcpshift/tcpshift/internal/privilege"
	"github.com/tcpshift/tcpshift/internal/safeopen"
)

// ParseNetns returns the inode number of a network namespace of this host. word is the
// inode number, a path (/run/netns/blue, /proc/7/ns/net) or pid:N. A namespace that
// cannot be found by its inode number ([netns.Check]) is an error.
func ParseNetns(word string) (uint32, error) {
	if pid, isPID := strings.CutPrefix(word, "pid:"); isPID {
		return netnsOfProcess(word, pid)
	}
	if strings.Contains(word, "/") {
		return netnsAt(word)
	}
	ino, err := strconv.ParseUint(word, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("%q is not a network namespace: use an inode number, a path with a '/', or pid:N", word)
	}
	err = netns.Check(uint32(ino))
	if errors.Is(err, netns.ErrNotFound) {
		return 0, fmt.Errorf("no network namespace has inode %d; 'lsns -t net' lists them", ino)
	}
	return uint32(ino), err
}

// netnsOfProcess returns the namespace of the process whose number is in word.
func netnsOfProcess(word, number string) (uint32, error) {
	pid, err := ParsePID(number)
	if err != nil {
		return 0, err
	}
	ino, err := netnsInode(fmt.Sprintf("/proc/%d/ns/net", pid))
	switch {
	case err == nil:
		return ino, nil
	case errors.Is(err, unix.EACCES):
		return 0, fmt.Errorf("%q: %w", word, mayNotInspect(fmt.Sprint(pid)))
	case !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ESRCH):
		return 0, fmt.Errorf("%q: %w", word, privilege.ExplainLimit(err))
	}
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		return 0, fmt.Errorf("%q: there is no /proc: mount it (mount -t proc proc /proc)", word)
	}
	return 0, fmt.Errorf("%q: there is no process %d", word, pid)
}

// netnsAt returns the namespace at a path. It must be one that can be found again: the path may
// lead into another mount namespace.
func netnsAt(path string) (uint32, error) {
	ino, err := netnsInode(path)
	if errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) {
		return 0, fmt.Errorf("%q: %w", path, privilege.ExplainLimit(err))
	}
	if err != nil {
		return 0, fmt.Errorf("%q is not a network namespace: %w; 'lsns -t net' and 'ls /run/netns' list them", path, err)
	}
	err = netns.Check(ino)
	if errors.Is(err, netns.ErrNotFound) {
		return 0, fmt.Errorf("%q is network namespace %d, but no process and no mount in tcpshift's own mount namespace leads to it: "+
			"run tcpshift where it is mounted (nsenter -m), or mount it here (mount --bind)", path, ino)
	}
	return ino, err
}

// mayNotInspect is the error of a process whose namespaces the kernel does not show. Its
// remedy names all capabilities for tracing: setcap replaces those that the binary has.
func mayNotInspect(pid string) error {
	inspect := privilege.Operation{
		Name: "inspecting process " + pid, Command: "tcpshift",
		CommandCapabilities: []privilege.Capability{unix.CAP_BPF, unix.CAP_PERFMON, unix.CAP_SYS_PTRACE}, SystemCall: "openat",
	}
	problem, remedy := inspect.ExplainRefusal()
	return errors.New(problem + ": " + remedy)
}

// netnsInode is [safeopen.NetnsInode] without the path in its errors, which is in the caller's
// message.
func netnsInode(path string) (uint32, error) {
	ino, err := safeopen.NetnsInode(path)
	var e *os.PathError
	switch {
	case errors.Is(err, safeopen.ErrOtherKind):
		return 0, safeopen.ErrOtherKind
	case errors.As(err, &e):
		return 0, fmt.Errorf("%s: %w", e.Op, e.Err)
	}
	return ino, err
}

// ParseCgroup returns the id of a cgroup v2. word is its directory, or its path below the
// mount, such as /system.slice/ssh.service. The id is the directory's inode
// number (Documentation/admin-guide/cgroup-v2.rst; kernfs uses one number for both).
func ParseCgroup(word string) (uint64, error) {
	if !strings.HasPrefix(word, "/") {
		return 0, fmt.Errorf("%q is not a cgroup path: begin with '/', as in /proc/PID/cgroup", word)
	}
	candidates := []string{word}
	for _, root := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		candidates = append(candidates, filepath.Join(root, word))
	}
	for _, path := range candidates {
		if id, err := safeopen.CgroupID(path); err == nil {
			return id, nil
		}
	}
	return 0, fmt.Errorf("there is no cgroup v2 directory %q; 'systemd-cgls' lists them", word)
}
