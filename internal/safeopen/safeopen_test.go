package safeopen

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// timeout bounds every wait. Only a failing test waits that long.
const timeout = 10 * time.Second

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	const why = "making a namespace or a mount needs root"
	if os.Getenv("CI") == "true" {
		t.Fatal(why + ", and CI=true wants every test to run")
	}
	t.Skip(why)
}

// opened counts how often the file is opened while f runs.
func opened(t *testing.T, path string, f func()) (count int) {
	t.Helper()
	watch, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(watch)
	if _, err := unix.InotifyAddWatch(watch, path, unix.IN_OPEN); err != nil {
		t.Fatal(err)
	}
	f()
	buf := make([]byte, 64<<10)
	n, err := unix.Read(watch, buf)
	if err != nil && !errors.Is(err, unix.EAGAIN) {
		t.Fatal(err)
	}
	return max(0, n) / unix.SizeofInotifyEvent // of the file itself, so without a name
}

// withinTime fails if f waits for anything.
func withinTime(t *testing.T, f func() error) (err error) {
	t.Helper()
	result := make(chan error, 1)
	go func() { result <- f() }()
	select {
	case err = <-result:
	case <-time.After(timeout):
		t.Fatalf("still waiting after %v", timeout)
	}
	return err
}

// openers are the functions that look for a file of one kind.
var openers = map[string]func(path string) error{
	"Netns":      func(path string) error { return closed(Netns(path, 1)) },
	"NetnsInode": func(path string) error { _, err := NetnsInode(path); return err },
	"CgroupID":   func(path string) error { _, err := CgroupID(path); return err },
	"ProcDir":    func(path string) error { return closed(ProcDir(path)) },
}

func closed(f *os.File, err error) error {
	if err == nil {
		_ = f.Close()
	}
	return err
}

// A file of another kind is refused and not opened: not at its path, nor through a symbolic
// link, nor through a descriptor of another process.
func TestOpen_NeverOpensAnotherKind(t *testing.T) {
	dir := t.TempDir()
	regular, fifo := filepath.Join(dir, "regular"), filepath.Join(dir, "fifo")
	if err := errors.Join(os.WriteFile(regular, []byte("x"), 0o600), unix.Mkfifo(fifo, 0o600)); err != nil {
		t.Fatal(err)
	}
	// Before Linux 6.10, unless fixed, O_PATH counts as well (commit 702eb71fd650).
	counts := opened(t, regular, func() { mustDo(t, closed(os.OpenFile(regular, unix.O_PATH, 0))) }) == 0
	for _, path := range []string{regular, fifo} {
		both, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { both.Close() })
		link := path + ".link"
		if err := os.Symlink(path, link); err != nil {
			t.Fatal(err)
		}
		if n := opened(t, path, func() { _ = closed(os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)) }); n == 0 {
			t.Fatalf("inotify does not report that %s is opened", path)
		}
		for name, open := range openers {
			for _, way := range []string{path, link, fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), both.Fd())} {
				var err error
				n := opened(t, path, func() { err = withinTime(t, func() error { return open(way) }) })
				if err == nil || counts && n > 0 {
					t.Errorf("%s(%s) opens it %d times and returns %v, want an error", name, way, n, err)
				}
			}
		}
	}
	n := opened(t, fifo, func() { _, err := ReadFile(fifo); checkOtherKind(t, err) })
	if _, err := ReadFile(regular + ".link"); counts && n > 0 || err == nil {
		t.Errorf("ReadFile opens a FIFO %d times, and follows a link: %v", n, err)
	}
}

func checkOtherKind(t *testing.T, err error) {
	t.Helper()
	if !errors.Is(err, ErrOtherKind) {
		t.Errorf("the error is %v, want %v", err, ErrOtherKind)
	}
}

// No terminal becomes the controlling one, neither one that is refused nor one that is the
// output. Only the leader of a session without a terminal could get one.
func TestOpen_NoControllingTerminal(t *testing.T) {
	const isChild = "TCPSHIFT_TEST_TERMINAL"
	if path := os.Getenv(isChild); path != "" {
		checkNoTerminal(t, path)
		return
	}
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("there is no pseudo-terminal: %v", err)
	}
	defer master.Close()
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	child := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	child.Env = append(os.Environ(), fmt.Sprintf("%s=/dev/pts/%d", isChild, n))
	child.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if out, err := child.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Errorf("in a session of its own: %v\n%s", err, out)
	}
}

func checkNoTerminal(t *testing.T, path string) {
	t.Helper()
	for name, open := range openers {
		if err := open(path); err == nil {
			t.Errorf("%s(%s) succeeds", name, path)
		}
	}
	f, _, err := Append(t.Context(), path, 0o600, false)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := closed(os.OpenFile("/dev/tty", os.O_RDWR|unix.O_NOCTTY, 0)); !errors.Is(err, unix.ENXIO) {
		t.Errorf("opening the controlling terminal returns %v, want %v: there is none", err, unix.ENXIO)
	}
}

// newNetns makes a network namespace and returns a descriptor of it and its inode number.
func newNetns(t *testing.T) (f *os.File, inode uint32) {
	t.Helper()
	needRoot(t)
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with its namespace
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			f, err = os.Open("/proc/thread-self/ns/net")
		}
		result <- err
	}()
	if err := <-result; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	return f, uint32(st.Ino)
}

