package safeopen

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// PrivateRoot opens a directory in which nobody but this user and root can change files, and makes it
// with mode 0700 if nothing is at path. The error wraps [ErrRefused] if path is a symbolic link, if the
// directory belongs to neither this user nor root, or if others may write to it.
func PrivateRoot(path string) (*os.Root, error) {
	return privateRoot(path, path, os.Mkdir, os.Lstat, os.OpenRoot)
}

// PrivateRootIn is PrivateRoot for a name in the directory root.
func PrivateRootIn(root *os.Root, name string) (*os.Root, error) {
	return privateRoot(name, filepath.Join(root.Name(), name), root.Mkdir, root.Lstat, root.OpenRoot)
}

func privateRoot(name, path string, mkdir func(string, fs.FileMode) error, lstat func(string) (fs.FileInfo, error), open func(string) (*os.Root, error)) (*os.Root, error) {
	before, err := lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		if err := mkdir(name, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
		before, err = lstat(name)
	}
	if err != nil {
		return nil, err
	}
	if !before.IsDir() {
		return nil, &refusal{path, "is not a directory", ErrRefused}
	}
	opened, err := open(name)
	if err != nil {
		return nil, err
	}
	now, err := opened.Stat(".")
	if err == nil {
		err = refuseDirectory(path, before, now)
	}
	if err != nil {
		return nil, errors.Join(err, opened.Close())
	}
	return opened, nil
}

// refuseDirectory returns why the directory that is open must not be used. before is what was at its path.
func refuseDirectory(path string, before, now fs.FileInfo) error {
	st, ok := now.Sys().(*syscall.Stat_t)
	switch {
	case !ok || !os.SameFile(before, now):
		return &refusal{path, "is another directory by now", ErrRefused}
	case !trusted(st.Uid):
		return &refusal{path, fmt.Sprintf("belongs to another user (uid %d)", st.Uid), ErrRefused}
	case now.Mode().Perm()&0o022 != 0:
		return &refusal{path, fmt.Sprintf("can be changed by others (mode %04o)", now.Mode().Perm()), ErrRefused}
	}
	return nil
}

// OwnFile opens the regular file with this name in the directory root for reading and writing, and makes it
// with mode 0600 if nothing is there. The error wraps [ErrRefused] if the file is not a regular one,
// belongs to neither this user nor root, or has several names.
func OwnFile(root *os.Root, name string) (*os.File, error) {
	before, err := root.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return root.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	}
	if err != nil {
		return nil, err
	}
	path := filepath.Join(root.Name(), name)
	if err := refuseFile(path, before); err != nil {
		return nil, err
	}
	f, err := root.OpenFile(name, os.O_RDWR|unix.O_NONBLOCK, 0) // a FIFO may be there by now
	if err != nil {
		return nil, err
	}
	now, err := f.Stat()
	if err == nil && !os.SameFile(before, now) {
		err = &refusal{path, "is another file by now", ErrRefused}
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func refuseFile(path string, info fs.FileInfo) error {
	st, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !ok || !info.Mode().IsRegular():
		return &refusal{path, "is not a regular file", ErrRefused}
	case !trusted(st.Uid):
		return &refusal{path, fmt.Sprintf("belongs to another user (uid %d)", st.Uid), ErrRefused}
	case st.Nlink > 1:
		return &refusal{path, "has another name, too (a hard link)", ErrRefused}
	}
	return nil
}
