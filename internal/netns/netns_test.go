package netns

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// timeout bounds every wait. Only a failing test waits that long.
const timeout = 10 * time.Second

// The main goroutine keeps the first thread until TestMain has tried Do on it.
func init() { runtime.LockOSThread() }

// firstThread is the result of Do while only the first thread of the process could run
// goroutines.
var firstThread error

func TestMain(m *testing.M) {
	runtime.UnlockOSThread()
	if count := os.Getenv(openFilesEnv); count != "" {
		openFiles(count)
	}
	if os.Geteuid() == 0 {
		firstThread = doFromFirstThread()
	}
	os.Exit(m.Run())
}

func doFromFirstThread() error {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	var st unix.Stat_t
	path := fmt.Sprintf("/proc/%d/ns/net", os.Getpid())
	if err := unix.Stat(path, &st); err != nil {
		return err
	}
	return Namespace{Inode: uint32(st.Ino), Path: path}.Do(notOnFirstThread)
}

func notOnFirstThread() error {
	if unix.Gettid() == unix.Getpid() {
		return errors.New("f runs on the first thread, which does not end")
	}
	return nil
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	const why = "making a namespace needs root"
	if os.Getenv("CI") == "true" {
		t.Fatal(why + ", and CI=true wants every test to run")
	}
	t.Skip(why)
}

// inodeAt reads the inode number from the link, unlike the code under test.
func inodeAt(t *testing.T, path string) (inode uint32) {
	t.Helper()
	target, err := os.Readlink(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscanf(target, "net:[%d]", &inode); err != nil {
		t.Fatalf("%s links to %q: %v", path, target, err)
	}
	return inode
}

func own(t *testing.T) uint32 { return inodeAt(t, "/proc/self/ns/net") }

// makeNetns makes a namespace and runs keep in it. When it returns, the only references
// to the namespace are those that keep has made.
func makeNetns(t *testing.T, keep func(path string) error) (inode uint32) {
	t.Helper()
	const path = "/proc/thread-self/ns/net"
	result, thread := make(chan error, 1), 0
	onOwnThread(func() {
		thread = unix.Gettid()
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			inode = inodeAt(t, path)
			err = keep(path)
		}
		result <- err
	})
	if err := <-result; err != nil {
		t.Fatalf("make a network namespace: %v", err)
	}
	await(t, "the end or the return of its thread", func() bool {
		target, err := os.Readlink(fmt.Sprintf("/proc/self/task/%d/ns/net", thread))
		return err != nil || target != fmt.Sprintf("net:[%d]", inode)
	})
	return inode
}

func await(t *testing.T, what string, happened func() bool) {
	t.Helper()
	for began := time.Now(); !happened(); runtime.Gosched() {
		if time.Since(began) > timeout {
			t.Fatalf("no %s within %v", what, timeout)
		}
	}
}

// openNetns makes a namespace whose only reference is the descriptor f.
func openNetns(t *testing.T) (inode uint32, f *os.File) {
	t.Helper()
	inode = makeNetns(t, func(path string) (err error) {
		f, err = os.Open(path)
		return err
	})
	t.Cleanup(func() { f.Close() })
	return inode, f
}

// find is Find with the result by inode.
func find(t *testing.T, inodes ...uint32) map[uint32]Namespace {
	t.Helper()
	all, err := Find(inodes)
	if err != nil {
		t.Fatal(err)
	}
	byInode := make(map[uint32]Namespace)
	for _, n := range all {
		if _, twice := byInode[n.Inode]; twice {
			t.Errorf("namespace %d is found twice", n.Inode)
		}
		byInode[n.Inode] = n
	}
	return byInode
}

// The namespace of this process is found once, although many processes are in it.
func TestFind_OwnNamespaceOnce(t *testing.T) {
	needRoot(t)
	if _, found := find(t)[own(t)]; !found {
		t.Errorf("namespace %d is not found", own(t))
	}
	if all := find(t, own(t)); len(all) != 1 {
		t.Errorf("%d namespaces are found, want the one asked for: %v", len(all), all)
	}
	if err := Check(own(t)); err != nil {
		t.Error(err)
	}
}

