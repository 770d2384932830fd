package cli_test

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/test/tcplab"
)

// peerEnv makes the test binary a peer: a process that makes one connection. A line on
// its standard input makes it connect, the end of the input makes it close.
const peerEnv = "TCPSHIFT_CLI_TEST_PEER"

// The peer names its main thread, so its code must run on that thread.
func init() {
	if os.Getenv(peerEnv) != "" {
		runtime.LockOSThread()
	}
}

// peerMain connects at the first line of standard input and closes at its end.
func peerMain(args []string) int {
	if err := connectOnOrder(args[0], netip.MustParseAddrPort(args[1]), netip.MustParseAddrPort(args[2])); err != nil {
		fmt.Fprintln(os.Stderr, "peer:", err)
		return 1
	}
	return 0
}

func connectOnOrder(comm string, from, to netip.AddrPort) error {
	name, err := hex.DecodeString(comm)
	if err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(&append(name, 0)[0])), 0, 0, 0); err != nil {
		return fmt.Errorf("prctl: %w", err)
	}
	fmt.Println("named")
	steps := bufio.NewReader(os.Stdin)
	if _, err := steps.ReadString('\n'); err != nil {
		return fmt.Errorf("wait for the order to connect: %w", err)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Port: int(from.Port()), Addr: from.Addr().As4()}); err != nil {
		return fmt.Errorf("bind: %w", err)
	}
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}); err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	_, _ = io.Copy(io.Discard, steps)
	return unix.Close(fd)
}

// peer is a process that makes one connection in a network namespace.
type peer struct {
	t     testing.TB
	cmd   *exec.Cmd
	steps io.WriteCloser
}

// startPeer starts a peer with that name. It connects when connect is called.
func startPeer(t testing.TB, n *tcplab.Netns, comm string, from, to netip.AddrPort, adjust ...func(*exec.Cmd)) *peer {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatalf("find the test binary: %v", err)
	}
	p := &peer{t: t, cmd: exec.Command(self, hex.EncodeToString([]byte(comm)), from.String(), to.String())}
	p.cmd.Env = append(os.Environ(), peerEnv+"=1")
	p.cmd.Stderr = os.Stderr
	for _, f := range adjust {
		f(p.cmd)
	}
	if p.steps, err = p.cmd.StdinPipe(); err != nil {
		t.Fatalf("make a pipe: %v", err)
	}
	output, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatalf("make a pipe: %v", err)
	}
	n.Do(func() { err = p.cmd.Start() })
	if err != nil {
		t.Fatalf("start a peer: %v", err)
	}
	t.Cleanup(p.end)
	if _, err := bufio.NewReader(output).ReadString('\n'); err != nil {
		t.Fatalf("wait for the peer: %v", err)
	}
	return p
}

func (p *peer) pid() int { return p.cmd.Process.Pid }

func (p *peer) connect() {
	p.t.Helper()
	if _, err := io.WriteString(p.steps, "connect\n"); err != nil {
		p.t.Fatalf("order the peer to connect: %v", err)
	}
}

// end makes the peer close its connection, and waits for its exit.
func (p *peer) end() {
	if p.cmd.ProcessState != nil {
		return
	}
	killer := time.AfterFunc(waitLimit, func() { _ = p.cmd.Process.Kill() })
	defer killer.Stop()
	p.steps.Close()
	if err := p.cmd.Wait(); err != nil {
		p.t.Errorf("the peer ended with %v", err)
	}
}
