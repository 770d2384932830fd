package load_test

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/test/tcplab"
)

var (
	crowdNamespaces = flag.Int("namespaces", 50, "network namespaces with a listener each, of a large host; at most 18,000")
	crowdCgroups    = flag.Int("cgroups", 50, "cgroups with a listener each, of a large host; at most 18,000")
)

// TestScale_StartMemory starts each command on a host with many sockets, network namespaces and
// cgroups, and reports the most memory that it has had. The whole list of sockets must come.
//
// The sockets are in a table of their own (net.ipv4.tcp_child_ehash_entries). In the table that the
// namespaces share, the kernel would pass all of them again for each namespace of a snapshot.
func TestScale_StartMemory(t *testing.T) {
	tcplab.RequireRoot(t)
	if err := tcplab.CheckOwnTable(); err != nil {
		tcplab.SkipUnlessCI(t, "needs hash tables of single network namespaces, since Linux 6.1: "+err.Error())
	}
	privateMounts(t)
	began := time.Now()
	open(t, tcplab.NewNetnsWithTable(t, 1<<18), *sockets/2)
	keep(t, crowd{Namespaces: *crowdNamespaces, Directory: memoryDirectory(t)})
	keep(t, crowd{Cgroups: *crowdCgroups, Directory: cgroupDirectory(t)})
	t.Logf("%s. %d sockets, %d network namespaces, %d cgroups, made in %v.", machine(), *sockets, *crowdNamespaces, *crowdCgroups, time.Since(began).Round(time.Second))
	for _, arguments := range [][]string{
		{"trace", "--only", "transition"},
		{"trace", "--only", "alert,stats", "--stats-interval", "1s"},
	} {
		began := time.Now()
		peak, cpu := peakMemory(t, arguments, untilSeeded)
		t.Logf("tcpshift %s: %d MB at most; its start is over after %v, with %v of CPU time",
			strings.Join(arguments, " "), peak>>20, time.Since(began).Round(10*time.Millisecond), cpu.Round(10*time.Millisecond))
	}
	began, lines := time.Now(), 0
	peak, cpu := peakMemory(t, []string{"snapshot"}, func(_ []string, output *bufio.Scanner) {
		for output.Scan() {
			lines++
		}
	})
	t.Logf("tcpshift snapshot: %d MB at most, %d records in %v, with %v of CPU time", peak>>20, lines, time.Since(began).Round(10*time.Millisecond), cpu.Round(10*time.Millisecond))
	if least := *sockets + *crowdNamespaces + *crowdCgroups; lines < least {
		t.Errorf("the snapshot has %d sockets, want at least %d", lines, least)
	}
}

// privateMounts moves the calling thread, which stays the test's, to a mount namespace of its own, and with it
// the processes that the test starts. The kernel removes what they mount with the last of them, however it ends.
func privateMounts(t *testing.T) {
	t.Helper()
	runtime.LockOSThread() // never unlocked, so that the thread ends with the test
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		t.Fatalf("make a mount namespace: %v", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatalf("make the mounts private: %v", err)
	}
}