// A namespace is found by a thread, a descriptor or a mount, if that is its only
// reference.
func TestFind_AnyReference(t *testing.T) {
	needRoot(t)
	t.Run("a thread", func(t *testing.T) {
		makeNetns(t, func(path string) error { return check(inodeAt(t, path)) })
	})
	t.Run("a descriptor", func(t *testing.T) {
		inode, _ := openNetns(t)
		if err := check(inode); err != nil {
			t.Error(err)
		}
	})
	t.Run("a mount", func(t *testing.T) { inOwnMounts(t, checkMounts) })
}

// check checks what is true of every namespace that exists.
func check(inode uint32) error {
	if err := Check(inode); err != nil {
		return err
	}
	for _, wanted := range [][]uint32{{inode}, nil} {
		all, err := Find(wanted)
		if err != nil {
			return err
		}
		times := 0
		for _, n := range all {
			if n.Inode == inode {
				times++
			}
		}
		if times != 1 || wanted != nil && len(all) != 1 {
			return fmt.Errorf("Find(%v) returns %v, with %d %d times", wanted, all, inode, times)
		}
	}
	return nil
}

const mountsEnv = "TCPSHIFT_TEST_NETNS_MOUNTS"

// inOwnMounts runs f in a child process with its own mount namespace, so that its mounts
// end with it.
func inOwnMounts(t *testing.T, f func(t *testing.T, dir string)) {
	t.Helper()
	if dir := os.Getenv(mountsEnv); dir != "" {
		f(t, dir)
		return
	}
	child := exec.Command(os.Args[0], "-test.run=^"+strings.ReplaceAll(t.Name(), "/", "$/^")+"$", "-test.v")
	child.Env = append(os.Environ(), mountsEnv+"="+t.TempDir())
	child.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	out, err := child.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Errorf("in its own mount namespace: %v\n%s", err, out)
	}
}

func checkMounts(t *testing.T, dir string) {
	for _, name := range []string{"plain", "with a space", "tab\there", `back\slash`, "line\nend"} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		inode := makeNetns(t, func(ns string) error { return unix.Mount(ns, path, "", unix.MS_BIND, "") })
		if err := check(inode); err != nil {
			t.Errorf("mounted at %q: %v", path, err)
			continue
		}
		var st unix.Stat_t
		if err := find(t, inode)[inode].Do(func() error { return unix.Stat("/proc/thread-self/ns/net", &st) }); err != nil ||
			st.Ino != uint64(inode) {
			t.Errorf("mounted at %q: inside it is %d, want %d: %v", path, st.Ino, inode, err)
		}
	}
	checkHidden(t, filepath.Join(dir, "hidden"))
}

