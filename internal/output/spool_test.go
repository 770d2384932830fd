package output

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/internal/safeopen"

	"github.com/tcpshift/tcpshift/test/testcert"
)

// spoolIn is a spool in a directory of the test.
func spoolIn(t *testing.T, dir string, size int64) *Spool {
	t.Helper()
	root, err := safeopen.PrivateRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return &Spool{Root: root, Name: "records", Size: size}
}

func openSpool(t *testing.T, dir string, size int64) (*spool, *messages) {
	t.Helper()
	var m messages
	s, err := spoolIn(t, dir, size).open(t.Context(), m.add)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.close() })
	return s, &m
}

// drainSpool takes all lines of a spool as if they were sent. It keeps the last count bytes.
func drainSpool(t *testing.T, s *spool, count int) string {
	t.Helper()
	var all bytes.Buffer
	for {
		lines, err := s.lines()
		if err != nil {
			t.Fatal(err)
		}
		if len(lines) == 0 {
			return all.String()
		}
		line := firstLine(lines)
		all.Write(line)
		s.sent(len(line))
		if err := s.keep(count); err != nil {
			t.Fatal(err)
		}
	}
}

func filesIn(t *testing.T, dir string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "records", "*.lines"))
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// The lines come in the order in which they were added, over several segments, which go when nothing
// in them is needed.
func TestSpool_Order(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "spool")
	s, _ := openSpool(t, dir, 16<<20)
	want := numberedLines(200_000)
	for rest := []byte(want); len(rest) > 0; {
		piece := rest[:wholeLines(rest[:min(len(rest), 50_000)])]
		if n, err := s.add(piece); n != len(piece) || err != nil {
			t.Fatalf("add takes %d of %d bytes, %v", n, len(piece), err)
		}
		rest = rest[len(piece):]
	}
	if count := len(filesIn(t, dir)); count < 3 {
		t.Fatalf("%d segments, want several", count)
	}
	if got := drainSpool(t, s, 0); got != want {
		t.Errorf("%d bytes came back, want %d", len(got), len(want))
	}
	if files := filesIn(t, dir); len(files) > 0 || s.size != 0 {
		t.Errorf("%q with %d bytes are left, want nothing", files, s.size)
	}
}

// A restart begins with the first line that was needed, wherever in the spool it is: no line is missing, and
// only those that were kept come twice.
func TestSpool_Restart(t *testing.T) {
	want := numberedLines(100_000)
	for _, kept := range []int{0, 5_000, 700_000} {
		dir := filepath.Join(t.TempDir(), "spool")
		s, _ := openSpool(t, dir, 16<<20)
		for rest := []byte(want); len(rest) > 0; {
			n, _ := s.add(rest[:wholeLines(rest[:min(len(rest), 64<<10)])])
			rest = rest[n:]
		}
		sent, from := 0, 0
		for sent < len(want)*3/4 {
			lines, err := s.lines()
			if err != nil {
				t.Fatal(err)
			}
			s.sent(len(lines))
			sent += len(lines)
			from = strings.LastIndexByte(want[:max(0, sent-kept)], '\n') + 1 // of whole lines
			if err := s.keep(sent - from); err != nil {
				t.Fatal(err)
			}
		}
		_ = s.close() // as the kernel does for a process that is killed
		s, _ = openSpool(t, dir, 16<<20)
		got := drainSpool(t, s, 0)
		if begin := len(want) - len(got); !strings.HasSuffix(want, got) || begin != from {
			t.Errorf("after %d bytes, %d of them kept, a restart begins at %d, want %d", sent, kept, begin, from)
		}
	}
}

// What a crash leaves behind the last whole line is dropped, and the operator is notified of it: part of a
// line, or zeros in place of lines that had not reached the disk.
func TestSpool_TornLine(t *testing.T) {
	for name, torn := range map[string]string{"part": `{"type":"tra`, "zeros": strings.Repeat("\x00", 5000), "zeros in a line": "abc\x00\x00\n"} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "spool")
			s, _ := openSpool(t, dir, 16<<20)
			if _, err := s.add([]byte("first\nsecond\n")); err != nil {
				t.Fatal(err)
			}
			_ = s.close()
			f, err := os.OpenFile(filesIn(t, dir)[0], os.O_WRONLY|os.O_APPEND, 0)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = f.WriteString(torn)
			f.Close()
			s, m := openSpool(t, dir, 16<<20)
			m.await(t, fmt.Sprintf("the last %d bytes", len(torn)))
			if _, err := s.add([]byte("third\n")); err != nil {
				t.Fatal(err)
			}
			if got := drainSpool(t, s, 0); got != "first\nsecond\nthird\n" {
				t.Errorf("the lines are %q", got)
			}
		})
	}
}

