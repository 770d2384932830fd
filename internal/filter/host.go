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
// inode number, a path (/run/netns/blue, /proc/7/ns/net) or pid:N. An inode
// number that cannot be found ([netns.CanFind]) is an error.
func ParseNetns(word string) (uint32, error) {
	if pid, isPID := strings.CutPrefix(word, "pid:"); isPID {
		if _, err := ParsePID(pid); err != nil {
			return 0, err
		}
		ino, err := netnsInode("/proc/" + pid + "/ns/net")
		if errors.Is(err, unix.EACCES) {
			return 0, fmt.Errorf("%q: %w", word, mayNotInspect(pid))
		}
		if err != nil {
			return 0, fmt.Errorf("%q: there is no process %s", word, pid)
		}
		return ino, nil
	}
	if strings.Contains(word, "/") {
		ino, err := netnsInode(word)
		if err != nil {
			return 0, fmt.Errorf("%q is not a network namespace: %w; 'lsns -t net' and 'ls /run/netns' list them", word, err)
		}
		return ino, nil
	}
	ino, err := strconv.ParseUint(word, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("%q is not a network namespace: use an inode number, a path with a '/', or pid:N", word)
	}
	if !netns.CanFind(uint32(ino)) {
		return 0, fmt.Errorf("no network namespace has inode %d; 'lsns -t net' lists them", ino)
	}
	return uint32(ino), nil
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
