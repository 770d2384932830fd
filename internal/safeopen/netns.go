package safeopen

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Netns opens the network namespace with this inode number at a path that was found in /proc
// or in the mount table. If something else is there by now, that is not opened, and the error
// wraps [ErrOtherKind]. Other errors are those of the system calls, such as ENOENT and EMFILE.
func Netns(path string, inode uint32) (*os.File, error) {
	r, err := findNetns(path)
	if err != nil {
		return nil, err
	}
	defer r.close()
	st, err := r.stat()
	if err != nil {
		return nil, err
	}
	if !r.isOn(unix.NSFS_MAGIC) || st.Ino != uint64(inode) {
		return nil, fmt.Errorf("%s is not network namespace %d: %w", path, inode, ErrOtherKind)
	}
	return openNetns(r)
}

// findNetns resolves the path without following a link, except the last one in /proc, which
// the kernel has made.
func findNetns(path string) (reference, error) {
	dir, name := filepath.Split(path)
	if !strings.HasPrefix(path, "/proc/") {
		return findWithoutLinks(path)
	}
	if base := filepath.Base(dir); base != "fd" && base != "ns" {
		return reference{}, fmt.Errorf("%s is not a link to a namespace: %w", path, ErrOtherKind)
	}
	links, err := findProcDir(filepath.Clean(dir))
	if err != nil {
		return reference{}, err
	}
	defer links.close()
	return retryOpen(path, func() (int, error) {
		return unix.Openat(links.fd, name, unix.O_PATH|always, 0)
	})
}

// NetnsInode returns the inode number of the network namespace at a path that the operator
// has given. Links are followed: 'ln -s /proc/PID/ns/net /run/netns/NAME' is how the namespace
// of a container gets a name. The error wraps [ErrOtherKind] if another file is there. A
// file that is not a namespace is not opened.
func NetnsInode(path string) (uint32, error) {
	r, err := find(path)
	if err != nil {
		return 0, err
	}
	defer r.close()
	if !r.isOn(unix.NSFS_MAGIC) {
		return 0, &os.PathError{Op: "open", Path: path, Err: ErrOtherKind}
	}
	st, err := r.stat()
	if err != nil {
		return 0, err
	}
	f, err := openNetns(r)
	if err != nil {
		return 0, err
	}
	return uint32(st.Ino), f.Close()
}

// openNetns opens a namespace, and fails if it is not a network namespace. Opening a namespace
// of another kind has no effect.
func openNetns(r reference) (*os.File, error) {
	f, err := r.open(unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	kind, err := unix.IoctlRetInt(int(f.Fd()), unix.NS_GET_NSTYPE)
	if err != nil || kind != unix.CLONE_NEWNET {
		_ = f.Close() // nothing was written
		return nil, &os.PathError{Op: "open", Path: r.path, Err: ErrOtherKind}
	}
	return f, nil
}
