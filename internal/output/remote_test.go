package output

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/test/testcert"
)

// messages are the notices of a remote.
type messages struct {
	mu   sync.Mutex
	text []string
}

func (m *messages) add(message string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.text = append(m.text, message)
}

func (m *messages) all() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]string(nil), m.text...)
}

// await waits for a message with word.
func (m *messages) await(t *testing.T, word string) {
	t.Helper()
	eventually(t, "message with "+word, func() bool { return strings.Contains(strings.Join(m.all(), "\n"), word) })
}

func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for began := time.Now(); !f(); time.Sleep(time.Millisecond) {
		if time.Since(began) > tooLong {
			t.Fatalf("no %s within %v", what, tooLong)
		}
	}
}

func openRemote(t *testing.T, r Remote) *remote {
	t.Helper()
	out, err := OpenRemote(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return out.(*remote)
}

// remoteTo makes a remote and its queue, which end with the test.
func remoteTo(t *testing.T, r Remote) (*Queue, *messages) {
	t.Helper()
	var m messages
	r.Notify = m.add
	out := openRemote(t, r)
	q := NewQueue(out, limit, m.add)
	t.Cleanup(func() {
		q.Abandon()
		if q.Close() {
			_ = out.Close()
		}
	})
	return q, &m
}

func listenTCP(t *testing.T) *net.TCPListener {
	t.Helper()
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func accept(t *testing.T, l net.Listener) net.Conn {
	t.Helper()
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// The pauses between attempts grow from 100 ms to 30 s, and up to half of each is left out.
func TestRemote_Pauses(t *testing.T) {
	for range 50 {
		o := openRemote(t, Remote{Notify: func(string) {}})
		for i := range 20 {
			before := time.Now()
			o.failed(io.EOF)
			most := longestRetry
			if i < 9 {
				most = min(most, firstRetry<<i)
			}
			if o.next.Before(before.Add(most/2)) || o.next.After(time.Now().Add(most+1)) {
				t.Errorf("pause %d is about %v, want %v to %v", i, o.next.Sub(before), most/2, most)
			}
		}
	}
}

// After a reset in the middle of a line, the next connection gets that line as a whole and, as the
// reader has not read them, the lines before it.
func TestRemote_ResetInLine(t *testing.T) {
	l := listenTCP(t)
	q, _ := remoteTo(t, Remote{Network: "tcp", Address: l.Addr().String()})
	want := numberedLines(200_000)
	put(t, q, want)
	first := accept(t, l)
	got := make([]byte, 1003)
	if _, err := io.ReadFull(first, got); err != nil {
		t.Fatal(err)
	}
	_ = first.(*net.TCPConn).SetLinger(0)
	first.Close()
	second := bufio.NewReader(accept(t, l))
	line, err := second.ReadString('\n')
	if err != nil || !strings.Contains(want, "\n"+line) && !strings.HasPrefix(want, line) {
		t.Fatalf("the second connection begins with %q, %v", line, err)
	}
	at := strings.Index(want, line)
	if at > len(got) {
		t.Errorf("bytes %d to %d are missing", len(got), at)
	}
	rest := make([]byte, len(want)-at-len(line))
	if _, err := io.ReadFull(second, rest); err != nil || !bytes.HasSuffix([]byte(want), rest) {
		t.Errorf("the second connection has other lines: %v", err)
	}
	if err := q.Drain(); err != nil {
		t.Error(err)
	}
}

// A slow reader gets what it may not have read, although no line follows.
func TestRemote_RepeatsToSlowReader(t *testing.T) {
	l := listenTCP(t)
	q, m := remoteTo(t, Remote{Network: "tcp", Address: l.Addr().String()})
	put(t, q, "first\n")
	first := accept(t, l)
	want := numberedLines(300_000)
	put(t, q, want)
	count := 0
	for b := make([]byte, 64<<10); q.Waiting() > 0; {
		_ = first.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
		n, _ := first.Read(b)
		count += n
	}
	_ = first.(*net.TCPConn).SetLinger(0)
	first.Close()
	second := accept(t, l)
	time.Sleep(longestWrite + longestWrite/2) // the write to the second connection ends early
	_ = second.SetReadDeadline(time.Now().Add(tooLong))
	var got []byte
	last := want[strings.LastIndexByte(want[:len(want)-1], '\n'):] // other lines end with as many x
	for b := make([]byte, 64<<10); !strings.HasSuffix(tail(got, len(last)), last); {
		n, err := second.Read(b)
		if err != nil {
			t.Fatalf("after %d bytes: %v; it ends with %q; %q", len(got), err, tail(got, 40), m.all())
		}
		got = append(got, b[:n]...)
	}
	if len(got)+count < len(want) {
		t.Errorf("%d and %d bytes came, want %d", count, len(got), len(want))
	}
}

func tail(b []byte, n int) string { return string(b[max(0, len(b)-n):]) }

// recorded keeps what a connection has read.
type recorded struct {
	net.Conn
	got *bytes.Buffer
}

func (r recorded) Read(b []byte) (int, error) {
	n, err := r.Conn.Read(b)
	r.got.Write(b[:n])
	return n, err
}

// A reader with the wrong certificate or name, or one that wants none of ours, gets nothing in plain
// text. One message has the reason and the address, and it tries again.
func TestRemote_WrongCertificate(t *testing.T) {
	cert, pool := testcert.New(t, "right.test")
	for name, each := range map[string]struct {
		config *tls.Config
		server *tls.Config
		want   string
	}{
		"name":      {&tls.Config{RootCAs: pool, ServerName: "wrong.test"}, &tls.Config{}, "not wrong.test"},
		"authority": {&tls.Config{RootCAs: x509.NewCertPool(), ServerName: "right.test"}, &tls.Config{}, "unknown authority"},
		"client":    {&tls.Config{RootCAs: pool, ServerName: "right.test"}, &tls.Config{ClientAuth: tls.RequireAnyClientCert}, "certificate required"},
	} {
		t.Run(name, func(t *testing.T) {
			l := listenTCP(t)
			q, m := remoteTo(t, Remote{Network: "tcp", Address: l.Addr().String(), TLS: each.config})
			put(t, q, "a secret line\n")
			each.server.Certificates = []tls.Certificate{cert}
			for range 3 {
				var got bytes.Buffer
				conn := accept(t, l)
				_ = tls.Server(recorded{conn, &got}, each.server).Handshake()
				conn.Close()
				if strings.Contains(got.String(), "secret") {
					t.Error("the line came in plain text")
				}
			}
			m.await(t, each.want)
			m.await(t, l.Addr().String())
			if all := m.all(); name != "client" && len(all) != 1 {
				t.Errorf("the messages are %q, want one", all)
			}
		})
	}
}

// A reader that closes only its direction ends the connection, too. It has whole lines, and so has the next one.
func TestRemote_HalfClose(t *testing.T) {
	l := listenTCP(t)
	q, _ := remoteTo(t, Remote{Network: "tcp", Address: l.Addr().String()})
	put(t, q, "first\n")
	first := accept(t, l)
	_ = first.(*net.TCPConn).CloseWrite()
	if got, err := io.ReadAll(first); err != nil || string(got) != "first\n" {
		t.Errorf("the first connection has %q, %v", got, err)
	}
	second := bufio.NewReader(accept(t, l))
	put(t, q, "second\n")
	for _, want := range []string{"first\n", "second\n"} {
		if line, err := second.ReadString('\n'); line != want {
			t.Errorf("the line is %q, %v; want %q", line, err, want)
		}
	}
}

// Neither a reader that never reads, nor an address where nobody is, nor one that does not answer, nor
// a name that nobody has, delays the end. What was not written is counted.
func TestRemote_EndWithoutReader(t *testing.T) {
	silent := listenTCP(t)
	lines := strings.Repeat("a line\n", 2_000_000)
	for name, r := range map[string]Remote{
		"never reads": {Network: "tcp", Address: silent.Addr().String()},
		"no TLS":      {Network: "tcp", Address: silent.Addr().String(), TLS: &tls.Config{ServerName: "x"}},
		"nobody":      {Network: "tcp", Address: "127.0.0.1:1"},
		"no socket":   {Network: "unix", Address: filepath.Join(t.TempDir(), "none")},
		"no datagram": {Network: "unixgram", Address: filepath.Join(t.TempDir(), "none")},
		"no answer":   {Network: "tcp", Address: fullListener(t)},
		"no name":     {Network: "tcp", Address: "nobody.invalid:1"},
	} {
		t.Run(name, func(t *testing.T) {
			q, _ := remoteTo(t, r)
			put(t, q, lines)
			all := q.Waiting() + int(q.Written())
			q.Abandon()
			mustReturn(t, "the end", func() {
				err := q.Drain()
				var left *NotWrittenError
				if !errors.As(err, &left) || left.Bytes == 0 || left.Bytes > all {
					t.Errorf("Drain returns %v of %d bytes", err, all)
				}
				q.Close()
			})
		})
	}
}

// fullListener is the address of a listener that answers no more connections.
func fullListener(t *testing.T) string {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	name, _ := unix.Getsockname(fd)
	address := (&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: name.(*unix.SockaddrInet4).Port}).String()
	for range 3 {
		conn, err := net.DialTimeout("tcp", address, 100*time.Millisecond)
		if err != nil {
			break
		}
		t.Cleanup(func() { conn.Close() })
	}
	return address
}

// An output names its socket before it connects, and no other.
func TestRemote_OwnSocket(t *testing.T) {
	l := listenTCP(t)
	var own OwnSockets
	q, _ := remoteTo(t, Remote{Network: "tcp", Address: l.Addr().String(), Own: &own})
	put(t, q, "line\n")
	conn := accept(t, l)
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	_ = raw.Control(func(fd uintptr) {
		if cookie, err := unix.GetsockoptUint64(int(fd), unix.SOL_SOCKET, unix.SO_COOKIE); err != nil || own.Has(cookie) {
			t.Errorf("the reader's end, in the same process, counts as the output's: %v", err)
		}
	})
	count := 0
	for i := range own.slots {
		if own.slots[i].Load() != 0 {
			count++
		}
	}
	if count != 1 || own.Has(0) {
		t.Errorf("%d sockets, want one", count)
	}
}

// A line that is longer than the socket's buffer arrives, and a reader that is behind has each line once.
func TestRemote_DatagramLongerThanBuffer(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	o := openRemote(t, Remote{Network: "unixgram", Address: path, Notify: func(m string) { t.Error(m) }})
	defer o.Close()
	o.begin()
	o.dialedWithin(tooLong)
	if err := o.conn.(*net.UnixConn).SetWriteBuffer(1); err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("x", 16<<10) + "\n"
	written := make(chan struct{})
	go func() { defer close(written); _, _ = o.Write([]byte(long + "short\n")) }()
	for _, want := range []string{long, "short\n"} {
		b := make([]byte, 32<<10)
		_ = l.SetReadDeadline(time.Now().Add(tooLong))
		if n, err := l.Read(b); err != nil || string(b[:n]) != want {
			t.Fatalf("a datagram has %d bytes, %v; want %d", n, err, len(want))
		}
	}
	<-written
}