// A full spool takes as many whole lines as fit, and says so. When lines are gone it takes more.
func TestSpool_Full(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "spool")
	s, _ := openSpool(t, dir, 16<<20)
	lines, all := []byte(numberedLines(5000)), 0
	for {
		n, err := s.add(lines)
		all += n
		if err == nil {
			continue
		}
		if !errors.Is(err, errSpoolFull) || n != wholeLines(lines[:n]) {
			t.Fatalf("add takes %d bytes: %v", n, err)
		}
		break
	}
	if all > 16<<20 || all < 16<<20-64 {
		t.Errorf("it takes %d bytes, want 16 MiB less a line", all)
	}
	first, err := s.lines()
	for sent := 0; err == nil && sent < 1<<20; first, err = s.lines() {
		sent += len(first)
		s.sent(len(first))
	}
	if err := errors.Join(err, s.keep(0)); err != nil {
		t.Fatal(err)
	}
	if n, err := s.add(lines); n != len(lines) || err != nil {
		t.Errorf("after that add takes %d bytes, %v", n, err)
	}
}

// A directory, or a file in it, that somebody else may have put there is refused, and stays as it is. So is a
// spool that is in use.
func TestSpool_Refused(t *testing.T) {
	for name, prepare := range map[string]func(t *testing.T, dir string){
		"link in place of the directory": func(t *testing.T, dir string) {
			_ = os.Symlink(t.TempDir(), filepath.Join(dir, "records"))
		},
		"directory for all": func(_ *testing.T, dir string) {
			_ = os.Mkdir(filepath.Join(dir, "records"), 0o700)
			_ = os.Chmod(filepath.Join(dir, "records"), 0o777)
		},
		"link in place of a segment": func(_ *testing.T, dir string) {
			_ = os.Mkdir(filepath.Join(dir, "records"), 0o700)
			_ = os.Symlink("/etc/hostname", filepath.Join(dir, "records", "0000000000000001.lines"))
		},
		"second name of a segment": func(_ *testing.T, dir string) {
			_ = os.Mkdir(filepath.Join(dir, "records"), 0o700)
			other := filepath.Join(dir, "other")
			_ = os.WriteFile(other, []byte("line\n"), 0o600)
			_ = os.Link(other, filepath.Join(dir, "records", "0000000000000001.lines"))
		},
		"FIFO in place of the position": func(_ *testing.T, dir string) {
			_ = os.Mkdir(filepath.Join(dir, "records"), 0o700)
			_ = unix.Mkfifo(filepath.Join(dir, "records", positionName), 0o600)
		},
		"segment of another user": func(t *testing.T, dir string) {
			if os.Geteuid() != 0 {
				t.Skip("needs root")
			}
			_ = os.Mkdir(filepath.Join(dir, "records"), 0o700)
			path := filepath.Join(dir, "records", "0000000000000001.lines")
			_ = os.WriteFile(path, []byte("line\n"), 0o600)
			_ = os.Chown(path, 65534, 65534)
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "spool")
			o := spoolIn(t, dir, 16<<20)
			prepare(t, dir)
			if s, err := o.open(t.Context(), func(string) {}); !errors.Is(err, safeopen.ErrRefused) {
				t.Errorf("open returns %v, %v; want a refusal", s, err)
			}
		})
	}
	dir := filepath.Join(t.TempDir(), "spool")
	openSpool(t, dir, 16<<20)
	if _, err := spoolIn(t, dir, 16<<20).open(t.Context(), func(string) {}); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("a second open returns %v, want that it is in use", err)
	}
	if _, err := safeopen.PrivateRoot(filepath.Join(dir, "none", "spool")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a directory in one that does not exist: %v", err)
	}
	if info, err := os.Stat(filepath.Join(dir, "records")); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the directory: %v, %v", info.Mode(), err)
	}
}

// linesOf reads lines from connections until one is want. A line that is cut does not count.
func linesOf(t *testing.T, conn net.Conn, want string) (got []string) {
	t.Helper()
	_ = conn.SetReadDeadline(time.Now().Add(tooLong))
	for r := bufio.NewReader(conn); ; {
		line, err := r.ReadString('\n')
		if err != nil {
			t.Fatalf("after %d lines: %v; want %q", len(got), err, want)
		}
		got = append(got, line)
		if line == want {
			return got
		}
	}
}

