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
)

// ParseNetns takes a network namespace of this host as inode number, as path
// (/run/netns/blue, /proc/7/ns/net) or as pid:N. It fails where there is none.
func ParseNetns(word string) (uint32, error) {
	if pid, isPID := strings.CutPrefix(word, "pid:"); isPID {
		if _, err := ParsePID(pid); err != nil {
			return 0, err
		}
		ino, err := nsInode("/proc/" + pid + "/ns/net")
		if errors.Is(err, unix.EACCES) {
			return 0, fmt.Errorf("%q: this user may not look at process %s: run as root", word, pid)
		}
		if err != nil {
			return 0, fmt.Errorf("%q: no process %s runs here", word, pid)
		}
		return ino, nil
	}
	if strings.Contains(word, "/") {
		ino, err := nsInode(word)
		if err != nil {
			return 0, fmt.Errorf("%q is no network namespace: %w; 'lsns -t net' and 'ls /run/netns' show those there are", word, err)
		}
		return ino, nil
	}
	ino, err := strconv.ParseUint(word, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("%q names no network namespace: use an inode number, a path with a '/', or pid:N", word)
	}
	if !netns.Exists(uint32(ino)) {
		return 0, fmt.Errorf("no network namespace has inode %d; 'lsns -t net' shows those there are", ino)
	}
	return uint32(ino), nil
}

// nsInode makes sure that the path is a network namespace, and no other file.
func nsInode(path string) (uint32, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0) // a FIFO would wait for a writer
	if err != nil {
		return 0, fmt.Errorf("open: %w", underlying(err))
	}
	defer f.Close()
	kind, err := unix.IoctlRetInt(int(f.Fd()), unix.NS_GET_NSTYPE)
	if err != nil || kind != unix.CLONE_NEWNET {
		return 0, fmt.Errorf("it is something else")
	}
	info, err := f.Stat()
	if err != nil {
		return 0, underlying(err)
	}
	return uint32(info.Sys().(*syscall.Stat_t).Ino), nil
}

// underlying drops the path that the caller names anyway.
func underlying(err error) error {
	if e, ok := err.(*os.PathError); ok { //nolint:errorlint // just made by os
		return e.Err
	}
	return err
}

// ParseCgroup takes a cgroup v2 directory, or its path below the mount, such as
// /system.slice/ssh.service, and gives its id: the directory's inode number
// (Documentation/admin-guide/cgroup-v2.rst; kernfs gives both the same number).
func ParseCgroup(word string) (uint64, error) {
	if !strings.HasPrefix(word, "/") {
		return 0, fmt.Errorf("%q is no cgroup path: begin with '/', as /proc/PID/cgroup shows it", word)
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
	return 0, fmt.Errorf("no cgroup v2 directory %q; 'systemd-cgls' shows those there are", word)
}
