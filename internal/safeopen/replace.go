package safeopen

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// Read opens a file that the operator names for reading: a regular file, a FIFO, a terminal, or /dev/null, /dev/zero or
// /dev/full. Links are followed, as /dev/stdin and /dev/fd/N are such. Opening a FIFO waits until a process writes to
// it. The error wraps [ErrOtherKind] for all else.
func Read(path string) (*os.File, error) {
	r, err := find(path)
	if err != nil {
		return nil, err
	}
	defer r.close()
	st, err := r.stat()
	if err != nil {
		return nil, err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG, unix.S_IFIFO, unix.S_IFCHR:
		if st.Mode&unix.S_IFMT == unix.S_IFCHR {
			if reason := unsuitable(&st); reason != "" {
				return nil, &refusal{path, reason, ErrOtherKind}
			}
		}
		return r.open(unix.O_RDONLY)
	case unix.S_IFDIR:
		return nil, &refusal{path, "is a directory", ErrOtherKind}
	}
	return nil, &refusal{path, "is neither a file nor a FIFO", ErrOtherKind}
}

// Replace writes a regular file, all of it or nothing: it fills a new file in the same directory, and renames that to
// path. So it follows no link at path, and a process that has the old file open keeps it. A file that exists keeps its
// permissions; a new one gets these, less the umask. The error wraps [ErrRefused] if what is at path is no regular file,
// belongs to neither this user nor root, or has a second name. Nothing is synced to the disk: after a power failure the
// file may be empty.
func Replace(path string, permissions fs.FileMode, fill func(io.Writer) error) (err error) {
	directory, err := os.OpenRoot(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer directory.Close()
	name := filepath.Base(path)
	existing, err := directory.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	default:
		if err := refuseFile(path, existing); err != nil {
			return err
		}
		permissions = existing.Mode().Perm()
	}
	hidden, f, err := createHidden(directory, name, permissions)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, directory.Remove(hidden))
		}
	}()
	err = fill(f)
	if existing != nil && err == nil {
		err = f.Chmod(permissions) // the umask may have taken some
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return directory.Rename(hidden, name)
}

// createHidden creates a new file beside the one of this name.
func createHidden(directory *os.Root, name string, permissions fs.FileMode) (string, *os.File, error) {
	for try := 0; ; try++ {
		hidden := "." + name + "." + strconv.Itoa(os.Getpid()) + "-" + strconv.Itoa(try)
		f, err := directory.OpenFile(hidden, os.O_WRONLY|os.O_CREATE|os.O_EXCL, permissions)
		if !errors.Is(err, fs.ErrExist) || try == 100 {
			return hidden, f, err
		}
	}
}