// Without a reader the queue stays empty and never full: the lines are on disk. When the reader is there, it
// gets them in order, and live lines behind them.
func TestSpool_ReaderComesLate(t *testing.T) {
	l := listenTCP(t)
	address := l.Addr().String()
	l.Close()
	q, _ := remoteTo(t, Remote{Network: "tcp", Address: address, Spool: spoolIn(t, filepath.Join(t.TempDir(), "spool"), 64<<20)})
	want := numberedLines(300_000)
	for rest := want; rest != ""; {
		cut := strings.LastIndexByte(rest[:min(len(rest), 60_000)], '\n') + 1
		put(t, q, rest[:cut])
		rest = rest[cut:]
	}
	eventually(t, "empty queue", func() bool { return q.Waiting() == 0 })
	if bytes, ok := q.Spooled(); !ok || bytes != uint64(len(want)) {
		t.Errorf("the spool has %d bytes, %v; want %d", bytes, ok, len(want))
	}
	l, err := net.ListenTCP("tcp", l.Addr().(*net.TCPAddr))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conn := accept(t, l)
	put(t, q, "live\n")
	if got := strings.Join(linesOf(t, conn, "live\n"), ""); got != want+"live\n" {
		t.Errorf("%d bytes came, want %d", len(got), len(want)+5)
	}
}

// A reader that reads nothing is as good as none: what its connection does not take goes to disk, and the queue
// is never full. It then gets everything once, in order, and live lines behind. This also holds with TLS.
func TestSpool_StalledReader(t *testing.T) {
	cert, pool := testcert.New(t, "right.test")
	for name, config := range map[string]*tlsPair{"tcp": nil, "tls": {cert, pool}} {
		t.Run(name, func(t *testing.T) {
			l := listenTCP(t)
			r := Remote{Network: "tcp", Address: l.Addr().String(), Spool: spoolIn(t, filepath.Join(t.TempDir(), "spool"), 64<<20)}
			r.TLS = config.client()
			q, _ := remoteTo(t, r)
			put(t, q, "first\n")
			conn := config.server(accept(t, l))
			if got := linesOf(t, conn, "first\n"); len(got) != 1 {
				t.Fatalf("the reader has %q", got)
			}
			want := numberedLines(600_000) // more than sockets keep
			for rest := want; rest != ""; {
				cut := strings.LastIndexByte(rest[:min(len(rest), 60_000)], '\n') + 1
				eventually(t, "room", func() bool { return !q.Full() })
				put(t, q, rest[:cut])
				rest = rest[cut:]
			}
			eventually(t, "empty queue", func() bool { return q.Waiting() == 0 })
			put(t, q, "live\n")
			if got := strings.Join(linesOf(t, conn, "live\n"), ""); got != want+"live\n" {
				t.Errorf("%d bytes came, want %d", len(got), len(want)+5)
			}
		})
	}
}

// When a connection breaks while the spool is being sent, the next one begins with lines that the first
// reader has not read, and no line is missing between the two.
func TestSpool_ResetInReplay(t *testing.T) {
	l := listenTCP(t)
	spool := spoolIn(t, filepath.Join(t.TempDir(), "spool"), 64<<20)
	var m messages
	s, err := spool.open(t.Context(), m.add)
	if err != nil {
		t.Fatal(err)
	}
	want := strings.SplitAfter(strings.TrimSuffix(numberedLines(500_000), "\n"), "\n")
	want[len(want)-1] += "\n"
	if _, err := s.add([]byte(strings.Join(want, ""))); err != nil {
		t.Fatal(err)
	}
	_ = s.close()
	q, _ := remoteTo(t, Remote{Network: "tcp", Address: l.Addr().String(), Spool: spool})
	var got []string
	for i := range 3 {
		conn := accept(t, l)
		if i < 2 {
			got = append(got, linesOf(t, conn, want[100_000*(i+1)])...)
			_ = conn.(*net.TCPConn).SetLinger(0)
			conn.Close()
			put(t, q, fmt.Sprintf("live %d\n", i))
			continue
		}
		put(t, q, "end\n")
		got = append(got, linesOf(t, conn, "end\n")...)
	}
	want = append(want, "live 0\n", "live 1\n", "end\n")
	at := 0 // in want: each line is the next one, or one that has come before
	place := make(map[string]int)
	for i, line := range want {
		place[line] = i
	}
	twice := 0
	for _, line := range got {
		switch i, known := place[line]; {
		case !known:
			t.Fatalf("%q is no line", line)
		case i > at:
			t.Fatalf("after line %d comes line %d", at-1, i)
		case i < at:
			twice++
			at = i + 1
		default:
			at++
		}
	}
	if at != len(want) {
		t.Errorf("it ends with line %d of %d", at, len(want))
	}
	t.Logf("%d lines, %d jumps back", len(want), twice)
}

