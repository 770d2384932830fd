// Package netns finds the network namespaces of this host and runs functions in
// them. It never makes one, and never leaves a thread in a foreign one.
package netns

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"

	"golang.org/x/sys/unix"
)

// Namespace is one network namespace, open for entering.
type Namespace struct {
	Inode uint32
	Path  string // where it was found, and may be found again
	file  *os.File
}

// Find opens the namespaces with these inodes, or, without any, every one that
// can be found; the caller closes them. One that is held by a kernel thread or a
// socket alone does not show.
func Find(inodes []uint32) ([]Namespace, error) {
	all := FindSome(inodes)
	for _, inode := range inodes {
		if !slices.ContainsFunc(all, func(n Namespace) bool { return n.Inode == inode }) {
			CloseAll(all)
			return nil, fmt.Errorf("find network namespace %d: it does not show in /proc any more, or is not for this user to enter", inode)
		}
	}
	if len(all) == 0 {
		return nil, errors.New("find network namespaces: none shows in /proc, is it mounted, and are you root")
	}
	return all, nil
}

// FindSome is as Find, but does without those that it does not find.
func FindSome(inodes []uint32) (all []Namespace) {
	found := make(map[uint32]bool)
	for inode, path := range candidates {
		if found[inode] || len(inodes) > 0 && !slices.Contains(inodes, inode) {
			continue
		}
		n, err := open(path, inode)
		if err != nil {
			continue // gone in the meantime, or something else after all
		}
		found[inode] = true
		all = append(all, n)
		if len(all) == len(inodes) { // what is asked for: the search is long
			break
		}
	}
	return all
}

// CloseAll closes what Find has opened.
func CloseAll(namespaces []Namespace) {
	for _, n := range namespaces {
		_ = n.Close() // it was only read
	}
}

// Exists says whether a namespace with this inode can be found.
func Exists(inode uint32) bool {
	for found := range candidates {
		if found == inode {
			return true
		}
	}
	return false
}

// Open opens the namespace with this inode at the path where it was found before,
// and searches for it where it is not there any more, or the path is empty.
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

// open makes sure that it is this namespace: where it is mounted, there may be
// something else on top.
func open(path string, inode uint32) (Namespace, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0) // a FIFO would wait for a writer
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

// Do runs f on a thread that is in the namespace. The thread ends with f, so that
// nothing else ever runs there.
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

// onOwnThread starts f on a thread that ends with it. That is never the process's
// first one, which does not end, and whose namespace is shown as the process's.
func onOwnThread(f func()) {
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread dies with this goroutine
		if unix.Gettid() != unix.Getpid() {
			f()
			return
		}
		taken := make(chan struct{})
		go func() {
			runtime.LockOSThread()
			close(taken)
			f()
		}()
		<-taken // until then this goroutine keeps the first thread
		runtime.UnlockOSThread()
	}()
}

// Close lets go of the namespace.
func (n Namespace) Close() error {
	return n.file.Close()
}
