package detection_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/test/tcplab"
)

// awaitAlert waits until an alert of a kind is open in a namespace, and returns it.
func awaitAlert(t *testing.T, tr *tracer, n *tcplab.Netns, kind string) alert {
	t.Helper()
	for deadline := time.Now().Add(waitLimit); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if opened := pick(tr.of(n.Inode()), kind, "open"); len(opened) > 0 {
			a := opened[0]
			t.Logf("%s: %s", kind, a.Cause)
			return a
		}
	}
	t.Fatalf("no alert %s: %+v", kind, tr.of(n.Inode()))
	return alert{}
}

// awaitRate waits for a phase of an alert with at least this rate: where the machine stalls, that
// of the first one is over more time than the sockets took.
func awaitRate(t *testing.T, tr *tracer, n *tcplab.Netns, kind string, least float64) {
	t.Helper()
	for deadline := time.Now().Add(waitLimit); ; time.Sleep(50 * time.Millisecond) {
		all := tr.of(n.Inode())
		for _, a := range all {
			if a.Kind == kind && a.Rate >= least {
				return
			}
		}
		if time.Now().After(deadline) {
			t.Errorf("no %s with a rate of %v/s: %+v", kind, least, all)
			return
		}
	}
}

// isOrAbsent reports whether pid is want or absent. Without the accept hook the owner of
// an accepted connection may be unknown, but is never another process.
func isOrAbsent(pid, want int) bool { return pid == 0 || pid == want }

// The other kinds of alerts open for their causes, with the right process.
func TestAlert_OtherKinds(t *testing.T) {
	tcplab.RequireRoot(t)
	tr := startTracer(t, "alerts", "--close-wait-age", "10s", "--half-closed", "200")
	t.Run("kinds", func(t *testing.T) {
		t.Run("a server that never closes", func(t *testing.T) {
			t.Parallel()
			s := newHostPair(t, tr, 5000)
			server := s.startServer(workload{Listen: s.port(80), NeverClose: true})
			running := s.run(workload{To: s.port(80), Phases: []phase{{PerSecond: 30, For: 30 * time.Second}}})
			if a := awaitAlert(t, tr, s.server, "close_wait_leak"); !isOrAbsent(a.PID, server) || a.Role != "server" || a.LocalPort != 80 ||
				a.OccupancySource != "kernel" {
				t.Errorf("%+v", a)
			}
			awaitRate(t, tr, s.server, "close_wait_leak", 5) // of 30, if the machine is slow
			a := awaitAlert(t, tr, s.client, "fin_wait2_pileup")
			if a.PeerPort != 80 || a.PeerAddr != s.to.String() || a.Role != "client" || a.PID != (<-running).PID {
				t.Errorf("%+v", a)
			}
		})
		t.Run("a server that still sends to peers that have shut down", func(t *testing.T) {
			t.Parallel()
			s := newHostPair(t, tr, 5000)
			s.serve(80, func(c *net.TCPConn) {
				defer c.Close()
				for {
					if _, err := c.Write([]byte{1}); err != nil {
						return
					}
					time.Sleep(time.Second)
				}
			})
			a := <-s.run(workload{To: s.port(80), ShutDown: true, Open: 45 * time.Second, Phases: []phase{{PerSecond: 10, For: 6 * time.Second}, {For: 40 * time.Second}}})
			if found := pick(tr.of(s.server.Inode()), "close_wait_leak", "open"); len(found) > 0 || a.Made < 50 {
				t.Errorf("%d connections, and %+v", a.Made, found)
			}
		})
		t.Run("a server that shuts down and keeps its sockets", func(t *testing.T) {
			t.Parallel()
			s := newHostPair(t, tr, 5000)
			s.serve(80, func(c *net.TCPConn) {
				_ = c.CloseWrite()
				_, _ = c.Read(make([]byte, 1)) // until the client closes, at the end
				c.Close()
			})
			running := s.run(workload{To: s.port(80), Open: 45 * time.Second, Phases: []phase{{PerSecond: 60, For: 5 * time.Second}, {For: 40 * time.Second}}})
			a := awaitAlert(t, tr, s.server, "fin_wait2_pileup")
			if a.PID != os.Getpid() || a.Role != "server" || a.LocalPort != 80 || !strings.Contains(a.Cause, "no timeout") {
				t.Errorf("%+v", a)
			}
			<-running
		})
		t.Run("clients with a short TCP_LINGER2", func(t *testing.T) {
			t.Parallel()
			s := newHostPair(t, tr, 20000)
			s.serve(80, func(c *net.TCPConn) {
				time.Sleep(2 * time.Second)
				c.Close()
			})
			<-s.run(workload{To: s.port(80), Linger2: 3, Phases: []phase{{PerSecond: 200, For: 20 * time.Second}}})
			if found := pick(tr.of(s.client.Inode()), "fin_wait2_pileup", "open"); len(found) > 0 {
				t.Errorf("no socket waits for more than 2 s: %+v", found)
			}
		})
		t.Run("a service that is down", func(t *testing.T) {
			t.Parallel()
			s := newHostPair(t, tr, 5000)
			ended := <-s.run(workload{To: s.port(81), Phases: []phase{{PerSecond: 30, For: 6 * time.Second}}})
			if a := awaitAlert(t, tr, s.client, "connect_failures"); a.PID != ended.PID || a.PeerPort != 81 || !strings.Contains(a.Cause, "refused") {
				t.Errorf("%+v", a)
			}
		})
		t.Run("clients that reset", func(t *testing.T) {
			t.Parallel()
			s := newHostPair(t, tr, 5000)
			server := s.startServer(workload{Listen: s.port(80)})
			<-s.run(workload{To: s.port(80), Reset: true, Open: 100 * time.Millisecond, Phases: []phase{{PerSecond: 40, For: 6 * time.Second}}})
			if a := awaitAlert(t, tr, s.server, "reset_burst"); !isOrAbsent(a.PID, server) || a.LocalPort != 80 || a.Role != "server" {
				t.Errorf("%+v", a)
			}
		})
	})
	tr.stop()
	everyAlertCloses(t, tr)
}

