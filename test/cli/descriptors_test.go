package cli_test

import (
	"bufio"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/test/tcplab"
)

// filesEnv makes the test binary a process that opens this many descriptors, reports that on
// standard output, and waits for the end of its standard input.
const filesEnv = "TCPSHIFT_CLI_TEST_FILES"

func filesMain(count string) int {
	var n int
	_, err := fmt.Sscan(count, &n)
	for ; n > 0 && err == nil; n-- {
		_, err = unix.Dup(0)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "open files:", err)
		return 1
	}
	fmt.Println("open")
	_, _ = os.Stdin.Read(make([]byte, 1))
	return 0
}

// openDescriptors makes processes open this many descriptors together, until the test ends.
func openDescriptors(t *testing.T, count int) {
	t.Helper()
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	const spare = 100
	for each := int(min(limit.Max, 100_000)) - spare; count > 0; count -= each {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d", filesEnv, min(each, count)))
		cmd.Stderr = os.Stderr
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Fatalf("start a process with many files: %v", err)
		}
		t.Cleanup(func() { _, _ = in.Close(), cmd.Wait() })
		if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
			t.Fatalf("wait for a process with many files: %v", err)
		}
	}
}

// With more descriptors than a kernel's iterator takes in one read, a million, the owners of
// sockets are still found.
func TestDescriptors_MoreThanAMillion(t *testing.T) {
	requireRoot(t)
	n := tcplab.NewNetns(t)
	n.Listen(netip.AddrPortFrom(tcplab.V4.Loopback(), 17001))
	openDescriptors(t, 1_050_000)
	all, r := snapshot(t, "--netns", fmt.Sprint(n.Inode()))
	if r.mustEnd(t, 0); len(all) != 1 || !strings.Contains(r.stdout, fmt.Sprintf(`"pid":%d,`, os.Getpid())) {
		t.Errorf("want one socket, owned by %d\n%v", os.Getpid(), r)
	}
	r = run(flags("--duration", "100ms", "--netns", fmt.Sprint(n.Inode())))
	if r.mustEnd(t, 0); !strings.Contains(r.stdout, `"socket_scan":true`) {
		t.Errorf("the scan has failed\n%v", r)
	}
}

// withLimit limits the descriptors of the program.
func withLimit(descriptors int) func(*exec.Cmd) {
	return func(cmd *exec.Cmd) {
		limited := fmt.Sprintf(`ulimit -n %d && exec "$0" "$@"`, descriptors)
		cmd.Args = append([]string{"sh", "-c", limited, cmd.Path}, cmd.Args[1:]...)
		cmd.Path = "/bin/sh"
	}
}

// A snapshot needs no more descriptors for more namespaces. If there are too few for
// anything, the message says so.
func TestDescriptors_FewerThanNamespaces(t *testing.T) {
	requireRoot(t)
	const namespaces = 100
	addr := netip.AddrPortFrom(tcplab.V4.Loopback(), 17002)
	var made []*tcplab.Netns
	for range namespaces {
		n := tcplab.NewNetns(t)
		n.Listen(addr)
		made = append(made, n)
	}
	r := run(flags("snapshot"), withLimit(80))
	r.mustEnd(t, 0)
	for _, n := range made {
		if !strings.Contains(r.stdout, fmt.Sprintf(`"netns":%d,`, n.Inode())) {
			t.Fatalf("namespace %d is missing\n%v", n.Inode(), r)
		}
	}
	if r = run(flags("snapshot"), withLimit(10)); r.status == 0 || !strings.Contains(r.stderr, "too many open files") {
		t.Errorf("with 10 descriptors: want a message with the cause\n%v", r)
	}
}
