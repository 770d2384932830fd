// Package tcplab makes real TCP connections in network namespaces of its own and brings
// them into every state of the TCP state machine, one raw system call at a time, so
// that each step is deterministic on every kernel.
//
// It needs root and /proc, and works in a guest with a static binary only: no other
// program, no kernel module, no traffic control. It must not touch the host's own
// namespace, and does not depend on the tracer.
//
// A step that fails ends the test with the name of the system call. A Netns belongs to
// the test that made it, so a subtest makes its own.
package tcplab

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// RequireRoot skips a test that needs root. Under CI=true it fails the test instead,
// because a test that CI skips would never run.
func RequireRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		SkipUnlessCI(t, "needs root, to make network namespaces: run it with sudo")
	}
}

// SkipUnlessCI skips the test, because of what it lacks here. Under CI=true it fails the test.
func SkipUnlessCI(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(what)
	}
	t.Skip(what)
}

// Netns is a network namespace with loopback up. It has one thread.
type Netns struct {
	t     testing.TB
	inode uint32
	calls chan func()
	gone  chan struct{} // closed when the thread has exited
}

// NewNetns makes an empty namespace, which is removed after the test. One setting differs
// from the kernel's default: net.ipv4.tcp_rfc1337 is 1, so that a stray reset does not
// end a TIME_WAIT.
func NewNetns(t testing.TB) *Netns {
	t.Helper()
	return newNetns(t, func() error { return unix.Unshare(unix.CLONE_NEWNET) })
}

// tableSize is the number of hash buckets for a child of the namespace.
const tableSize = "/proc/sys/net/ipv4/tcp_child_ehash_entries"

// CheckOwnTable returns an error if a namespace cannot have its own hash table, which
// it can since Linux 6.1.
func CheckOwnTable() error {
	_, err := os.Stat(tableSize)
	return err
}

// NewCrowdedNetns makes a namespace with its own hash table, in which all established
// connections share one bucket.
func NewCrowdedNetns(t testing.TB) *Netns {
	t.Helper()
	return NewNetnsWithTable(t, 1)
}

// NewNetnsWithTable makes a namespace with its own hash table of connections, of so many buckets
// (a power of two). Other namespaces share one table.
func NewNetnsWithTable(t testing.TB, buckets int) *Netns {
	t.Helper()
	return newNetns(t, func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		if err := os.WriteFile(tableSize, []byte(strconv.Itoa(buckets)), 0); err != nil {
			return err
		}
		return unix.Unshare(unix.CLONE_NEWNET) // the child namespace, which has the table
	})
}

func newNetns(t testing.TB, unshare func() error) *Netns {
	t.Helper()
	RequireRoot(t)
	n := &Netns{t: t, calls: make(chan func()), gone: make(chan struct{})}
	ready := make(chan error)
	onOwnThread(func() { n.live(unshare, ready) })
	if err := <-ready; err != nil {
		t.Fatalf("new network namespace: %v", err)
	}
	t.Cleanup(func() {
		close(n.calls)
		<-n.gone
	})
	return n
}

// onOwnThread starts f on a thread that no other goroutine uses before or after; the
// runtime ends that thread with f. It is never the first thread of the process, which
// cannot exit, and whose namespace /proc/self shows.
func onOwnThread(f func()) {
	go func() {
		runtime.LockOSThread()
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
		<-taken // blocks the first thread until then
		runtime.UnlockOSThread()
	}()
}

// live is the body of the namespace's thread. The namespace ends with the thread.
func (n *Netns) live(unshare func() error, ready chan<- error) {
	defer close(n.gone)
	err := n.enter(unshare)
	ready <- err
	if err != nil {
		return
	}
	for call := range n.calls {
		call()
	}
}

func (n *Netns) enter(unshare func() error) error {
	if err := unshare(); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Stat("/proc/thread-self/ns/net", &st); err != nil {
		return fmt.Errorf("stat /proc/thread-self/ns/net: %w", err)
	}
	n.inode = uint32(st.Ino)
	// If a FIN overtakes a delayed ACK, the timewait socket answers to a peer that no
	// longer exists, and the peer's reset would end the timewait socket.
	if err := os.WriteFile("/proc/sys/net/ipv4/tcp_rfc1337", []byte("1"), 0); err != nil {
		return fmt.Errorf("sysctl: %w", err)
	}
	return setLoopback(true)
}

func setLoopback(up bool) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	defer unix.Close(fd)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(0)
	if up {
		lo.SetUint16(unix.IFF_UP)
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo); err != nil {
		return fmt.Errorf("ioctl SIOCSIFFLAGS lo: %w", err)
	}
	return nil
}

// Inode returns the inode of the namespace, as in /proc/PID/ns/net.
func (n *Netns) Inode() uint32 { return n.inode }

// Do runs f on the namespace's thread and waits for it. All calls of Do have the same
// thread id.
func (n *Netns) Do(f func()) {
	n.t.Helper()
	done, returned := make(chan struct{}), false
	call := func() {
		defer close(done)
		f()
		returned = true
	}
	select {
	case n.calls <- call:
		<-done
	case <-n.gone:
	}
	if !returned { // FailNow in f has ended the thread
		n.t.FailNow()
	}
}

// Threads runs f(0) to f(count-1) at once, each on a new thread of the namespace. It
// fails the test with the first error.
func (n *Netns) Threads(count int, f func(i int) error) {
	n.t.Helper()
	var home int
	var err error
	n.Do(func() { home, err = unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0) })
	n.must("open /proc/thread-self/ns/net", err)
	defer unix.Close(home)

	results := make(chan error)
	for i := range count {
		onOwnThread(func() {
			err := unix.Setns(home, unix.CLONE_NEWNET)
			if err == nil {
				err = f(i)
			}
			results <- err
		})
	}
	for range count {
		if e := <-results; err == nil {
			err = e
		}
	}
	n.must("thread", err)
}

// Sysctl sets a sysctl of this namespace, such as net.ipv4.tcp_fin_timeout, and returns
// the old value.
func (n *Netns) Sysctl(name, value string) (before string) {
	n.t.Helper()
	path := "/proc/sys/" + strings.ReplaceAll(name, ".", "/")
	var err error
	n.Do(func() {
		var old []byte
		if old, err = os.ReadFile(path); err == nil {
			err = os.WriteFile(path, []byte(value), 0)
		}
		before = strings.TrimSpace(string(old))
	})
	n.must("sysctl "+name, err)
	return before
}

func (n *Netns) must(call string, err error) {
	n.t.Helper()
	if err != nil {
		n.t.Fatalf("%s: %v", call, err)
	}
}