// port_exhaustion means that connect() found no port. A fast open that is put off and closed
// has a port, and a connect() from a bound port fails for another cause: neither raises this
// alert, and they are too few for connect_failures. The connect() that raises it comes last,
// so the detector has seen the others by then.
func TestAlert_FailedConnectsWithPort(t *testing.T) {
	tcplab.RequireRoot(t)
	t.Parallel()
	n := tcplab.NewNetns(t)
	tr := startTracer(t, "alerts", "--netns", fmt.Sprint(n.Inode()))
	n.Sysctl("net.ipv4.tcp_fastopen", "5")
	n.Sysctl("net.ipv4.ip_local_port_range", "40000 40001")
	at := tcplab.V4.At
	listener := n.Listen(at(80))
	first := n.Socket(at(0).Addr())
	first.ReuseAddr()
	first.Bind(at(7200))
	first.Connect(at(80))
	for range 30 {
		s := n.Socket(at(0).Addr())
		s.SetsockoptInt(unix.IPPROTO_TCP, unix.TCP_FASTOPEN_CONNECT, 1)
		s.Connect(at(81))
		s.Close()
		s = n.Socket(at(0).Addr())
		s.ReuseAddr()
		s.Bind(at(7200))
		if err := s.TryConnect(at(80)); !errors.Is(err, unix.EADDRNOTAVAIL) {
			t.Fatalf("connect from a bound port: %v", err)
		}
		s.Close()
	}
	for range 2 {
		n.Dial(at(80))
	}
	if err := n.Socket(at(0).Addr()).TryConnect(at(80)); !errors.Is(err, unix.EADDRNOTAVAIL) {
		t.Fatalf("connect without a free port: %v", err)
	}
	a := awaitAlert(t, tr, n, "port_exhaustion")
	if a.Failures != 1 || a.PeerPort != 80 || a.PID != os.Getpid() {
		t.Errorf("want one failure, of pid %d: %+v", os.Getpid(), a)
	}
	for _, other := range tr.of(n.Inode()) { // the kernel may confirm the alert with an update
		if other.Alert != a.Alert {
			t.Errorf("want one alert: %+v", other)
		}
	}
	listener.Close()
}

