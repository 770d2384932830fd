package filter

import (
	"encoding/binary"
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

// unavailable skips a test that this host cannot run, unless CI=true.
func unavailable(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(what + ", and CI=true wants every test to run")
	}
	t.Skip(what)
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		unavailable(t, "making a namespace needs root")
	}
}

// netnsOf reads the inode number from the link, unlike the code under test.
func netnsOf(t *testing.T, path string) uint32 {
	t.Helper()
	target, err := os.Readlink(path)
	if err != nil {
		t.Fatal(err)
	}
	var ino uint32
	if _, err := fmt.Sscanf(target, "net:[%d]", &ino); err != nil {
		t.Fatalf("%s links to %q: %v", path, target, err)
	}
	return ino
}

// A network namespace is given by path, process or inode.
func TestNetns_PathProcessInode(t *testing.T) {
	want := netnsOf(t, "/proc/self/ns/net")
	for _, word := range []string{
		"/proc/self/ns/net", fmt.Sprintf("/proc/%d/ns/net", os.Getpid()), fmt.Sprintf("pid:%d", os.Getpid()), fmt.Sprintf("pid:00%d", os.Getpid()), fmt.Sprint(want),
	} {
		if got, err := ParseNetns(word); err != nil || got != want {
			t.Errorf("%q returns %d, %v; want %d", word, got, err, want)
		}
	}
}

// Words that are not an existing network namespace are refused.
func TestNetns_Refused(t *testing.T) {
	show := "; 'lsns -t net' and 'ls /run/netns' list them"
	names := func(word string) string {
		return word + " is not a network namespace: use an inode number, a path with a '/', pid:N, or a name that 'ip netns list' lists"
	}
	noPID := func(word string) string { return word + " is not a process id: use 1 to 4194304" }
	checkWords(t, ParseNetns, nil, bad{
		"":                       names(`""`),
		"blue":                   names(`"blue"`),
		"-1":                     names(`"-1"`),
		".":                      names(`"."`),
		"..":                     names(`".."`),
		"4294967296":             names(`"4294967296"`),
		strings.Repeat("x", 300): names(`"` + strings.Repeat("x", 300) + `"`),
		"pid":                    names(`"pid"`),
		"PID:1":                  names(`"PID:1"`),
		"0":                      "no network namespace has inode 0; 'lsns -t net' lists them",
		"1":                      "no network namespace has inode 1; 'lsns -t net' lists them",
		"pid:":                   noPID(`""`),
		"pid:0":                  noPID(`"0"`),
		"pid:self":               noPID(`"self"`),
		"pid:../1":               noPID(`"../1"`),
		"pid:4194304":            `"pid:4194304": there is no process 4194304`,
		"/run/netns/not-there":   `"/run/netns/not-there" is not a network namespace: open: no such file or directory` + show,
		"/proc/self/ns/pid":      `"/proc/self/ns/pid" is not a network namespace: the file is of another kind` + show,
		"/proc/self/status":      `"/proc/self/status" is not a network namespace: the file is of another kind` + show,
		"/":                      `"/" is not a network namespace: the file is of another kind` + show,
	})
}

// A FIFO is refused at once, without waiting for a writer.
func TestNetns_FIFO(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	refused := make(chan error, 1)
	go func() {
		_, err := ParseNetns(path)
		refused <- err
	}()
	select {
	case err := <-refused:
		if err == nil || !strings.Contains(err.Error(), "the file is of another kind") {
			t.Errorf("got the error %v, want that the file is of another kind", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("still waiting for a writer after 10 s, want an error at once")
	}
}

// inNewNetns runs f in a thread with a new network namespace. The thread returns to its
// namespace afterwards, or ends if that fails.
func inNewNetns(t *testing.T, f func(ino uint32)) {
	t.Helper()
	runtime.LockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	defer home.Close()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatalf("make a network namespace: %v", err)
	}
	f(netnsOf(t, "/proc/thread-self/ns/net"))
	if err := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); err != nil {
		t.Fatalf("return to the network namespace of the process: %v", err)
	}
	runtime.UnlockOSThread()
}

// The inode of a namespace that only a thread is in is accepted.
func TestNetns_OnlyThread(t *testing.T) {
	needRoot(t)
	inNewNetns(t, func(ino uint32) { checkInode(t, ino) })
}

