// Package attacker is a library for tests: processes of a user without privileges that do what
// they can against the tracer. The test binary is started again as such a process, so its
// TestMain has to call [Main].
package attacker

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/test/tcplab"
)

// env turns the test binary into an attacker's process.
const env = "TCPSHIFT_TEST_ATTACK"

// Nobody is the uid of the attackers.
const Nobody = 65534

// Attack is what one process does. It prints a line when it has begun, and ends when it has done
// its work or when its standard input is closed.
type Attack struct {
	// Inside means that it runs in the network namespace of another user; otherwise it runs in a
	// user and a network namespace of its own.
	Inside bool
	// Name is that of its main thread; "": that of the program.
	Name string
	// Endless means that it begins again when it has done its work.
	Endless bool

	// Connections is how many connections it makes and resets, to Destinations different addresses
	// 127.x.y.z, port 7000. With Refused nothing listens there; without, the process itself does.
	Connections  int
	Destinations int
	Refused      bool
	// InARow is how many connections a destination gets one after the other; 0: one.
	InARow int
	// Namespaces is how many namespaces it makes, one after the other, each with its part of the
	// connections. The one before is gone then.
	Namespaces int

	// Listeners is how many sockets listen, with a queue that overflows, until the end.
	Listeners int
	// SwapPath is a path that a descriptor refers to by turns with a network namespace.
	SwapPath string
	// HalfClosed is how many connections to itself it shuts down for writing, and keeps.
	HalfClosed int
	// Threads is how many threads it starts and keeps.
	Threads int
}

// Main is the main function of an attacker's process. In any other process it does nothing.
func Main() {
	text := os.Getenv(env)
	if text == "" {
		return
	}
	var a Attack
	err := json.Unmarshal([]byte(text), &a)
	if err == nil {
		err = a.run()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "attacker:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// Process is a running attack.
type Process struct {
	t     testing.TB
	cmd   *exec.Cmd
	stdin io.Closer
	ended chan error
	once  sync.Once
	err   error
}

// Start starts an attack in namespaces of its own, and waits until it has begun. It ends at the end
// of the test at the latest.
func Start(t testing.TB, a Attack) *Process {
	t.Helper()
	return start(t, a, func(f func()) { f() })
}

// StartIn is Start in the network namespace in which do runs a function: one of another user.
func StartIn(t testing.TB, do func(f func()), a Attack) *Process {
	t.Helper()
	a.Inside = true
	return start(t, a, do)
}

func start(t testing.TB, a Attack, do func(f func())) *Process {
	t.Helper()
	tcplab.RequireRoot(t)
	text, err := json.Marshal(&a)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(forNobody(t))
	cmd.Dir = "/"
	cmd.Env = []string{env + "=" + string(text)}
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: Nobody, Gid: Nobody}}
	if !a.Inside {
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNET,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: Nobody, Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: Nobody, Size: 1}},
			Credential:  &syscall.Credential{Uid: 0, Gid: 0, NoSetGroups: true},
		}
	}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	do(func() { err = cmd.Start() })
	if errors.Is(err, unix.EPERM) {
		t.Skipf("no user namespace can be made here, such as in a chroot: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	p := &Process{t: t, cmd: cmd, stdin: stdin, ended: make(chan error, 1)}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = p.wait() })
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatalf("the test is wrong, the attack did not begin: %v", err)
	}
	go func() { p.ended <- cmd.Wait() }()
	return p
}

// Wait waits until the attack has done its work.
func (p *Process) Wait() {
	p.t.Helper()
	if err := p.wait(); err != nil {
		p.t.Errorf("the test is wrong, the attack ended with %v", err)
	}
}

func (p *Process) wait() error {
	p.once.Do(func() { p.err = <-p.ended })
	return p.err
}

// Stop ends the attack.
func (p *Process) Stop() {
	p.t.Helper()
	p.stdin.Close()
	p.Wait()
}

var copyOnce struct {
	sync.Mutex
	path string
}

// forNobody copies this test binary to where any user may execute it.
func forNobody(t testing.TB) string {
	t.Helper()
	copyOnce.Lock()
	defer copyOnce.Unlock()
	if copyOnce.path != "" {
		return copyOnce.path
	}
	dir, err := os.MkdirTemp("", "tcpshift-attacker-")
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	var own []byte
	if err == nil {
		own, err = os.ReadFile("/proc/self/exe")
	}
	path := filepath.Join(dir, "attacker")
	if err == nil {
		err = os.WriteFile(path, own, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	copyOnce.path = path
	return path
}

// Close removes what Start has made. TestMain calls it.
func Close() {
	if copyOnce.path != "" {
		_ = os.RemoveAll(filepath.Dir(copyOnce.path))
	}
}
