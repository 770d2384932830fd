package filter

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/internal/netns"
	"github.com/tcpshift/tcpshift/internal/privilege"
)

// ParseNetns returns the inode number of a network namespace of this host. word is the
// inode number, a path (/run/netns/blue, /proc/7/ns/net) or pid:N. It fails if the
// namespace does not exist.
func ParseNetns(word string) (uint32, error) {
	if pid, isPID := strings.CutPrefix(word, "pid:"); isPID {
		if _, err := ParsePID(pid); err != nil {
			return 0, err
		}
		ino, err := nsInode("/proc/" + pid + "/ns/net")
		if errors.Is(err, unix.EACCES) {
			return 0, fmt.Errorf("%q: %w", word, mayNotInspect(pid))
		}
		if err != nil {
			return 0, fmt.Errorf("%q: there is no process %s", word, pid)
		}
		return ino, nil
	}
	if strings.Contains(word, "/") {
		ino, err := nsInode(word)
		if err != nil {
			return 0, fmt.Errorf("%q is not a network namespace: %w; 'lsns -t net' and 'ls /run/netns' list them", word, err)
		}
		return ino, nil
	}
	ino, err := strconv.ParseUint(word, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("%q is not a network namespace: use an inode number, a path with a '/', or pid:N", word)
	}
	if !netns.Exists(uint32(ino)) {
		return 0, fmt.Errorf("no network namespace has inode %d; 'lsns -t net' lists them", ino)
	}
	return uint32(ino), nil
}

// mayNotInspect is the error of a process whose namespaces the kernel does not show.
func mayNotInspect(pid string) error {
	inspect := privilege.Operation{
		Name: "inspecting process " + pid, Command: "tcpshift",
		Capabilities: []privilege.Capability{unix.CAP_SYS_PTRACE}, SystemCall: "openat",
	}
	problem, remedy := inspect.ExplainRefusal()
	return errors.New(problem + ": " + remedy)
}

// nsInode fails unless the file at path is a network namespace.
func nsInode(path string) (uint32, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0) // O_NONBLOCK: a FIFO would wait for a writer
	if err != nil {
		return 0, fmt.Errorf("open: %w", underlying(err))
	}
	defer f.Close()
	kind, err := unix.IoctlRetInt(int(f.Fd()), unix.NS_GET_NSTYPE)
	if err != nil || kind != unix.CLONE_NEWNET {
		return 0, fmt.Errorf("the file is of another kind")
	}
	info, err := f.Stat()
	if err != nil {
		return 0, underlying(err)
	}
	return uint32(info.Sys().(*syscall.Stat_t).Ino), nil
}

// underlying drops the path, which is in the caller's message.
func underlying(err error) error {
	if e, ok := err.(*os.PathError); ok { //nolint:errorlint // package os returns it unwrapped
		return e.Err
	}
	return err
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
		var fs unix.Statfs_t
		var st unix.Stat_t
		if unix.Statfs(path, &fs) == nil && fs.Type == unix.CGROUP2_SUPER_MAGIC &&
			unix.Stat(path, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR {
			return st.Ino, nil
		}
	}
	return 0, fmt.Errorf("there is no cgroup v2 directory %q; 'systemd-cgls' lists them", word)
}