// The inode of a namespace whose only reference is a descriptor is accepted.
func TestNetns_OnlyDescriptor(t *testing.T) {
	needRoot(t)
	var file *os.File
	var ino uint32
	inNewNetns(t, func(made uint32) {
		var err error
		if file, err = os.Open("/proc/thread-self/ns/net"); err != nil {
			t.Fatal(err)
		}
		ino = made
	})
	defer file.Close()
	checkInode(t, ino)
}

func checkInode(t *testing.T, ino uint32) {
	t.Helper()
	if got, err := ParseNetns(strconv.FormatUint(uint64(ino), 10)); err != nil || got != ino {
		t.Errorf("inode %d returns %d, %v", ino, got, err)
	}
}

// A namespace whose only reference is a mount is accepted by inode and by path. The
// mount is made in a child process, and ends with it.
func TestNetns_OnlyMount(t *testing.T) {
	needRoot(t)
	const isChild = "TCPSHIFT_TEST_NETNS_MOUNT"
	if path := os.Getenv(isChild); path != "" {
		checkMounted(t, path)
		return
	}
	path := filepath.Join(t.TempDir(), "netns")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	child := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	child.Env = append(os.Environ(), isChild+"="+path)
	child.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	out, err := child.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Errorf("in its own mount namespace: %v\n%s", err, out)
	}
}

// The path of a namespace that only another mount namespace has is refused: it would pass the
// filter, and nothing would find it later.
func TestNetns_MountedElsewhere(t *testing.T) {
	needRoot(t)
	path := filepath.Join(t.TempDir(), "netns")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	ready, done := filepath.Join(filepath.Dir(path), "ready"), filepath.Join(filepath.Dir(path), "done")
	const script = `unshare --net="$1" true && : >"$2" && while [ ! -e "$3" ]; do sleep 0.01; done`
	holder := exec.Command("sh", "-c", script, "sh", path, ready, done)
	holder.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = os.WriteFile(done, nil, 0o600), holder.Wait() })
	for began := time.Now(); ; time.Sleep(time.Millisecond) {
		if _, err := os.Stat(ready); err == nil {
			break
		}
		if time.Since(began) > 30*time.Second {
			unavailable(t, "unshare(1) has mounted no namespace")
		}
	}
	there := fmt.Sprintf("/proc/%d/root%s", holder.Process.Pid, path)
	_, err := ParseNetns(there)
	if want := strconv.Quote(there) + " is network namespace "; err == nil || !strings.HasPrefix(err.Error(), want) ||
		!strings.Contains(err.Error(), "no process and no mount in tcpshift's own mount namespace leads to it") {
		t.Errorf("%v, want %s…", err, want)
	}
}

// A namespace is accepted by the name that ip-netns(8) gives it. The name is mounted in a child
// process, which has its own /run.
func TestNetns_Name(t *testing.T) {
	needRoot(t)
	const isChild = "TCPSHIFT_TEST_NETNS_NAME"
	if os.Getenv(isChild) != "" {
		checkName(t, "blue")
		return
	}
	child := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	child.Env = append(os.Environ(), isChild+"=1")
	child.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	out, err := child.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Errorf("in its own mount namespace: %v\n%s", err, out)
	}
}

func checkName(t *testing.T, name string) {
	t.Helper()
	if err := unix.Mount("none", "/run", "tmpfs", 0, ""); err != nil {
		t.Fatalf("mount /run: %v", err)
	}
	for _, dir := range []string{netnsDir, filepath.Join(netnsDir, "a-directory")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(netnsDir, name)
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var ino uint32
	inNewNetns(t, func(made uint32) {
		if err := unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, ""); err != nil {
			t.Fatalf("bind-mount a network namespace: %v", err)
		}
		ino = made
	})
	if got, err := ParseNetns(name); err != nil || got != ino {
		t.Errorf("%q returns %d, %v; want %d", name, got, err, ino)
	}
	const other = `"/run/netns/a-directory" is not a network namespace: the file is of another kind`
	if _, err := ParseNetns("a-directory"); err == nil || !strings.HasPrefix(err.Error(), other) {
		t.Errorf("a directory returns the error %v, want %s…", err, other)
	}
}

