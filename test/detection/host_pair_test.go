package detection_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/test/tcplab"
)

// alert is the keys of an alert record that tests check.
type alert struct {
	Type, Kind, Phase, Alert, Severity, Comm, Role, Cause, Advice, Confidence string

	CloseReason string `json:"close_reason"`

	Time            time.Time
	PID             int
	Service         string
	Share           float64
	Processes       int
	PIDShare        float64 `json:"pid_share"`
	NextService     string  `json:"next_service"`
	NextShare       float64 `json:"next_share"`
	Netns           uint32
	LocalAddr       string   `json:"local_addr"`
	LocalPort       int      `json:"local_port"`
	PeerAddr        string   `json:"peer_addr"`
	PeerPort        int      `json:"peer_port"`
	Rate            float64  `json:"rate_per_s"`
	Occupancy       int      `json:"occupancy"`
	OccupancySource string   `json:"occupancy_source"`
	Capacity        int      `json:"capacity"`
	CapacityKind    string   `json:"capacity_kind"`
	ExhaustionIn    *float64 `json:"exhaustion_in_s"`
	Failures, Drops int

	came time.Time // when the test read it
}

// tracer is a running `tcpshift alerts`, for one test or many.
type tracer struct {
	t      testing.TB
	cmd    *exec.Cmd
	stderr bytes.Buffer
	done   chan struct{}

	mu      sync.Mutex
	alerts  []alert
	earlier map[string]bool // alerts of namespaces that had the inode of one of keepInodes
}

func startTracer(t testing.TB, args ...string) *tracer {
	t.Helper()
	tr := &tracer{t: t, cmd: exec.Command(program, args...), done: make(chan struct{}), earlier: make(map[string]bool)}
	tr.cmd.Stderr = &tr.stderr
	out, err := tr.cmd.StdoutPipe()
	if err == nil {
		err = tr.cmd.Start()
	}
	if err != nil {
		t.Fatalf("start tcpshift: %v", err)
	}
	lines := bufio.NewScanner(out)
	if !lines.Scan() {
		t.Fatalf("no start record; %s", &tr.stderr)
	}
	go func() {
		defer close(tr.done)
		for lines.Scan() {
			a := alert{came: time.Now()}
			if err := json.Unmarshal(lines.Bytes(), &a); err == nil && a.Type == "alert" {
				tr.mu.Lock()
				tr.alerts = append(tr.alerts, a)
				tr.mu.Unlock()
			}
		}
	}()
	t.Cleanup(func() { tr.stop() })
	return tr
}

// stop ends the tracer with SIGTERM and reads all its alerts.
func (tr *tracer) stop() {
	if tr.cmd.ProcessState != nil {
		return
	}
	_ = tr.cmd.Process.Signal(syscall.SIGTERM)
	<-tr.done
	if err := tr.cmd.Wait(); err != nil {
		tr.t.Errorf("tcpshift: %v; %s", err, &tr.stderr)
	}
}

// lateAlert is how long after the end of a namespace an alert about it may open: while one waits for the
// kernel's numbers.
const lateAlert = 1500 * time.Millisecond

// keepInodes assigns the alerts about the inodes of new namespaces to them, while the tracer runs.
// The kernel has given the inodes to others before, and would do so again.
func (tr *tracer) keepInodes(namespaces ...*tcplab.Netns) {
	for _, n := range namespaces {
		var file *os.File
		var err error
		n.Do(func() { file, err = os.Open("/proc/thread-self/ns/net") })
		if err != nil {
			tr.t.Fatal(err)
		}
		tr.t.Cleanup(func() { file.Close() })
	}
	time.Sleep(lateAlert)
	for _, n := range namespaces {
		for _, a := range tr.of(n.Inode()) {
			tr.mu.Lock()
			tr.earlier[a.Alert] = true
			tr.mu.Unlock()
		}
	}
}