// A namespace is opened at each kind of path at which one is found, and only if it is the one
// that is meant.
func TestNetns_OnlyTheOneMeant(t *testing.T) {
	f, inode := newNetns(t)
	ns := fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), f.Fd())
	own := fmt.Sprintf("/proc/%d/ns/net", os.Getpid())
	here, err := NetnsInode(own)
	if err != nil {
		t.Fatal(err)
	}
	for path, meant := range map[string]uint32{ns: inode, own: here, own[:len(own)-len("ns/net")] + "task/" + fmt.Sprint(os.Getpid()) + "/ns/net": here} {
		if err := closed(Netns(path, meant)); err != nil {
			t.Errorf("Netns(%s, %d): %v", path, meant, err)
		}
		if got, err := NetnsInode(path); err != nil || got != meant {
			t.Errorf("NetnsInode(%s) returns %d, %v; want %d", path, got, err, meant)
		}
		_, err := Netns(path, meant+1)
		checkOtherKind(t, err)
	}
	for _, path := range []string{"/proc/self/ns/pid", "/proc/self/ns/mnt"} {
		_, err := NetnsInode(path)
		checkOtherKind(t, err)
	}
	_, err = Netns(fmt.Sprintf("/proc/%d/exe", os.Getpid()), inode)
	checkOtherKind(t, err)
	f.Close()
	if err := closed(Netns(ns, inode)); err == nil { // another file may have its number by now
		t.Error("a descriptor that was closed is found")
	}
}

// A mount entry that was replaced is refused: by another namespace, by a FIFO, by a link.
func TestNetns_MountReplaced(t *testing.T) {
	const isChild = "TCPSHIFT_TEST_MOUNTS"
	needRoot(t)
	dir := os.Getenv(isChild)
	if dir == "" {
		child := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
		child.Env = append(os.Environ(), isChild+"="+t.TempDir())
		child.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
		if out, err := child.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
			t.Errorf("in its own mount namespace: %v\n%s", err, out)
		}
		return
	}
	f, inode := newNetns(t)
	other, _ := newNetns(t)
	path, fifo := filepath.Join(dir, "netns"), filepath.Join(dir, "fifo")
	mount := func(from string) { mustDo(t, unix.Mount(from, path, "", unix.MS_BIND, "")) }
	mustDo(t, os.WriteFile(path, nil, 0o600), unix.Mkfifo(fifo, 0o600))
	mount(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
	mustDo(t, closed(Netns(path, inode)))
	mount(fmt.Sprintf("/proc/self/fd/%d", other.Fd()))
	_, err := Netns(path, inode)
	checkOtherKind(t, err)
	mount(fifo)
	checkOtherKind(t, withinTime(t, func() error { return closed(Netns(path, inode)) }))
	mustDo(t, unix.Unmount(path, 0), unix.Unmount(path, 0), unix.Unmount(path, 0), os.Remove(path))
	mustDo(t, os.Symlink(fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), f.Fd()), path))
	if err := closed(Netns(path, inode)); !errors.Is(err, unix.ELOOP) {
		t.Errorf("a link instead of the mount: %v, want %v", err, unix.ELOOP)
	}
	if got, err := NetnsInode(path); err != nil || got != inode {
		t.Errorf("a link that the operator names returns %d, %v; want %d", got, err, inode)
	}
}

func mustDo(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// Descriptors are not inherited, and none stays open after an error.
func TestOpen_Descriptors(t *testing.T) {
	f, _, err := Append(t.Context(), filepath.Join(t.TempDir(), "records"), 0o600, false)
	mustDo(t, err)
	defer f.Close()
	dir, err := ProcDir(fmt.Sprintf("/proc/%d/fd", os.Getpid()))
	mustDo(t, err)
	defer dir.Close()
	for _, f := range []*os.File{f, dir} {
		if flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
			t.Errorf("%s is inherited: flags %#x, %v", f.Name(), flags, err)
		}
	}
	count := func() int {
		names, err := os.ReadDir("/proc/self/fd")
		mustDo(t, err)
		return len(names)
	}
	before := count()
	for range 3 {
		for _, open := range openers {
			for _, path := range []string{"/dev/null", "/proc/self/status", "/proc/1/ns/gone", fmt.Sprintf("/proc/%d/ns/pid", os.Getpid())} {
				_ = open(path)
			}
		}
	}
	if after := count(); after != before {
		t.Errorf("%d descriptors are open, %d were before", after, before)
	}
}

// Without openat2(2), which some seccomp filters refuse, a path is resolved as with it.
func TestFindWithoutLinks_StepByStep(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "a", "b"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "a", "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for link, target := range map[string]string{"to-a": "a", "a/to-b": "b", "loop": "loop"} {
		if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(dir)
	for _, path := range []string{
		"/", ".", "a", "a/b", "a/b/..", "./a//b/", "a/file", "a/file/x", "missing", "a/missing", "missing/a",
		"to-a", "to-a/b", "a/to-b", "loop", filepath.Join(dir, "a"), filepath.Join(dir, "to-a", "b"),
		"/proc/self", "/proc/1/fd", "/proc/" + strconv.Itoa(os.Getpid()) + "/fd", "/proc/" + strconv.Itoa(os.Getpid()) + "/exe",
	} {
		want, wantErr := findWithoutLinks(path)
		got, err := stepWithoutLinks(path)
		if !errors.Is(err, unwrapErrno(wantErr)) || (err == nil) != (wantErr == nil) {
			t.Errorf("%s: %v, want %v", path, err, wantErr)
			continue
		}
		if err != nil {
			continue
		}
		a, _ := want.stat()
		b, _ := got.stat()
		if a.Ino != b.Ino || a.Dev != b.Dev {
			t.Errorf("%s: it leads to another file", path)
		}
		want.close()
		got.close()
	}
}

// unwrapErrno returns the system's error in err, or nil.
func unwrapErrno(err error) error {
	var errno unix.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}
