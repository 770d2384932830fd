package netns

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// openFilesEnv has the number of descriptors that a child process of a test opens.
const openFilesEnv = "TCPSHIFT_TEST_OPEN_FILES"

// openFiles opens as many descriptors as the environment says, reports that on standard
// output, and waits for the end of standard input.
func openFiles(count string) {
	var n int
	_, err := fmt.Sscan(count, &n)
	f, errOpen := os.Open("/dev/null")
	if err != nil || errOpen != nil {
		os.Exit(1)
	}
	for range n {
		if _, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	fmt.Println("open")
	_, _ = os.Stdin.Read(make([]byte, 1))
	os.Exit(0)
}

// withDescriptors starts processes that have this many descriptors together, until the test
// ends.
func withDescriptors(t *testing.T, count int) {
	t.Helper()
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	const spare = 100
	for each := int(min(limit.Max, 100_000)) - spare; count > 0; count -= each {
		childWithFiles(t, min(each, count), 0)
	}
}

// childWithFiles starts a process that has this many descriptors until the test ends, and
// returns its id.
func childWithFiles(t *testing.T, count int, cloneFlags uintptr) (pid int) {
	t.Helper()
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), fmt.Sprintf("%s=%d", openFilesEnv, count))
	child.SysProcAttr = &syscall.SysProcAttr{Cloneflags: cloneFlags}
	in, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := child.StdoutPipe()
	if err == nil {
		err = child.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = in.Close(), child.Wait() })
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatalf("a child that opens files: %q, %v", line, err)
	}
	return child.Process.Pid
}

// socketNetns makes a namespace that only a socket refers to, until the test ends.
func socketNetns(t *testing.T) (inode uint32) {
	t.Helper()
	var fd int
	inode = makeNetns(t, func(string) (err error) {
		fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		return err
	})
	t.Cleanup(func() { _ = unix.Close(fd) })
	return inode
}

// Namespaces that only sockets refer to cannot be found. However often the search is asked
// for them, and however many files are open on the host, it stays within its budget and finds
// another namespace at once.
func TestSearch_SocketsAlone(t *testing.T) {
	needRoot(t)
	const namespaces, descriptors, elapsed = 150, 400_000, 3 * time.Second
	var inodes []uint32
	for range namespaces {
		inodes = append(inodes, socketNetns(t))
	}
	withDescriptors(t, descriptors)
	s := NewSearch()
	defer s.Close()
	other, _ := openNetns(t) // by a descriptor: the costly part finds it
	usedAtStart, start, steps := cpuTime(t), time.Now(), 0
	for time.Since(start) < elapsed {
		for _, inode := range inodes {
			if _, status := s.Locate(inode); status == Found {
				t.Fatalf("namespace %d, which only a socket refers to, is found", inode)
			}
		}
		s.Locate(other)
		wait, more := s.StepDue()
		if !more {
			wait = time.Second // until it is asked again
		}
		time.Sleep(min(wait, time.Second))
		s.Step()
		steps++
	}
	used := cpuTime(t) - usedAtStart
	t.Logf("%v of CPU in %v, %d steps, %d cheap and %d costly walks", used, time.Since(start), steps, s.cheap.begun, s.costly.begun)
	if limit := searchCredit + time.Duration(float64(elapsed)*searchShare) + 10*searchSlice; used > limit {
		t.Errorf("the search uses %v of CPU in %v, want at most %v", used, elapsed, limit)
	}
	pid := childWithFiles(t, 0, unix.CLONE_NEWNET)
	child := inodeAt(t, fmt.Sprintf("/proc/%d/ns/net", pid))
	for asked := time.Now(); ; s.Step() {
		if _, status := s.Locate(child); status == Found {
			break
		}
		if time.Since(asked) > time.Second {
			t.Fatal("the namespace of a process is not found within a second")
		}
	}
}

// cpuTime is the CPU time that this process has used.
func cpuTime(t *testing.T) time.Duration {
	t.Helper()
	var usage unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &usage); err != nil {
		t.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