// A full spool stalls its output: ordinary records find the sink full from 95 % on, those that must not be lost have
// room behind that. A message says so. When the reader is back, there is room again, and the end reports what
// has no room as an error.
func TestSpool_FullStalls(t *testing.T) {
	const size = 16 << 20
	l := listenTCP(t)
	address := l.Addr().String()
	l.Close()
	q, m := remoteTo(t, Remote{Network: "tcp", Address: address, Spool: spoolIn(t, filepath.Join(t.TempDir(), "spool"), size)})
	var all strings.Builder
	add := func(lines string) { put(t, q, lines); all.WriteString(lines) }
	for lines := numberedLines(3000); !q.Full(); {
		add(lines)
		eventually(t, "empty queue", func() bool { return q.Waiting() == 0 })
	}
	if used, _ := q.Spooled(); used < size*95/100 || used > size*96/100 {
		t.Errorf("it is full at %d bytes, want 95 %% of %d", used, size)
	}
	if room := q.Room(); room < size*3/100 || room > size*5/100 {
		t.Errorf("room for %d bytes, want almost 5 %% of %d", room, size)
	}
	for q.Room() > 100 {
		add("an alert\n" + strings.Repeat("x", min(50_000, q.Room()-20)) + "\n")
		eventually(t, "empty queue", func() bool { return q.Waiting() == 0 })
	}
	eventually(t, "empty queue", func() bool { return q.Waiting() == 0 })
	l, err := net.ListenTCP("tcp", l.Addr().(*net.TCPAddr))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conn := accept(t, l)
	var got atomic.Int64
	go func() {
		b := make([]byte, 64<<10)
		for {
			n, err := conn.Read(b)
			if got.Add(int64(n)); err != nil {
				return
			}
		}
	}()
	eventually(t, "all bytes", func() bool { return got.Load() == int64(all.Len()) })
	if q.Full() {
		t.Error("it is full although the reader has everything")
	}
	for _, message := range m.all() {
		if strings.Contains(message, "full") {
			t.Errorf("message %q, but nothing was beyond the size", message)
		}
	}
}

// The end does not wait for a reader if the spool has no room, and reports what it could not keep.
func TestSpool_FullAtEnd(t *testing.T) {
	spool := spoolIn(t, filepath.Join(t.TempDir(), "spool"), 16<<20)
	q, _ := remoteTo(t, Remote{Network: "tcp", Address: "127.0.0.1:1", Spool: spool})
	put(t, q, strings.Repeat("a line\n", 3<<20))
	mustReturn(t, "Drain", func() {
		if err := q.Drain(); !errors.Is(err, errSpoolFull) {
			t.Errorf("Drain returns %v, want that the spool is full", err)
		}
	})
	if used, _ := q.Spooled(); used > 16<<20 || used < 16<<20-8 {
		t.Errorf("the spool has %d bytes, want 16 MiB less a line", used)
	}
}

// A spool on a disk that does not answer does not delay the start beyond the caller's limit.
func TestSpool_OpenIsBounded(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(io.ErrClosedPipe)
	// A context that is done wins only if open has no result yet, as on a disk that hangs.
	for range 100 {
		s, err := spoolIn(t, filepath.Join(t.TempDir(), "spool"), 16<<20).open(ctx, func(string) {})
		if err == nil {
			_ = s.close()
			continue
		}
		if !errors.Is(err, io.ErrClosedPipe) {
			t.Fatal(err)
		}
		return
	}
	t.Error("open waits for the disk although the context is done")
}

// tlsPair is the certificate of a reader and the pool of who has signed it; nil: no TLS.
type tlsPair struct {
	cert tls.Certificate
	pool *x509.CertPool
}

func (p *tlsPair) client() *tls.Config {
	if p == nil {
		return nil
	}
	return &tls.Config{RootCAs: p.pool, ServerName: "right.test"}
}

func (p *tlsPair) server(conn net.Conn) net.Conn {
	if p == nil {
		return conn
	}
	return tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{p.cert}})
}