// of returns the alerts about one namespace so far.
func (tr *tracer) of(netns uint32) (found []alert) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	for _, a := range tr.alerts {
		if a.Netns == netns && !tr.earlier[a.Alert] {
			found = append(found, a)
		}
	}
	return found
}

func pick(alerts []alert, kind, phase string) (found []alert) {
	for _, a := range alerts {
		if a.Kind == kind && a.Phase == phase {
			found = append(found, a)
		}
	}
	return found
}

// hostPair is the namespaces of a client and of a server, joined by a veth pair.
type hostPair struct {
	t              *testing.T
	client, server *tcplab.Netns
	at, to         netip.Addr
	peers          sync.WaitGroup
	pace           pace
}

var addresses = [2]netip.Addr{netip.MustParseAddr("10.9.0.1"), netip.MustParseAddr("10.9.0.2")}

// newHostPair makes a pair with this number of ephemeral ports at the client. The tracer
// is nil if it starts later.
func newHostPair(t *testing.T, tr *tracer, ports int) *hostPair {
	t.Helper()
	s := &hostPair{t: t, client: tcplab.NewNetns(t), server: tcplab.NewNetns(t), at: addresses[0], to: addresses[1]}
	tcplab.Veth(s.client, s.server, s.at, s.to)
	if tr != nil {
		tr.keepInodes(s.client, s.server)
	}
	s.pace.start()
	t.Cleanup(s.pace.stop)
	s.client.Sysctl("net.ipv4.ip_local_port_range", fmt.Sprintf("40000 %d", 40000+ports-1))
	return s
}

// serve accepts on a port of the server and calls each with every connection.
func (s *hostPair) serve(port uint16, each func(c *net.TCPConn)) {
	s.serveIn(s.server, s.to, port, each)
}

func (s *hostPair) serveIn(n *tcplab.Netns, at netip.Addr, port uint16, each func(c *net.TCPConn)) {
	s.t.Helper()
	var l net.Listener
	var err error
	n.Do(func() { l, err = net.Listen("tcp4", netip.AddrPortFrom(at, port).String()) })
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				go each(c.(*net.TCPConn))
			}
		}
	}()
}

// afterPeer waits for the peer's FIN and closes the connection.
func afterPeer(c *net.TCPConn) {
	_, _ = c.Read(make([]byte, 1))
	c.Close()
}

// first closes the connection at once.
func first(c *net.TCPConn) { c.Close() }

// startServer starts a server process and returns its pid.
func (s *hostPair) startServer(o workload) int {
	s.t.Helper()
	text, err := json.Marshal(&o)
	if err != nil {
		s.t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), workloadEnv+"="+string(text))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		s.server.Do(func() { err = cmd.Start() })
	}
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	if _, err := out.Read(make([]byte, len("listening"))); err != nil {
		s.t.Fatal(err)
	}
	return cmd.Process.Pid
}

// run starts a client process. The channel gets its result when it has ended.
func (s *hostPair) run(o workload) <-chan result {
	s.t.Helper()
	text, err := json.Marshal(&o)
	if err != nil {
		s.t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), workloadEnv+"="+string(text))
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, os.Stderr
	s.client.Do(func() { err = cmd.Start() }) // the process inherits the namespace of the thread that forks it
	if err != nil {
		s.t.Fatal(err)
	}
	ended := make(chan result, 1)
	s.peers.Add(1)
	go func() {
		defer s.peers.Done()
		var a result
		err := cmd.Wait()
		if err == nil {
			err = json.Unmarshal(out.Bytes(), &a)
		}
		if err != nil {
			s.t.Errorf("client process: %v", err)
		}
		s.pace.fellBehind(a.Late)
		ended <- a
	}()
	s.t.Cleanup(func() {
		_ = cmd.Process.Kill() // if the test has failed
		s.peers.Wait()
	})
	return ended
}

func (s *hostPair) port(port uint16) netip.AddrPort { return netip.AddrPortFrom(s.to, port) }

func (s *hostPair) sysctl(name string, value int) { s.client.Sysctl(name, strconv.Itoa(value)) }
