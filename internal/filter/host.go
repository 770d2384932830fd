package filter

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/internal/netns"
	"github.com/tcpshift/tcpshift/internal/privilege"
	"github.com/tcpshift/tcpshift/internal/safeopen"
)

// ParseNetns returns the inode number of a network namespace of this host. word is the
// inode number, a path (/run/netns/blue, /proc/7/ns/net), pid:N, or a name that ip-netns(8) has
// given (blue). A namespace that cannot be found by its inode number ([netns.Check]) is an error.
func ParseNetns(word string) (uint32, error) {
	if pid, isPID := strings.CutPrefix(word, "pid:"); isPID {
		return netnsOfProcess(word, pid)
	}
	if strings.Contains(word, "/") {
		return netnsAt(word)
	}
	ino, err := strconv.ParseUint(word, 10, 32)
	if err != nil {
		return netnsNamed(word)
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

// netnsDir is where ip-netns(8) mounts the namespaces that it names.
const netnsDir = "/run/netns"

// netnsNamed returns the namespace that has a name of ip-netns(8).
func netnsNamed(name string) (uint32, error) {
	path := filepath.Join(netnsDir, name)
	_, err := netnsInode(path)
	if name == "" || name == "." || name == ".." || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENAMETOOLONG) {
		return 0, fmt.Errorf("%q is not a network namespace: use an inode number, a path with a '/', pid:N, or a name that 'ip netns list' lists", name)
	}
	return netnsAt(path)
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

// ParseUser returns the number of a user of this host. word is that number, or the name of the user.
func ParseUser(word string) (uint32, error) {
	const none = 1<<32 - 1 // chown(2): no user
	if uid, err := strconv.ParseUint(word, 10, 32); err == nil && uid != none {
		return uint32(uid), nil
	}
	if found, err := user.Lookup(word); err == nil {
		uid, err := strconv.ParseUint(found.Uid, 10, 32)
		return uint32(uid), err
	}
	return 0, fmt.Errorf("%q is not a user: use a number from 0 to %d, or a name in /etc/passwd", word, uint32(none-1))
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
