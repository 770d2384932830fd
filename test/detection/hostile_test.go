package detection_test

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/test/tcplab"
)

// floodConnections is the number of connections of each flood.
var floodConnections = flag.Int("flood", 100_000, "connections of a hostile user's flood")

// floodEnv turns this test binary into a hostile user's process.
const floodEnv = "TCPSHIFT_TEST_FLOOD"

// flood is what a user without privileges does in a network namespace of his own.
type flood struct {
	Connections  int
	Destinations int  // as many addresses and ports are connected to
	Refused      bool // nobody listens
	Namespaces   int  // 0: one, the process's own
	Name         string
}

// runFlood is the main function of the process.
func runFlood(text string) int {
	var f flood
	err := json.Unmarshal([]byte(text), &f)
	for range max(1, f.Namespaces) {
		if err == nil && f.Namespaces > 0 {
			err = unix.Unshare(unix.CLONE_NEWNET)
		}
		if err == nil {
			err = f.inNamespace()
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "flood:", err)
		return 1
	}
	return 0
}

func (f *flood) inNamespace() error {
	if err := bringLoopbackUp(); err != nil {
		return err
	}
	if !f.Refused {
		l, err := net.Listen("tcp4", "0.0.0.0:7000")
		if err != nil {
			return err
		}
		defer l.Close()
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				_ = c.(*net.TCPConn).SetLinger(0)
				c.Close()
			}
		}()
	}
	var workers sync.WaitGroup
	const parallel = 4
	each := f.Connections / max(1, f.Namespaces) / parallel
	for worker := range parallel {
		workers.Go(func() {
			for i := range each {
				f.connect(worker*each + i)
			}
		})
	}
	workers.Wait()
	return nil
}

// connect makes a connection to the next destination and resets it.
func (f *flood) connect(i int) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	n := i % max(1, f.Destinations)
	to := &unix.SockaddrInet4{Port: 7000, Addr: [4]byte{127, byte(1 + n>>16), byte(n >> 8), byte(n)}}
	_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	_ = unix.Connect(fd, to)
}

func bringLoopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	request, err := unix.NewIfreq("lo")
	if err == nil {
		request.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
		err = unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, request)
	}
	return err
}

const nobody = 65534

// start starts the flood as uid nobody, in a user namespace of its own, and returns a
// function that waits for its end.
func (f *flood) start(t *testing.T) (wait func()) {
	t.Helper()
	text, err := json.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(forNobody(t))
	cmd.Env = []string{floodEnv + "=" + string(text)}
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: nobody, Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: nobody, Size: 1}},
		Credential:  &syscall.Credential{Uid: 0, Gid: 0, NoSetGroups: true},
	}
	err = cmd.Start()
	if errors.Is(err, unix.EPERM) {
		t.Skipf("no user namespace can be made here, such as in a chroot: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	return func() {
		t.Helper()
		if err := <-ended; err != nil {
			t.Errorf("the test is wrong, the flood ended with %v", err)
		}
	}
}

// forNobody copies this test binary to where any user may execute it.
func forNobody(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "tcpshift-flood-")
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	var own []byte
	if err == nil {
		own, err = os.ReadFile("/proc/self/exe")
	}
	path := filepath.Join(dir, "flood")
	if err == nil {
		err = os.WriteFile(path, own, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return path
}

// Whatever a user without privileges does in namespaces of his own, the storm of another one
// is reported, with its own numbers, and the tracer goes on.
func TestHostile_FloodBesideStorm(t *testing.T) {
	tcplab.RequireRoot(t)
	for name, f := range map[string]flood{
		"one destination":      {Connections: *floodConnections, Destinations: 1},
		"many destinations":    {Connections: *floodConnections, Destinations: 1 << 20},
		"many refused":         {Connections: *floodConnections, Destinations: 1 << 20, Refused: true},
		"many namespaces":      {Connections: *floodConnections / 10, Destinations: 100, Namespaces: 300},
		"many refused in many": {Connections: *floodConnections / 10, Destinations: 10, Namespaces: 300, Refused: true},
	} {
		t.Run(name, func(t *testing.T) {
			tr := startTracer(t, "alerts")
			s := newHostPair(t, tr, 300)
			s.sysctl("net.ipv4.tcp_tw_reuse", 0)
			s.serve(80, afterPeer)
			wait := f.start(t)
			storm := s.run(workload{To: s.port(80), UntilNoPort: true, Phases: []phase{{PerSecond: 20, For: waitLimit}}})
			opened := awaitAlert(t, tr, s.client, "time_wait_storm")
			if opened.Capacity != 300 || opened.Occupancy > 300 || opened.PeerAddr != s.to.String() || opened.PeerPort != 80 {
				t.Errorf("%+v", opened)
			}
			exhausted := <-storm
			if late := opened.came.Sub(exhausted.FirstNoPort); late > 3*time.Second {
				t.Errorf("the alert came %v after the last port was taken", late)
			}
			wait()
			tr.stop()
			for _, a := range tr.alerts {
				if ip, err := netip.ParseAddr(a.PeerAddr); a.Kind == "time_wait_storm" && err == nil && ip.IsLoopback() {
					t.Errorf("the flood makes no TIME_WAIT, and has a storm: %+v", a)
					break
				}
			}
			t.Logf("%d alerts in all; the storm's at %d of %d", len(tr.alerts), opened.Occupancy, opened.Capacity)
		})
	}
}
