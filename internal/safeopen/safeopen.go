// Package safeopen opens files at paths that others name: the links in /proc/PID/fd and
// /proc/PID/ns, mount points, and paths on the command line. Every path of this module is opened
// here, and the linter keeps it so. Other packages open only files in a directory that [Root],
// [PrivateRoot] or [PrivateRootIn] has opened, through its [os.Root].
//
// What is at such a path can change at any time. open(2) of a FIFO waits for its writer, a
// terminal becomes the controlling one, and some devices act when they are opened. So the
// path is resolved with O_PATH, which opens nothing. The kernel then reports what the
// reference leads to, and only a file of the right kind is opened, through the reference: it
// is the file that was checked, whatever is at the path by then. A namespace of another kind
// is opened, which has no effect, and then refused.
//
// The links in /proc/PID/fd and /proc/PID/ns are followed: the kernel makes them, and they
// lead to the file itself. Other links are followed only in paths that the operator has given or
// that are fixed: [NetnsInode], [CgroupID] and [Root] follow all. [ReadFile], [ReadFileUpTo], [DirNames] and
// [Append] follow those in the directories of their path, but not one that is the last component,
// except by Append with follow. [PrivateRoot] and [OwnFile] refuse what another user may have put there
// or can change.
//
// Except for a namespace, the package must not open a file to find out what it is. It must not
// decide what a file is used for.
package safeopen

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrOtherKind is the error of a file that is not what the caller wants to open.
var ErrOtherKind = errors.New("the file is of another kind")

// ErrTooLarge is the error of a file that has more bytes than the caller wants to read.
var ErrTooLarge = errors.New("the file is too large")

// always are flags of every open but that of findWithoutLinks: no child inherits the descriptor,
// and no terminal becomes the controlling one. openat2() with O_PATH opens no terminal, and
// refuses O_NOCTTY.
const always = unix.O_CLOEXEC | unix.O_NOCTTY

// reference is a file that has been found and is not open.
type reference struct {
	fd   int
	path string // for errors
}

// find resolves a path and follows the links in it.
func find(path string) (reference, error) {
	return retryOpen(path, func() (int, error) {
		return unix.Open(path, unix.O_PATH|always, 0)
	})
}

// findWithoutLinks resolves a path, and fails with ELOOP if there is a link in it.
func findWithoutLinks(path string) (reference, error) {
	r, err := retryOpen(path, func() (int, error) {
		return unix.Openat2(unix.AT_FDCWD, path, &unix.OpenHow{
			Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS,
		})
	})
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) {
		return stepWithoutLinks(path) // a seccomp filter cannot read the flags of openat2(2)
	}
	return r, err
}

// stepWithoutLinks is findWithoutLinks without openat2(2): one open for each part of the path.
func stepWithoutLinks(path string) (reference, error) {
	at, rest := reference{fd: unix.AT_FDCWD, path: path}, filepath.Clean(path)
	if filepath.IsAbs(rest) {
		if rest = rest[1:]; rest == "" {
			rest = "."
		}
		root, err := find("/")
		if err != nil {
			return root, err
		}
		at.fd = root.fd
	}
	for name := range strings.SplitSeq(rest, "/") {
		next, err := retryOpen(path, func() (int, error) {
			return unix.Openat(at.fd, name, unix.O_PATH|unix.O_NOFOLLOW|always, 0)
		})
		if at.fd != unix.AT_FDCWD {
			at.close()
		}
		if err != nil {
			return next, err
		}
		at = next
		st, err := at.stat()
		if err == nil && st.Mode&unix.S_IFMT == unix.S_IFLNK {
			err = &os.PathError{Op: "open", Path: path, Err: unix.ELOOP}
		}
		if err != nil {
			at.close()
			return reference{}, err
		}
	}
	return at, nil
}

// retryOpen calls open until no signal interrupts it.
func retryOpen(path string, open func() (int, error)) (reference, error) {
	for {
		fd, err := open()
		if err == unix.EINTR { //nolint:errorlint // straight from the system call
			continue
		}
		if err != nil {
			return reference{}, &os.PathError{Op: "open", Path: path, Err: err}
		}
		return reference{fd, path}, nil
	}
}

func (r reference) close() { _ = unix.Close(r.fd) } // an O_PATH descriptor has nothing to lose

// open opens the file itself.
func (r reference) open(flags int) (*os.File, error) {
	file, err := retryOpen(r.path, func() (int, error) {
		return unix.Open("/proc/self/fd/"+strconv.Itoa(r.fd), flags|always, 0)
	})
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(file.fd), r.path), nil
}

