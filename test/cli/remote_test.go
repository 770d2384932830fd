package cli_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/test/testcert"
)

// collector is a reader of lines at a listening socket. It keeps what it has read.
type collector struct {
	mu    sync.Mutex
	text  bytes.Buffer
	conns int
}

// serve accepts connections until the listener is closed.
func (c *collector) serve(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		c.mu.Lock()
		c.conns++
		if c.text.Len() > 0 && !bytes.HasSuffix(c.text.Bytes(), []byte("\n")) {
			c.text.WriteString("[cut]\n")
		}
		c.mu.Unlock()
		go func() {
			defer conn.Close()
			_, _ = io.Copy(writerFunc(c.add), conn)
		}()
	}
}

type writerFunc func(b []byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

func (c *collector) add(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.text.Write(b)
}

func (c *collector) read() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.text.String()
}

func (c *collector) await(t testing.TB, what, word string) {
	t.Helper()
	for began := time.Now(); !strings.Contains(c.read(), word); time.Sleep(5 * time.Millisecond) {
		if time.Since(began) > waitLimit {
			t.Fatalf("no %s within %v, but\n%.2000s", what, waitLimit, c.read())
		}
	}
}

func listen(t testing.TB, network, address string) net.Listener {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// certificates are a CA and a certificate for collector.test in files, in PEM.
func certificates(t testing.TB) (ca, cert, key string) {
	t.Helper()
	_, cert, key = testcert.Write(t, t.TempDir(), "collector.test")
	return cert, cert, key
}

// Each kind of socket gets the whole stream, with host and boot_id on every record, also in the
// sandbox and without privileges.
func TestRemote_WholeStream(t *testing.T) {
	ca, cert, key := certificates(t)
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	text, err := os.ReadFile(ca)
	if err != nil {
		t.Fatal(err)
	}
	pool.AppendCertsFromPEM(text)
	for _, sandbox := range []string{"--sandbox=false", "--sandbox"} {
		t.Run(sandbox, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "socket")
			listeners := []net.Listener{
				listen(t, "tcp", "127.0.0.1:0"), listen(t, "unix", path),
				tls.NewListener(listen(t, "tcp", "127.0.0.1:0"), &tls.Config{
					Certificates: []tls.Certificate{pair}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert,
				}),
			}
			outputs := []string{
				"tcp://" + listeners[0].Addr().String(), "unix://" + path,
				fmt.Sprintf("tls://%s?ca=%s&cert=%s&key=%s&servername=collector.test", listeners[2].Addr(), ca, cert, key),
			}
			s := newTraffic(t)
			args := append(s.byNetns(), sandbox, "--only", "transition,connection", "--output", "-")
			readers := make([]*collector, len(outputs))
			for i, each := range outputs {
				args = append(args, "--output", each)
				readers[i] = &collector{}
				go readers[i].serve(listeners[i])
			}
			tr := startTracer(t, args)
			s.makeConnections()
			all := tr.stop()
			for i, c := range readers {
				c.await(t, "stop", `{"type":"stop"`)
				r := all.result
				r.stdout = c.read()
				got := parseStream(t, r)
				if len(got.records) != len(all.records) {
					t.Errorf("%s: %d records, want %d", outputs[i], len(got.records), len(all.records))
				}
				for _, rec := range got.records {
					if strings.Count(rec.line, `"host":"`) != 1 || strings.Count(rec.line, `"boot_id":"`) != 1 {
						t.Fatalf("%s: want host and boot_id: %s", outputs[i], rec.line)
					}
				}
			}
		})
	}
}

// consumerEnv makes this program a consumer: it accepts connections at an address, and appends what
// it reads to a file, until it is killed.
const consumerEnv = "TCPSHIFT_TEST_CONSUMER"

func consumerMain(args []string) int {
	l, err := net.Listen("tcp", args[0])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	for {
		conn, err := l.Accept()
		if err != nil {
			return 1
		}
		out, err := os.OpenFile(args[1], os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
		if err != nil {
			return 1
		}
		go func() {
			for b := make([]byte, 32<<10); ; time.Sleep(time.Millisecond) {
				n, err := conn.Read(b)
				if _, writeErr := out.Write(b[:n]); err != nil || writeErr != nil {
					return
				}
			}
		}()
	}
}

// A consumer that is killed in the middle and started again misses no line. What it gets twice, it
// has got before, and the second time as a whole.
func TestRemote_ConsumerKilled(t *testing.T) {
	requireRoot(t)
	l := listen(t, "tcp", "127.0.0.1:0")
	address := l.Addr().String()
	l.Close()
	dir := t.TempDir()
	consume := func(i int) (stop func()) {
		cmd := exec.Command("/proc/self/exe", address, filepath.Join(dir, fmt.Sprint(i)))
		cmd.Env = append(os.Environ(), consumerEnv+"=1")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		return sync.OnceFunc(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	}
	n, args := stormNamespace(t, "--stats-interval", "1ms", "--only", "stats,transition", "--output", "tcp://"+address+"?queue=64MiB")
	tr := launch(t, args)
	for i := range 3 {
		stop := consume(i)
		t.Cleanup(stop)
		awaitGrowth(t, filepath.Join(dir, fmt.Sprint(i)), 0)
		if i < 2 {
			runStorm(t, n) // the consumer is behind when it is killed
			stop()
		}
	}
	last := filepath.Join(dir, "2")
	awaitCurrent(t, last)
	tr.signal(syscall.SIGTERM)
	r := tr.waitUnread()
	r.mustEnd(t, 0)
	var lines []string
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		b, _ := os.ReadFile(last)
		if strings.Contains(string(b), `{"type":"stop"`) {
			break
		}
		if time.Since(began) > waitLimit {
			t.Fatalf("no stop\n%v", r)
		}
	}
	for i := range 3 {
		b, err := os.ReadFile(filepath.Join(dir, fmt.Sprint(i)))
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, strings.SplitAfter(string(b), "\n")...)
	}
	seen := make(map[uint64]string)
	var highest, twice uint64
	for i, line := range lines {
		if !strings.HasSuffix(line, "\n") { // where a consumer was killed
			continue
		}
		var seq uint64
		_, rest, _ := strings.Cut(line, `"seq":`)
		if _, err := fmt.Sscanf(rest, "%d", &seq); err != nil || !strings.HasPrefix(line, `{"type":"`) {
			t.Fatalf("line %d is not whole: %s", i, line)
		}
		if before, found := seen[seq]; found {
			twice++
			if before != line {
				t.Errorf("number %d came with two lines: %s and %s", seq, before, line)
			}
		}
		seen[seq] = line
		highest = max(highest, seq)
	}
	if uint64(len(seen)) != highest || highest < stormTransitions {
		t.Errorf("%d lines of %d came, want all\n%s", len(seen), highest, r.stderr)
	}
	t.Logf("%d lines, %d of them twice", highest, twice)
}

