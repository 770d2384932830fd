package peers_test

import (
	"bufio"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/test/tcplab"
)

// actorEnv makes the test binary an actor: a process that opens and closes sockets as its
// standard input asks for. Its comm is the name of its file.
const actorEnv = "TCPSHIFT_PEERS_ACTOR"

// actor is a running actor, seen from the test.
type actor struct {
	t      testing.TB
	name   string
	pid    int
	orders *os.File
	lines  *bufio.Scanner
}

// startActor starts an actor in a namespace. The files become its descriptors 3, 4, ...
func startActor(t testing.TB, n *tcplab.Netns, name string, files ...*os.File) *actor {
	t.Helper()
	stdin, orders := pipe(t)
	answers, stdout := pipe(t)
	cmd := exec.Command(linkActor(t, name))
	cmd.Env = append(os.Environ(), actorEnv+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, stdout, os.Stderr
	cmd.ExtraFiles = files
	var err error
	n.Do(func() { err = cmd.Start() })
	if err != nil {
		t.Fatalf("start the actor %s: %v", name, err)
	}
	stdin.Close()
	stdout.Close()
	t.Cleanup(func() {
		orders.Close()
		_ = cmd.Wait()
	})
	return &actor{t: t, name: name, pid: cmd.Process.Pid, orders: orders, lines: bufio.NewScanner(answers)}
}

func pipe(t testing.TB) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	return r, w
}

// linkActor makes a link to the test binary and returns its path.
func linkActor(t testing.TB, name string) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), name)
	if err := os.Symlink(self, path); err != nil {
		t.Fatal(err)
	}
	return path
}

// try orders one step and returns the answer: "ok", or the error's text.
func (a *actor) try(step string, args ...any) string {
	a.t.Helper()
	if _, err := fmt.Fprintf(a.orders, step+"\n", args...); err != nil {
		a.t.Fatalf("%s: %v", a.name, err)
	}
	if !a.lines.Scan() {
		a.t.Fatalf("%s ended at %q", a.name, step)
	}
	return a.lines.Text()
}

// do orders a step that must succeed.
func (a *actor) do(step string, args ...any) {
	a.t.Helper()
	if got := a.try(step, args...); got != "ok" {
		a.t.Fatalf("%s: %s: %s", a.name, step, got)
	}
}

// startPrefork starts a server and a worker that inherits its listener.
func startPrefork(t testing.TB, n *tcplab.Netns, port uint16) (parent, worker *actor) {
	t.Helper()
	stdin, orders := pipe(t)
	answers, stdout := pipe(t)
	parent = startActor(t, n, "server", stdin, stdout)
	parent.do("listen s 127.0.0.1:%d", port)
	answer := parent.try("spawn s %s", linkActor(t, "worker"))
	pid, err := strconv.Atoi(answer)
	if err != nil {
		t.Fatalf("spawn: %s", answer)
	}
	return parent, &actor{t: t, name: "worker", pid: pid, orders: orders, lines: bufio.NewScanner(answers)}
}

// runActor is the actor itself. Each line of its standard input is a step: a verb, the
// name of a socket, an argument.
func runActor() int {
	self := actorProcess{fds: map[string]int{"inherited": 3}}
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		words := append(strings.Fields(lines.Text()), "", "")
		answer, err := self.step(words[0], words[1], words[2])
		if err != nil {
			answer = err.Error()
		}
		fmt.Println(answer)
	}
	return 0
}

type actorProcess struct {
	fds  map[string]int
	kept []*os.File // the garbage collector would close them
}

func (p *actorProcess) step(verb, name, argument string) (answer string, err error) {
	fd := p.fds[name]
	switch verb {
	case "listen", "connect":
		p.fds[name], err = open(verb, netip.MustParseAddrPort(argument))
	case "accept":
		p.fds[argument], _, err = unix.Accept4(fd, unix.SOCK_CLOEXEC)
	case "drop": // drops every incoming segment, so that the socket does not answer
		all := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K}
		err = unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &all})
	case "write":
		count, _ := strconv.Atoi(argument)
		_, err = unix.Write(fd, make([]byte, count))
	case "read":
		_, err = unix.Read(fd, make([]byte, 4096))
	case "shutdown":
		err = unix.Shutdown(fd, unix.SHUT_WR)
	case "linger":
		err = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	case "close":
		err = unix.Close(fd)
	case "spawn":
		return p.spawn(fd, argument)
	default:
		err = fmt.Errorf("no such step: %s", verb)
	}
	return "ok", err
}

// spawn starts a child that inherits a socket, as a prefork server does, and answers with
// its process. The descriptors 3 and 4 become its standard input and output.
func (p *actorProcess) spawn(fd int, path string) (answer string, err error) {
	cmd := exec.Command(path)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.NewFile(3, "stdin"), os.NewFile(4, "stdout"), os.Stderr
	socket := os.NewFile(uintptr(fd), "inherited")
	cmd.ExtraFiles = []*os.File{socket}
	p.kept = append(p.kept, socket)
	if err := cmd.Start(); err != nil {
		return "", err
	}
	return strconv.Itoa(cmd.Process.Pid), nil
}

// open makes a TCP socket, and listens or connects. An unanswered connect() fails after
// one second.
func open(verb string, at netip.AddrPort) (int, error) {
	family, sockaddr := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Addr: at.Addr().As16(), Port: int(at.Port())})
	if at.Addr().Is4() {
		family, sockaddr = unix.AF_INET, &unix.SockaddrInet4{Addr: at.Addr().As4(), Port: int(at.Port())}
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fd, err
	}
	if verb == "connect" {
		const connectTimeout = 1000 // ms
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, connectTimeout); err != nil {
			return fd, err
		}
		return fd, unix.Connect(fd, sockaddr)
	}
	if err := unix.Bind(fd, sockaddr); err != nil {
		return fd, err
	}
	return fd, unix.Listen(fd, 16)
}