func (r reference) stat() (st unix.Stat_t, err error) {
	if err = unix.Fstat(r.fd, &st); err != nil {
		err = &os.PathError{Op: "stat", Path: r.path, Err: err}
	}
	return st, err
}

// isOn reports whether the file is on a file system of this type, such as NSFS_MAGIC.
func (r reference) isOn(fileSystem int64) bool {
	var st unix.Statfs_t
	return unix.Fstatfs(r.fd, &st) == nil && st.Type == fileSystem
}

// ReadFile reads a regular file, such as a sysctl. No symbolic link may be the last component
// of path.
func ReadFile(path string) ([]byte, error) {
	f, err := openOfKind(path, unix.S_IFREG)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(f)
}

// CheckRegular fails with [ErrOtherKind] if the file at path is not regular. It follows all links, and opens nothing: it
// is for a path that the operator has given, and whose file other code opens.
func CheckRegular(path string) error {
	r, err := find(path)
	if err != nil {
		return err
	}
	defer r.close()
	return r.mustBe(unix.S_IFREG)
}

// mustBe fails with [ErrOtherKind] if the file is not of a kind, such as unix.S_IFREG.
func (r reference) mustBe(kind uint32) error {
	st, err := r.stat()
	if err == nil && st.Mode&unix.S_IFMT != kind {
		err = &os.PathError{Op: "open", Path: r.path, Err: ErrOtherKind}
	}
	return err
}

// ReadFileUpTo is ReadFile for a file that another program has made. It fails with [ErrTooLarge]
// if the file has more than maxBytes.
func ReadFileUpTo(path string, maxBytes int64) ([]byte, error) {
	f, err := openOfKind(path, unix.S_IFREG)
	if err != nil {
		return nil, err
	}
	return readUpTo(f, path, maxBytes)
}

// readUpTo reads all of a file, and closes it.
func readUpTo(f *os.File, path string, maxBytes int64) ([]byte, error) {
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxBytes+1))
	if err == nil && int64(len(b)) > maxBytes {
		return nil, &os.PathError{Op: "read", Path: path, Err: ErrTooLarge}
	}
	return b, err
}

// DirNames lists the names in a directory, at most maxNames of them, in no order. No symbolic
// link may be the last component of path.
func DirNames(path string, maxNames int) ([]string, error) {
	f, err := openOfKind(path, unix.S_IFDIR)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	names, err := f.Readdirnames(maxNames)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return names, err
}

// openOfKind opens a file for reading if it is of a kind, such as unix.S_IFREG. Links in the
// directories of path are followed.
func openOfKind(path string, kind uint32) (*os.File, error) {
	r, err := retryOpen(path, func() (int, error) {
		return unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|always, 0)
	})
	if err != nil {
		return nil, err
	}
	defer r.close()
	if err := r.mustBe(kind); err != nil {
		return nil, err
	}
	return r.open(unix.O_RDONLY)
}

// ProcDir opens a directory of /proc for reading its entries. It fails if path leads to
// another file system, or through a link.
func ProcDir(path string) (*os.File, error) {
	r, err := findProcDir(path)
	if err != nil {
		return nil, err
	}
	defer r.close()
	return r.open(unix.O_RDONLY | unix.O_DIRECTORY)
}

func findProcDir(path string) (reference, error) {
	r, err := findWithoutLinks(path)
	if err != nil {
		return r, err
	}
	st, err := r.stat()
	if err == nil && (st.Mode&unix.S_IFMT != unix.S_IFDIR || !r.isOn(unix.PROC_SUPER_MAGIC)) {
		err = &os.PathError{Op: "open", Path: path, Err: ErrOtherKind}
	}
	if err != nil {
		r.close()
	}
	return r, err
}

// CgroupID returns the id of the cgroup v2 whose directory is at path: its inode number. It
// opens nothing. Links in path are followed. It fails with [ErrOtherKind] if path is no such directory.
func CgroupID(path string) (uint64, error) {
	r, err := find(path)
	if err != nil {
		return 0, err
	}
	defer r.close()
	st, err := r.stat()
	if err != nil {
		return 0, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR || !r.isOn(unix.CGROUP2_SUPER_MAGIC) {
		return 0, fmt.Errorf("%s is not a cgroup v2: %w", filepath.Clean(path), ErrOtherKind)
	}
	return st.Ino, nil
}