// awaitCurrent waits until a file has a record that is less than 200 ms old.
func awaitCurrent(t *testing.T, path string) {
	t.Helper()
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		b, _ := os.ReadFile(path)
		b = b[max(0, len(b)-8192):]
		if i := bytes.LastIndex(b, []byte(`"time":"`)); i >= 0 {
			text, _, _ := strings.Cut(string(b[i+len(`"time":"`):]), `"`)
			if at, err := time.Parse(time.RFC3339Nano, text); err == nil && time.Since(at) < 200*time.Millisecond {
				return
			}
		}
		if time.Since(began) > waitLimit {
			t.Fatalf("%s has no record of the present within %v", path, waitLimit)
		}
	}
}

// An absent reader is not an error, and a stalled one delays nobody: with a socket of datagrams whose
// buffer is full, the other output has everything, and the losses are counted.
func TestRemote_UnixgramFull(t *testing.T) {
	n, args := stormNamespace(t, "--stats-interval", "0", "--only", "transition")
	dir := t.TempDir()
	path, healthy := filepath.Join(dir, "socket"), filepath.Join(dir, "healthy")
	tr := launch(t, append(args, "--output", healthy+"?queue=64MiB", "--output", "unixgram://"+path))
	awaitGrowth(t, healthy, 0)
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	runStorm(t, n)
	tr.signal(syscall.SIGTERM)
	var text strings.Builder
	for b := make([]byte, 8192); !strings.Contains(text.String(), `{"type":"stop"`); {
		_ = conn.SetReadDeadline(time.Now().Add(waitLimit))
		size, err := conn.Read(b)
		if err != nil || size == 0 || strings.Count(string(b[:size]), "\n") != 1 || b[size-1] != '\n' {
			t.Fatalf("a datagram is %q, %v; want one line", b[:size], err)
		}
		text.Write(b[:size])
	}
	r := tr.waitUnread()
	r.mustEnd(t, 0)
	r.stdout = text.String()
	if stop := parseStream(t, r).last(); stop.LostQueue == 0 {
		t.Errorf("want losses: %s", stop.line)
	}
	s := fileStream(t, healthy, r)
	s.checkLosses(t, n, stormTransitions)
	if stop := s.last(); stop.LostQueue != 0 {
		t.Errorf("the healthy output ends with %s", stop.line)
	}
}

// The connection of an output is not among the records, even where its owner is not known; the
// consumer's end is.
func TestRemote_OwnConnectionLeftOut(t *testing.T) {
	requireRoot(t)
	l := listen(t, "tcp", "127.0.0.1:0")
	port := fmt.Sprint(l.Addr().(*net.TCPAddr).Port)
	for _, each := range []struct {
		exclude string
		client  bool
	}{{"--exclude-self", false}, {"--exclude-self=false", true}} {
		tr := startTracer(t, flags("--port", port, each.exclude, "--only", "transition", "--output", "-", "--output", "tcp://"+l.Addr().String()))
		conn, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond)
		conn.Close()
		conn, err = l.Accept() // it connects again
		if err != nil {
			t.Fatal(err)
		}
		go func() { _, _ = io.Copy(io.Discard, conn) }()
		time.Sleep(100 * time.Millisecond)
		tr.signal(syscall.SIGTERM)
		r := tr.wait()
		r.mustEnd(t, 0)
		s := parseStream(t, r)
		isRole := func(role string) func(record) bool {
			return func(rec record) bool { return rec.Role == role }
		}
		if got := slices.ContainsFunc(s.of("transition"), isRole("client")); got != each.client {
			t.Errorf("%s: the tracer's own end is there: %v\n%v", each.exclude, got, r)
		}
		if !slices.ContainsFunc(s.of("transition"), isRole("server")) {
			t.Errorf("%s: the consumer's end is missing\n%v", each.exclude, r)
		}
	}
}
