// Package netns finds the network namespaces of this host and runs functions in them.
// It makes no namespace. A thread that has entered one ends there.
package netns

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"

	"golang.org/x/sys/unix"
)

// Namespace is an open network namespace. Its methods are safe for concurrent use.
type Namespace struct {
	Inode uint32
	Path  string // where it was found; Open tries it first
	file  *os.File
}

// Find opens the namespaces with these inodes, or all that can be found if inodes is
// empty. The caller must close them. It fails if one of inodes cannot be found. A
// namespace is found by its processes, threads, open files and mounts, but not if only
// a socket or kernel thread refers to it.
func Find(inodes []uint32) ([]Namespace, error) {
	all := FindExisting(inodes)
	for _, inode := range inodes {
		if !slices.ContainsFunc(all, func(n Namespace) bool { return n.Inode == inode }) {
			CloseAll(all)
			return nil, fmt.Errorf("find network namespace %d: it no longer exists, or this process may not inspect those in it (CAP_SYS_PTRACE)", inode)
		}
	}
	if len(all) == 0 {
		return nil, errors.New("find network namespaces: there is none in /proc: mount it (mount -t proc proc /proc)")
	}
	return all, nil
}

// FindExisting is like Find, but skips the namespaces that cannot be found.
func FindExisting(inodes []uint32) (all []Namespace) {
	found := make(map[uint32]bool)
	for inode, path := range candidates {
		if found[inode] || len(inodes) > 0 && !slices.Contains(inodes, inode) {
			continue
		}
		n, err := open(path, inode)
		if err != nil {
			continue // it is gone, or the path now leads to another file
		}
		found[inode] = true
		all = append(all, n)
		if len(all) == len(inodes) { // all found; the rest of the search is slow
			break
		}
	}
	return all
}

// CloseAll closes namespaces opened by Find.
func CloseAll(namespaces []Namespace) {
	for _, n := range namespaces {
		_ = n.Close() // nothing was written
	}
}

// Exists reports whether a namespace with this inode can be found.
func Exists(inode uint32) bool {
	for found := range candidates {
		if found == inode {
			return true
		}
	}
	return false
}

// Open opens the namespace with this inode at path, where it was found before, or
// searches for it if it is not there or path is empty. It fails as Find does.
func Open(inode uint32, path string) (Namespace, error) {
	if path != "" {
		if n, err := open(path, inode); err == nil {
			return n, nil
		}
	}
	found, err := Find([]uint32{inode})
	if err != nil {
		return Namespace{}, err
	}
	return found[0], nil
}

// open fails unless the file at path is the namespace with this inode: another file may
// have been mounted over it.
func open(path string, inode uint32) (Namespace, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0) // O_NONBLOCK: a FIFO would wait for a writer
	if err != nil {
		return Namespace{}, err
	}
	var st unix.Stat_t
	kind, err := unix.IoctlRetInt(int(f.Fd()), unix.NS_GET_NSTYPE)
	if err == nil {
		err = unix.Fstat(int(f.Fd()), &st)
	}
	if err != nil || kind != unix.CLONE_NEWNET || st.Ino != uint64(inode) {
		return Namespace{}, errors.Join(fmt.Errorf("%s is not network namespace %d", path, inode), err, f.Close())
	}
	return Namespace{Inode: inode, Path: path, file: f}, nil
}

// Do runs f on a thread in the namespace, and returns its error. The thread ends with
// f, so that no other goroutine runs there. f must not start goroutines that need the
// namespace.
func (n Namespace) Do(f func() error) error {
	result := make(chan error, 1)
	onOwnThread(func() {
		if err := unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET); err != nil {
			result <- fmt.Errorf("enter network namespace %d: %w", n.Inode, err)
			return
		}
		result <- f()
	})
	return <-result
}

// onOwnThread starts f on a thread that ends with f. It does not use the first thread of
// the process: that thread would not end, and /proc/PID/ns shows its namespace as that of
// the process.
func onOwnThread(f func()) {
	go func() {
		runtime.LockOSThread() // never unlocked, so that the thread ends with this goroutine
		if unix.Gettid() != unix.Getpid() {
			f()
			return
		}
		locked := make(chan struct{})
		go func() {
			runtime.LockOSThread()
			close(locked)
			f()
		}()
		<-locked // until then this goroutine occupies the first thread
		runtime.UnlockOSThread()
	}()
}

// Close closes the namespace, which cannot be entered any more.
func (n Namespace) Close() error {
	return n.file.Close()
}
