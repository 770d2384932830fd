package safeopen

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// ErrRefused is the error of a file that another user may have put at the path, so that this
// process writes where that user cannot.
var ErrRefused = errors.New("it may be there on another user's behalf")

// refusal is an ErrRefused or ErrOtherKind with the reason.
type refusal struct {
	path, reason string
	is           error
}

// Error is the path and what is wrong with it.
func (r *refusal) Error() string { return r.path + " " + r.reason }

// Is reports whether target is the kind of this error: ErrRefused or ErrOtherKind.
func (r *refusal) Is(target error) bool { return target == r.is }

const appendFlags = unix.O_WRONLY | unix.O_APPEND

// Append opens the file at path for appending, and creates it with these permissions if
// nothing is there. Opening a FIFO waits until a process reads it; that wait, and any for a
// disk that hangs, ends when ctx is done. The error wraps [ErrRefused] if the last component
// of path is a symbolic link, or if the file is a regular one or a FIFO and belongs to neither this
// user nor root, or has several names. The directories of path may be links. With follow none of
// that is refused, but no file is created through a link. The error wraps [ErrOtherKind] if the
// file is a socket, a block device, or a character device other than terminals,
// /dev/null, /dev/zero and /dev/full.
//
// /dev/stdout, /dev/stderr, /dev/fd/N and /proc/self/fd/N are not opened: the result is a
// duplicate of that descriptor, and inherited is true. The process that passed the descriptor
// has decided where it leads.
func Append(ctx context.Context, path string, permissions uint32, follow bool) (f *os.File, inherited bool, err error) {
	if fd, ok := ownDescriptor(path); ok {
		f, err = duplicate(fd, path)
		return f, true, err
	}
	type result struct {
		file *os.File
		err  error
	}
	var isFIFO atomic.Bool
	opened := make(chan result)
	go func() { // this may wait in the kernel, at any of the steps
		f, err := appendTo(path, permissions, follow, &isFIFO)
		select {
		case opened <- result{f, err}:
		case <-ctx.Done():
			if err == nil {
				_ = f.Close() // nothing was written
			}
		}
	}()
	select {
	case o := <-opened:
		return o.file, false, o.err
	case <-ctx.Done():
		why := "it takes too long"
		if isFIFO.Load() {
			why = "no process reads this FIFO"
		}
		return nil, false, fmt.Errorf("open %s: %s: stopped waiting at %w", path, why, context.Cause(ctx))
	}
}

func appendTo(path string, permissions uint32, follow bool, isFIFO *atomic.Bool) (*os.File, error) {
	r, err := findLast(path, follow)
	for tries := 3; errors.Is(err, unix.ENOENT) && tries > 0; tries-- {
		var f *os.File
		// O_EXCL: a file that appears meanwhile is looked at before it is opened.
		f, err = os.OpenFile(path, appendFlags|unix.O_CREAT|unix.O_EXCL|always, os.FileMode(permissions))
		if !errors.Is(err, unix.EEXIST) {
			return f, err
		}
		r, err = findLast(path, follow)
	}
	if err != nil {
		return nil, err
	}
	defer r.close()
	st, err := r.stat()
	if err != nil {
		return nil, err
	}
	if reason := unsuitable(&st); reason != "" {
		return nil, &refusal{path, reason, ErrOtherKind}
	}
	if reason := refuse(&st); reason != "" && !follow {
		return nil, &refusal{path, reason, ErrRefused}
	}
	isFIFO.Store(st.Mode&unix.S_IFMT == unix.S_IFIFO)
	return r.open(appendFlags)
}

// findLast resolves path. Without follow, a link that is its last component is what is found.
func findLast(path string, follow bool) (reference, error) {
	if follow {
		return find(path)
	}
	return retryOpen(path, func() (int, error) {
		return unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|always, 0)
	})
}

// refuse returns why a file must not be written to, or "". Devices are accepted: only root makes
// device files, so another user cannot put one at the path.
func refuse(st *unix.Stat_t) string {
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		return "is a symbolic link"
	case unix.S_IFREG, unix.S_IFIFO:
		switch {
		case st.Uid != 0 && int(st.Uid) != os.Geteuid():
			return fmt.Sprintf("belongs to another user (uid %d)", st.Uid)
		case st.Nlink > 1:
			return "has another name, too (a hard link)"
		}
	}
	return ""
}

// ownDescriptor returns N if path is one of the names of this process's descriptor N.
func ownDescriptor(path string) (fd int, ok bool) {
	switch path = filepath.Clean(path); path {
	case "/dev/stdout":
		return unix.Stdout, true
	case "/dev/stderr":
		return unix.Stderr, true
	}
	for _, dir := range []string{"/dev/fd/", "/proc/self/fd/"} {
		if number, found := strings.CutPrefix(path, dir); found {
			fd, err := strconv.Atoi(number)
			return fd, err == nil && fd >= 0
		}
	}
	return 0, false
}

// duplicate duplicates a descriptor that this process has inherited. Those that it has opened
// itself are closed on exec, and are not meant.
func duplicate(fd int, path string) (*os.File, error) {
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	if err == nil && flags&unix.FD_CLOEXEC != 0 {
		err = unix.EBADF
	}
	if err == nil {
		fd, err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	}
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// NonblockingPipe opens the pipe or FIFO that fd refers to once more, with O_NONBLOCK, and
// returns the new descriptor, which the caller must close. fd stays as it is: O_NONBLOCK on fd
// itself would also apply to the other processes that share its open file description.
func NonblockingPipe(fd int) (int, error) {
	return unix.Open("/proc/self/fd/"+strconv.Itoa(fd), unix.O_WRONLY|unix.O_NONBLOCK|always, 0)
}