// A service that fails half its connects, because its bound port has such a connection, is
// reported with its process, though no error is left on the sockets.
func TestAlert_ConnectsFromUsedPort(t *testing.T) {
	tcplab.RequireRoot(t)
	t.Parallel()
	n := tcplab.NewNetns(t)
	tr := startTracer(t, "alerts", "--netns", fmt.Sprint(n.Inode()))
	at := tcplab.V4.At
	n.Listen(at(80))
	first := n.Socket(at(0).Addr())
	first.ReuseAddr()
	first.Bind(at(7200))
	first.Connect(at(80))
	for i := range 60 {
		if i >= 5 {
			n.Dial(at(80))
		}
		s := n.Socket(at(0).Addr())
		s.ReuseAddr()
		s.Bind(at(7200))
		if err := s.TryConnect(at(80)); !errors.Is(err, unix.EADDRNOTAVAIL) {
			t.Fatalf("connect from a bound port: %v", err)
		}
		s.Close()
	}
	a := awaitAlert(t, tr, n, "connect_failures")
	if a.PID != os.Getpid() || a.PeerPort != 80 || a.Failures < 50 || !strings.Contains(a.Cause, "bound port") {
		t.Errorf("want the failed connects of this process: %+v", a)
	}
	if all := tr.of(n.Inode()); len(all) != 1 {
		t.Errorf("want one alert: %+v", all)
	}
}

// Sockets that are older than the tracer count for an alert.
func TestAlert_SocketsOlderThanTracer(t *testing.T) {
	tcplab.RequireRoot(t)
	t.Parallel()
	retryIfUneven(t, func() *hostPair { return stormBefore(t) })
}

func stormBefore(t *testing.T) *hostPair {
	s := newHostPair(t, nil, 300)
	s.serve(80, afterPeer)
	before := <-s.run(workload{To: s.port(80), Phases: []phase{{PerSecond: 50, For: 3 * time.Second}}})
	pool := s.run(workload{To: s.port(80), Open: time.Hour, Phases: []phase{{PerSecond: 100, For: 300 * time.Millisecond}, {For: 20 * time.Second}}})
	time.Sleep(time.Second)
	tr := startTracer(t, "alerts")
	a := <-s.run(workload{To: s.port(80), UntilNoPort: true, Phases: []phase{{PerSecond: 15, For: waitLimit}}})
	s.checkFailureAlert(tr, "time_wait_storm", a.FirstNoPort)
	if opened := s.checkStormAlert(tr.of(s.client.Inode()), 300, a.FirstNoPort); opened.PID != a.PID || opened.Occupancy < 200 {
		t.Errorf("want an alert that counts the %d older connections: %+v", before.Made, opened)
	}
	<-pool
	return s
}

// The text of an alert names process, destination and remedy.
func TestAlert_TextNamesRemedy(t *testing.T) {
	tcplab.RequireRoot(t)
	t.Parallel()
	s := newHostPair(t, nil, 300)
	s.serve(80, afterPeer)
	file, err := os.Create(filepath.Join(t.TempDir(), "text"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	text := func() string {
		b, err := os.ReadFile(file.Name())
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	cmd := exec.Command(program, "alerts", "--format", "text", "--netns", fmt.Sprint(s.client.Inode()))
	cmd.Stdout, cmd.Stderr = file, file
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for began := time.Now(); !strings.HasPrefix(text(), "# tcpshift"); time.Sleep(10 * time.Millisecond) {
		if time.Since(began) > waitLimit {
			t.Fatalf("it has not started: %s", text())
		}
	}
	time.Sleep(3 * time.Second) // only a file refers to the namespace: the search for it takes a while
	a := <-s.run(workload{To: s.port(80), UntilNoPort: true, Phases: []phase{{PerSecond: 60, For: waitLimit}}})
	time.Sleep(time.Second)
	_ = cmd.Process.Signal(syscall.SIGTERM)
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v\n%s", err, text())
	}
	out := text()
	t.Logf("\n%s", out)
	for line := range strings.Lines(out) {
		if !strings.HasPrefix(line, "#") && !strings.HasPrefix(line, "! ") {
			t.Errorf("a line is neither a remark nor an alert: %s", line)
		}
	}
	at := 0
	for _, part := range []string{
		"CRITICAL time_wait_storm: ", fmt.Sprintf("(pid %d, 100 %%)", a.PID), "to 10.9.0.2:80 from 10.9.0.1", " connections a second, ",
		" of 300 local ports taken", "None is left in about ", "Why: ", "What to do: reuse connections", "addresses", "40000 to 40299",
		"CRITICAL time_wait_storm for ", "300 of 300 local ports taken", " failed so far. None is left. Why: ", "OVER time_wait_storm",
	} {
		next := strings.Index(out[at:], part)
		if next < 0 {
			t.Fatalf("%q is missing or in the wrong place", part)
		}
		at += next
	}
	if strings.Contains(out, "port_exhaustion") {
		t.Error("there is a second alert for one cause")
	}
}
