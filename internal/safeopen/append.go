package safeopen

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// Append opens the file at path for appending, and creates it with these permissions if
// nothing is there. Opening a FIFO waits until a process reads it, or ctx is done. Links are
// followed: the operator has given the path. A link that leads nowhere is an error, and so is
// the file of another user in a directory such as /tmp.
func Append(ctx context.Context, path string, permissions uint32) (*os.File, error) {
	const flags = unix.O_WRONLY | unix.O_APPEND
	r, err := find(path)
	for tries := 3; errors.Is(err, unix.ENOENT) && tries > 0; tries-- {
		var f *os.File
		// O_EXCL: a file that appears meanwhile is looked at before it is opened.
		f, err = os.OpenFile(path, flags|unix.O_CREAT|unix.O_EXCL|always, os.FileMode(permissions))
		if !errors.Is(err, unix.EEXIST) {
			return f, err
		}
		r, err = find(path)
	}
	if err != nil {
		return nil, err
	}
	st, err := r.stat()
	if err == nil && r.isPlanted(&st) {
		err = &os.PathError{Op: "open", Path: path, Err: unix.EACCES}
	}
	if err != nil || st.Mode&unix.S_IFMT != unix.S_IFIFO {
		defer r.close()
		if err != nil {
			return nil, err
		}
		return r.open(flags)
	}
	return openFIFO(ctx, r, flags)
}

// isPlanted reports whether a regular file or FIFO may have been put there by another user
// for this one to write to: its directory is sticky, and others may write to it. The kernel
// refuses that only with O_CREAT (may_create_in_sticky in fs/namei.c, the sysctls
// fs.protected_regular and fs.protected_fifos), and Append opens an existing file without it.
func (r reference) isPlanted(st *unix.Stat_t) bool {
	kind := st.Mode & unix.S_IFMT
	if kind != unix.S_IFREG && kind != unix.S_IFIFO || int(st.Uid) == os.Geteuid() {
		return false
	}
	path, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(r.fd))
	var dir unix.Stat_t
	if err != nil || !filepath.IsAbs(path) || unix.Stat(filepath.Dir(path), &dir) != nil {
		return false // a pipe is in no directory
	}
	const othersWrite = unix.S_IWGRP | unix.S_IWOTH
	return dir.Mode&unix.S_ISVTX != 0 && dir.Mode&othersWrite != 0 && dir.Uid != st.Uid
}

// openFIFO closes r.
func openFIFO(ctx context.Context, r reference, flags int) (*os.File, error) {
	type result struct {
		file *os.File
		err  error
	}
	opened := make(chan result, 1)
	go func() { // open(2) of a FIFO blocks until it has a reader
		defer r.close()
		f, err := r.open(flags)
		opened <- result{f, err}
	}()
	select {
	case o := <-opened:
		return o.file, o.err
	case <-ctx.Done():
		return nil, fmt.Errorf("open %s: no process reads this FIFO: stopped waiting at %w", r.path, context.Cause(ctx))
	}
}

// NonblockingPipe opens the pipe or FIFO that fd refers to once more, with O_NONBLOCK, and
// returns the new descriptor, which the caller must close. fd stays as it is: O_NONBLOCK on fd
// itself would also apply to the other processes that share its open file description.
func NonblockingPipe(fd int) (int, error) {
	return unix.Open("/proc/self/fd/"+strconv.Itoa(fd), unix.O_WRONLY|unix.O_NONBLOCK|always, 0)
}
