// Package netns finds the network namespaces of this host and runs functions in them.
// It makes no namespace, and keeps none open but that of the process. A thread that enters one
// runs one function there and returns.
package netns

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/internal/privilege"
	"github.com/tcpshift/tcpshift/internal/safeopen"
)

// Namespace is a network namespace that was found. It is not open, and may be gone by now.
// Its methods are safe for concurrent use.
type Namespace struct {
	Inode uint32
	Path  string // where it was found; Do enters it there
	// Required means that the caller of Find has named it. A namespace that only happened
	// to be there may be gone a moment later.
	Required bool
}

// ErrGone is the error of a namespace that is no longer where it was found.
var ErrGone = errors.New("it is no longer where it was found")

// ErrNotFound is the error of a namespace that no process, thread, open file or mount leads to.
var ErrNotFound = errors.New("it no longer exists, or this process may not inspect those in it (CAP_SYS_PTRACE)")

// errNoProc is the error of a search without anything to search in.
var errNoProc = errors.New("there is no /proc: mount it (mount -t proc proc /proc)")

// Find returns the namespaces with these inodes, or all that can be found if inodes is
// empty; those of the oldest processes come first. It fails if one of inodes cannot be found, with
// [ErrNotFound] unless this process can open no further file or there is no /proc.
// A namespace is found by its processes, threads, open files and mounts, but not if only
// a socket or kernel thread refers to it.
func Find(inodes []uint32) ([]Namespace, error) {
	var w walk
	all := w.find(inodes)
	if w.err != nil && (len(inodes) == 0 || len(all) < len(inodes)) {
		return nil, fmt.Errorf("find network namespaces: %w", privilege.ExplainLimit(w.err))
	}
	if len(all) == 0 && !hasProc() {
		return nil, fmt.Errorf("find network namespaces: %w", errNoProc)
	}
	for _, inode := range inodes {
		if !slices.ContainsFunc(all, func(n Namespace) bool { return n.Inode == inode }) {
			return nil, fmt.Errorf("find network namespace %d: %w", inode, ErrNotFound)
		}
	}
	if len(all) == 0 {
		return nil, errors.New("find network namespaces: this process may inspect no process in /proc (CAP_SYS_PTRACE)")
	}
	return all, nil
}

// hasProc reports whether /proc is what it should be.
func hasProc() bool {
	dir, err := safeopen.ProcDir("/proc")
	if err != nil {
		return isTemporary(err)
	}
	return dir.Close() == nil
}

// FindExisting is like Find, but skips the namespaces that cannot be found.
func FindExisting(inodes []uint32) []Namespace {
	var w walk
	return w.find(inodes)
}

// All yields the namespaces that [Find] would return, each as soon as it is found; fewer
// if this process can open no further file.
func All(yield func(Namespace) bool) {
	var w walk
	w.namespaces(yield)
}

// OfProcesses returns the namespaces of processes, and those that are mounted: one system call for each
// process. It leaves out what only threads, open files or sockets refer to; [Find] costs much more.
func OfProcesses() (all []Namespace) {
	var w walk
	seen := make(map[uint32]bool)
	w.cheap(func(r reference) bool {
		if r != pause && !seen[r.inode] {
			seen[r.inode] = true
			all = append(all, Namespace{Inode: r.inode, Path: r.path})
		}
		return true
	})
	return all
}

// Check fails as [Find] does if there is no namespace with this inode, or it cannot be found. A
// namespace that only a socket or kernel thread refers to exists, but cannot be found.
func Check(inode uint32) error {
	_, err := Find([]uint32{inode})
	return err
}

// Do runs f on a thread in the namespace, and returns its error. No other goroutine runs on
// that thread while it is there. f must not start goroutines that need the
// namespace. The namespace is open only until the thread has entered it. Do fails with
// [ErrGone] if the namespace is no longer at Path.
func (n Namespace) Do(f func() error) error {
	result := make(chan error, 1)
	onOwnThread(func() {
		if err := n.enter(); err != nil {
			result <- fmt.Errorf("enter network namespace %d: %w", n.Inode, err)
			return
		}
		result <- f()
	})
	return <-result
}

// enter moves the calling thread into the namespace.
func (n Namespace) enter() error {
	file, err := safeopen.Netns(n.Path, n.Inode)
	switch {
	case isTemporary(err):
		return privilege.ExplainLimit(err)
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return err
	case err != nil:
		return fmt.Errorf("%w: %w", ErrGone, err)
	}
	defer file.Close()
	return unix.Setns(int(file.Fd()), unix.CLONE_NEWNET)
}

// isTemporary reports whether an error is that this process (EMFILE) or the host (ENFILE) can
// open no further file, and not about the file.
func isTemporary(err error) bool {
	return errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE)
}