// memoryDirectory makes a directory in memory, which is gone when it is no longer mounted.
func memoryDirectory(t *testing.T) string {
	t.Helper()
	directory := t.TempDir()
	if err := unix.Mount("tmpfs", directory, "tmpfs", 0, "size=64m"); err != nil {
		t.Fatalf("mount a directory in memory: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(directory, unix.MNT_DETACH) })
	return directory
}

// untilSeeded reads until the start record; where detection is on, until the first stats record
// after it has read all sockets that existed at the start.
func untilSeeded(arguments []string, output *bufio.Scanner) {
	for output.Scan() {
		var r struct {
			Type     string `json:"type"`
			SeededNs uint64 `json:"seeded_after_ns"`
		}
		if json.Unmarshal(output.Bytes(), &r) == nil && (r.SeededNs > 0 || r.Type == "start" && len(arguments) == 3) {
			return
		}
	}
}

// peakMemory runs tcpshift until read returns, and returns the greatest RssAnon: its memory without
// the ring buffers that it maps. The kernel keeps no maximum of that, so the test looks every 10 ms.
// cpu is the CPU time of tcpshift.
func peakMemory(t *testing.T, arguments []string, read func(arguments []string, output *bufio.Scanner)) (peak int64, cpu time.Duration) {
	t.Helper()
	cmd := exec.Command(tcpshift, arguments...)
	cmd.Stderr = os.Stderr
	output, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		lines := bufio.NewScanner(output)
		read(arguments, lines)
		_ = cmd.Process.Signal(unix.SIGINT)
		_, _ = io.Copy(io.Discard, output)
	}()
	for ended := false; !ended; {
		select {
		case <-done:
			ended = true
		case <-time.After(10 * time.Millisecond):
			peak = max(peak, anonymous(cmd.Process.Pid))
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("tcpshift %s: %v", arguments[0], err)
	}
	return peak, cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
}

// anonymous returns RssAnon of a process in bytes, 0 if it has ended.
func anonymous(pid int) int64 {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(b)) {
		if rest, found := strings.CutPrefix(line, "RssAnon:"); found {
			kib, _ := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			return kib << 10
		}
	}
	return 0
}

// crowd is what a process of [keep] makes and keeps.
type crowd struct {
	Namespaces, Cgroups int
	Directory           string // of the mounts of namespaces, or of the cgroups
}

// crowdEnv turns this test binary into a process that keeps a [crowd], given as JSON, until its
// standard input ends.
const crowdEnv = "TCPSHIFT_TEST_KEEP_CROWD"

// keep starts a process that makes a crowd, and waits until it is there.
func keep(t *testing.T, c crowd) {
	t.Helper()
	text, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	startKeeper(t, crowdEnv+"="+string(text))
}

// keepCrowd is the process that keep starts. Only the end of its standard input ends it, so that it
// removes its cgroups also if a signal or kill -9 has ended the test.
func keepCrowd(text string) error {
	signal.Ignore(unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGPIPE)
	var c crowd
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		return err
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = io.Copy(io.Discard, os.Stdin)
	}()
	runtime.LockOSThread() // the namespace is the thread's
	leaves, err := c.enterAll(ended)
	defer func() {
		for _, leave := range slices.Backward(leaves) {
			leave()
		}
		_ = os.Remove(c.Directory) // a cgroup
	}()
	if err != nil {
		return err
	}
	fmt.Println("open")
	<-ended
	return nil
}

// enterAll makes the crowd, unless ended is closed before it is there. The caller must call the
// functions in leaves, the last one first, also after an error.
func (c crowd) enterAll(ended <-chan struct{}) (leaves []func(), err error) {
	enter := c.enterNamespace
	if c.Cgroups > 0 {
		enter = c.enterCgroup
	}
	for i := range c.Namespaces + c.Cgroups {
		select {
		case <-ended:
			return leaves, nil
		default:
		}
		leave, err := enter(filepath.Join(c.Directory, strconv.Itoa(i)))
		if err != nil {
			return leaves, err
		}
		l, err := net.Listen("tcp4", "0.0.0.0:0")
		leaves = append(leaves, func() {
			if err == nil {
				l.Close()
			}
			leave()
		})
		if err != nil {
			return leaves, err
		}
	}
	return leaves, nil
}

// enterNamespace makes a network namespace and mounts it at path, as ip-netns(8) and container
// runtimes do. The mount ends with the mount namespace of the test: to remove 10,000 one by one takes minutes.
func (c crowd) enterNamespace(path string) (leave func(), err error) {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return nil, fmt.Errorf("make a network namespace: %w", err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		return nil, err
	}
	if err := unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, ""); err != nil {
		return nil, fmt.Errorf("mount a network namespace: %w", err)
	}
	return func() {}, nil
}

// enterCgroup makes a cgroup and moves this process into it. leave moves it to the cgroup above, and
// removes the cgroup.
func (c crowd) enterCgroup(path string) (leave func(), err error) {
	if err := os.Mkdir(path, 0o755); err != nil {
		return nil, err
	}
	join := func(directory string) error {
		return os.WriteFile(filepath.Join(directory, "cgroup.procs"), []byte("0"), 0o600)
	}
	return func() {
		_ = join(filepath.Dir(path))
		_ = os.Remove(path)
	}, join(path)
}

// cgroupDirectory makes a cgroup v2 for the cgroups of a test, in a mount of its own: the host may have
// mounted none.
func cgroupDirectory(t *testing.T) string {
	t.Helper()
	mount := t.TempDir()
	if err := unix.Mount("cgroup2", mount, "cgroup2", 0, ""); err != nil {
		t.Fatalf("mount cgroup v2: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(mount, unix.MNT_DETACH) })
	directory, err := os.MkdirTemp(mount, "tcpshift-crowd-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(directory) })
	return directory
}