// checkHidden checks that a FIFO mounted over a namespace is neither taken for it nor
// waited for.
func checkHidden(t *testing.T, path string) {
	t.Helper()
	fifo := path + ".fifo"
	if err := errors.Join(os.WriteFile(path, nil, 0o600), unix.Mkfifo(fifo, 0o600)); err != nil {
		t.Fatal(err)
	}
	inode := makeNetns(t, func(ns string) error { return unix.Mount(ns, path, "", unix.MS_BIND, "") })
	if err := unix.Mount(fifo, path, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	found := make(chan error, 1)
	go func() {
		_, err := Find([]uint32{inode})
		found <- err
	}()
	select {
	case err := <-found:
		if err == nil {
			t.Error("a namespace is found although a FIFO is mounted over it")
		}
	case <-time.After(timeout):
		t.Error("still waiting for the writer of a FIFO")
	}
}

// A missing namespace is an error, even beside one that exists.
func TestFind_Missing(t *testing.T) {
	needRoot(t)
	for _, wanted := range [][]uint32{{0}, {1}, {own(t), 1}, {1, own(t)}} { // no namespace has the inode 0 or 1
		if all, err := Find(wanted); err == nil || all != nil {
			t.Errorf("Find(%v) returns %v, %v, want an error", wanted, all, err)
		}
	}
	for _, none := range []uint32{0, 1, 1<<32 - 1} {
		if err := Check(none); !errors.Is(err, ErrNotFound) {
			t.Errorf("namespace %d: %v, want that it is not found", none, err)
		}
	}
}

// Do runs its function in the namespace and returns its error. A namespace that is no longer
// at its path cannot be entered.
func TestDo_RunsInside(t *testing.T) {
	needRoot(t)
	inode, f := openNetns(t)
	n := find(t, inode)[inode]
	errInside := errors.New("inside")
	var inside uint32
	if err := n.Do(func() error {
		inside = inodeAt(t, "/proc/thread-self/ns/net")
		return errInside
	}); !errors.Is(err, errInside) || inside != inode {
		t.Errorf("inside is %d, the error %v; want %d, %v", inside, err, inode, errInside)
	}
	if here := inodeAt(t, "/proc/thread-self/ns/net"); here != own(t) {
		t.Errorf("afterwards this thread is in %d, want %d", here, own(t))
	}
	f.Close()
	if err := n.Do(func() error { t.Error("it ran"); return nil }); !errors.Is(err, ErrGone) {
		t.Errorf("entering a namespace that is gone returns %v, want %v", err, ErrGone)
	}
}

// Do leaves no thread of the process in another namespace.
func TestDo_LeavesNoThread(t *testing.T) {
	needRoot(t)
	inode, _ := openNetns(t)
	n := find(t, inode)[inode]
	home := own(t)
	if firstThread != nil {
		t.Error(firstThread)
	}
	// These are enough for each of the runtime's threads to be used, also the first.
	var wait sync.WaitGroup
	for range 200 {
		wait.Go(func() {
			if err := n.Do(notOnFirstThread); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	await(t, "return of every thread", func() bool {
		threads, err := filepath.Glob("/proc/self/task/*/ns/net")
		if err != nil || len(threads) == 0 {
			t.Fatalf("find threads: %v", err)
		}
		for _, path := range threads {
			target, err := os.Readlink(path)
			if err == nil && target != fmt.Sprintf("net:[%d]", home) {
				return false
			}
		}
		return true
	})
}

// Do starts no thread for each call: the runtime would end the process where none can be started.
func TestDo_ReusesItsThread(t *testing.T) {
	needRoot(t)
	inode, _ := openNetns(t)
	n := find(t, inode)[inode]
	threads := make(map[int]bool)
	for range 100 {
		if err := n.Do(func() error { threads[unix.Gettid()] = true; return nil }); err != nil {
			t.Fatal(err)
		}
	}
	if len(threads) > 2*maxVisitors {
		t.Errorf("100 calls ran on %d threads", len(threads))
	}
}

// Many namespaces are found and entered, and no descriptor stays open, except those with which
// the waiting threads return.
func TestFind_NoDescriptorLeak(t *testing.T) {
	needRoot(t)
	open := func() int {
		fds, err := filepath.Glob("/proc/self/fd/*")
		if err != nil {
			t.Fatal(err)
		}
		return len(fds)
	}
	var inodes []uint32
	for range 5 {
		inode, _ := openNetns(t)
		inodes = append(inodes, inode)
	}
	before := open()
	for range 3 {
		all, err := Find(inodes)
		if err != nil || len(all) != len(inodes) {
			t.Fatalf("%d are found, want %d: %v", len(all), len(inodes), err)
		}
		for _, n := range all {
			if err := n.Do(func() error { return nil }); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := Find(append(inodes, 1)); err == nil {
			t.Fatal("inode 1 is found")
		}
	}
	if after := open(); after > before+maxVisitors {
		t.Errorf("%d descriptors are open, %d were before", after, before)
	}
}

// Without a free descriptor, finding and entering a namespace fail with an error that names
// the limit.
func TestFind_NoDescriptorFree(t *testing.T) {
	needRoot(t)
	inode, _ := openNetns(t)
	n := find(t, inode)[inode]
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Setrlimit(unix.RLIMIT_NOFILE, &limit) })
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 3, Max: limit.Max}); err != nil {
		t.Fatal(err)
	}
	_, errFind := Find(nil)
	_, errFindOne := Find([]uint32{inode})
	errDo := n.Do(func() error { return nil })
	for what, err := range map[string]error{"Find of all": errFind, "Find of one": errFindOne, "Do": errDo} {
		if !errors.Is(err, unix.EMFILE) || errors.Is(err, ErrGone) ||
			!strings.Contains(err.Error(), "this process may have 3 files open: raise the limit (ulimit -n") {
			t.Errorf("%s: the error is %v, want one that names the limit", what, err)
		}
	}
}
