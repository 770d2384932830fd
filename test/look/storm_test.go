package look_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/test/tcplab"
)

// workerEnv is the variable with a worker in JSON: the test binary becomes this worker.
const workerEnv = "TCPSHIFT_LOOK_WORKER"

// worker is a process that serves or connects, and has a name of its own (comm).
type worker struct {
	Name      string
	Address   string
	Serve     string        // what a server does after a request: close, keep or reset; "": it is a client
	PerSecond float64       // of a client
	From, To  time.Duration // of a client: it connects from From to To after its start

	kept []net.Conn // the garbage collector would close them
}

// Names that a process can give itself, with markup: an element, and the end of a script.
const (
	hostileTag    = "<b>evil</b>"
	hostileScript = "</script><i>x"
)

// runWorker never returns.
func runWorker(text string) {
	var w worker
	err := json.Unmarshal([]byte(text), &w)
	if err == nil {
		err = os.WriteFile("/proc/self/comm", []byte(w.Name), 0)
	}
	switch {
	case err != nil:
	case w.Serve != "":
		err = w.serve()
	default:
		w.connect()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "worker:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func (w *worker) serve() error {
	l, err := net.Listen("tcp", w.Address)
	if err != nil {
		return err
	}
	fmt.Println("ready")
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		if w.Serve == "keep" {
			w.kept = append(w.kept, c)
		}
		go func() {
			request := make([]byte, 4096)
			if _, err := c.Read(request); err != nil || w.Serve == "keep" {
				return
			}
			_, _ = c.Write(request[:2000]) // the client may have gone
			if w.Serve == "reset" {
				_ = c.(*net.TCPConn).SetLinger(0)
			} else {
				_, _ = io.Copy(io.Discard, c) // until the client closes
			}
			_ = c.Close()
		}()
	}
}

// connect makes short connections at a rate. It ignores their errors.
func (w *worker) connect() {
	begin := time.Now().Add(w.From)
	for i := 0; ; i++ {
		at := begin.Add(time.Duration(float64(i) / w.PerSecond * float64(time.Second)))
		if at.After(begin.Add(w.To - w.From)) {
			return
		}
		time.Sleep(time.Until(at)) // the rate of the load
		c, err := net.DialTimeout("tcp", w.Address, time.Second)
		if err != nil {
			continue
		}
		_, _ = c.Write([]byte("GET"))
		_ = c.SetReadDeadline(time.Now().Add(time.Second))
		_, _ = c.Read(make([]byte, 4096)) // a reset is an end, too
		_ = c.Close()
	}
}

// shared is the path of the recording of a storm that several tests use. Beside it is what replay takes.
var shared string

// inputsOf is the path of the inputs of detection of a recorded storm.
func inputsOf(recording string) string { return recording + ".inputs" }

// sharedStorm returns the recording of a storm, which is recorded once.
func sharedStorm(t *testing.T) string {
	t.Helper()
	if shared == "" {
		path := filepath.Join(directory, "storm.ndjson")
		recordStorm(t, 1, path, nil)
		shared = path
	}
	return shared
}

// recordStorm records a storm that uses up the local ports, with failures, a leak and hostile names around it, at a path.
// The storm takes 24 seconds times scale. watch is called when the storm begins, with what the tracer has to say then; what it
// returns is called when the storm is over, while the tracer still runs. nil: nobody watches.
func recordStorm(t *testing.T, scale int, recording string, watch func(said string) (over func()), args ...string) {
	t.Helper()
	if os.Geteuid() != 0 {
		skipMissing(t, "needs root, to load BPF programs and make namespaces")
	}
	n := tcplab.NewNetns(t)
	n.Sysctl("net.ipv4.ip_local_port_range", fmt.Sprintf("40000 %d", 40000+260*scale-1))
	n.Sysctl("net.ipv4.tcp_tw_reuse", "0")
	for _, w := range []worker{
		{Name: "api", Address: "127.0.0.1:8080", Serve: "close"},
		{Name: "gateway", Address: "127.0.0.1:8443", Serve: "reset"},
		{Name: "sessions", Address: "127.0.0.1:9001", Serve: "keep"},
	} {
		start(t, n, w)
	}
	tracer := exec.Command(program, append([]string{"--netns", strconv.FormatUint(uint64(n.Inode()), 10), "--output", recording,
		"--recording", inputsOf(recording), "--close-wait-age", "10s", "--close-wait-count", "10"}, args...)...)
	var said strings.Builder
	tracer.Stderr = &said
	if err := tracer.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if tracer.ProcessState == nil {
			_ = tracer.Process.Kill() // it may have ended
			_ = tracer.Wait()
		}
		if t.Failed() {
			t.Log(said.String())
		}
	})
	awaitLine(t, recording, `"type":"start"`)
	over := func() {}
	if watch != nil {
		over = watch(said.String())
	}
	s := time.Duration(scale) * time.Second
	var clients []*exec.Cmd
	for _, w := range []worker{
		{Name: "worker", Address: "127.0.0.1:8080", PerSecond: 42, From: 4 * s, To: 18 * s},
		{Name: "checkout", Address: "127.0.0.1:8080", PerSecond: 5, To: 24 * s},
		{Name: "billing", Address: "127.0.0.1:8443", PerSecond: 4, To: 24 * s},
		{Name: "health", Address: "127.0.0.1:9", PerSecond: 12, From: 9 * s, To: 15 * s},
		{Name: hostileTag, Address: "127.0.0.1:9001", PerSecond: 1, To: 20 * s},
		{Name: hostileScript, Address: "127.0.0.1:8080", PerSecond: 1, To: 24 * s},
	} {
		clients = append(clients, start(t, n, w))
	}
	for _, c := range clients {
		if err := c.Wait(); err != nil {
			t.Fatal(err)
		}
	}
	awaitLine(t, recording, `"kind":"time_wait_storm"`)
	over()
	if err := tracer.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := tracer.Wait(); err != nil {
		t.Fatal(err)
	}
}

// start starts a worker in a namespace, and waits until a server listens.
func start(t *testing.T, n *tcplab.Netns, w worker) *exec.Cmd {
	t.Helper()
	text, err := json.Marshal(w)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), workerEnv+"="+string(text))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		n.Do(func() { err = cmd.Start() }) // the process inherits the namespace of the thread that forks it
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			_ = cmd.Process.Kill() // it may have ended
			_ = cmd.Wait()
		}
	})
	if w.Serve != "" {
		if _, err := out.Read(make([]byte, 16)); err != nil {
			t.Fatal("the server does not begin:", err)
		}
	}
	return cmd
}

// awaitLine waits until a file has a text.
func awaitLine(t *testing.T, path, text string) {
	t.Helper()
	for deadline := time.Now().Add(60 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		b, err := os.ReadFile(path)
		if err == nil && strings.Contains(string(b), text) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("no %s in %s: %v", text, path, err)
		}
	}
}