// A user is a number or a name.
func TestParse_User(t *testing.T) {
	noUser := func(word string) string {
		return word + " is not a user: use a number from 0 to 4294967294, or a name in /etc/passwd"
	}
	checkWords(t, ParseUser, good[uint32]{"0": 0, "root": 0, "1234": 1234, "4294967294": 4294967294}, bad{
		"":             noUser(`""`),
		"-1":           noUser(`"-1"`),
		"4294967295":   noUser(`"4294967295"`),
		"4294967296":   noUser(`"4294967296"`),
		"no such user": noUser(`"no such user"`),
		"root\n":       noUser(`"root\n"`),
	})
}

func checkMounted(t *testing.T, path string) {
	t.Helper()
	var ino uint32
	inNewNetns(t, func(made uint32) {
		if err := unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, ""); err != nil {
			t.Fatalf("bind-mount a network namespace: %v", err)
		}
		ino = made
	})
	checkInode(t, ino)
	if got, err := ParseNetns(path); err != nil || got != ino {
		t.Errorf("%q returns %d, %v; want %d", path, got, err, ino)
	}
}

// cgroup2 is the mount point of cgroup v2, and this process's path below it.
func cgroup2(t *testing.T) (mount, own string) {
	t.Helper()
	for _, mount := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		var fs unix.Statfs_t
		if unix.Statfs(mount, &fs) != nil || fs.Type != unix.CGROUP2_SUPER_MAGIC {
			continue
		}
		groups, err := os.ReadFile("/proc/self/cgroup")
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(groups)) {
			if path, found := strings.CutPrefix(strings.TrimSpace(line), "0::"); found {
				return mount, path
			}
		}
	}
	unavailable(t, "this host has no cgroup v2 at its usual mount points")
	return "", ""
}

// cgroupID is the id in the kernfs file handle, as the kernel has it.
func cgroupID(t *testing.T, path string) uint64 {
	t.Helper()
	handle, _, err := unix.NameToHandleAt(unix.AT_FDCWD, path, 0)
	if err != nil {
		if errors.Is(err, unix.EPERM) {
			unavailable(t, "file handles are not permitted here")
		}
		t.Fatalf("get a handle of %s: %v", path, err)
	}
	return binary.NativeEndian.Uint64(handle.Bytes())
}

// A cgroup is given by its directory or by its path below the mount.
func TestCgroup_DirectoryOrPath(t *testing.T) {
	mount, own := cgroup2(t)
	for _, tt := range []struct{ word, directory string }{
		{own, filepath.Join(mount, own)},
		{filepath.Join(mount, own), filepath.Join(mount, own)},
		{filepath.Join(mount, own) + "/", filepath.Join(mount, own)},
		{"/", mount},
		{mount, mount},
	} {
		want := cgroupID(t, tt.directory)
		if got, err := ParseCgroup(tt.word); err != nil || got != want {
			t.Errorf("%q returns %d, %v; want %d, the id of %s", tt.word, got, err, want, tt.directory)
		}
	}
}

// Words that are not a cgroup v2 directory are refused.
func TestCgroup_Refused(t *testing.T) {
	mount, _ := cgroup2(t)
	relative := func(word string) string {
		return word + " is not a cgroup path: begin with '/', as in /proc/PID/cgroup"
	}
	none := func(word string) string {
		return "there is no cgroup v2 directory " + word + "; 'systemd-cgls' lists them"
	}
	words := bad{
		"":                            relative(`""`),
		"system.slice":                relative(`"system.slice"`),
		"0::/":                        relative(`"0::/"`),
		"/not-there.slice":            none(`"/not-there.slice"`),
		"/etc":                        none(`"/etc"`),
		"/etc/passwd":                 none(`"/etc/passwd"`),
		mount + "/cgroup.controllers": none(strconv.Quote(mount + "/cgroup.controllers")),
	}
	if mount != "/sys/fs/cgroup" {
		// This is the tmpfs with the v1 hierarchies.
		words["/sys/fs/cgroup"] = none(`"/sys/fs/cgroup"`)
	}
	checkWords(t, ParseCgroup, nil, words)
}
