package output

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// outputTo makes an output of an open file, as "-" does of standard output.
func outputTo(t *testing.T, f *os.File) *Output {
	t.Helper()
	o, err := newOutput(f, false)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func open(t *testing.T, path string) *Output {
	t.Helper()
	o, err := Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { o.Close() })
	return o
}

func write(t *testing.T, o *Output, lines string) {
	t.Helper()
	if n, err := o.Write([]byte(lines)); err != nil || n != len(lines) {
		t.Fatalf("writing %d bytes gives %d, %v", len(lines), n, err)
	}
}

func content(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestAFileIsAppendedToAndMadeIfNeedBe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "records")
	for i := range 3 {
		o := open(t, path)
		write(t, o, fmt.Sprintf("first of run %d\n", i))
		write(t, o, fmt.Sprintf("second of run %d\n", i))
		if err := o.Close(); err != nil {
			t.Fatalf("close: %v", err)
		}
	}
	want := "first of run 0\nsecond of run 0\nfirst of run 1\nsecond of run 1\nfirst of run 2\nsecond of run 2\n"
	if got := content(t, path); got != want {
		t.Errorf("the file holds %q, want %q", got, want)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if mode := info.Mode().Perm(); mode&0o007 != 0 {
		t.Errorf("the file's mode is %v, want nothing for others: records name processes and peers", mode)
	}
}

func TestAFileThatAnotherProcessAppendsToKeepsBoth(t *testing.T) {
	path := filepath.Join(t.TempDir(), "records")
	one, other := open(t, path), open(t, path)
	write(t, one, "1\n")
	write(t, other, "2\n")
	write(t, one, "3\n")
	if got, want := content(t, path), "1\n2\n3\n"; got != want {
		t.Errorf("the file holds %q, want %q", got, want)
	}
}

func TestAPathThatCannotBeOpenedIsNamedInTheError(t *testing.T) {
	path := filepath.Join(t.TempDir(), "not", "there")
	if _, err := Open(t.Context(), path); err == nil || !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), path) {
		t.Errorf("got the error %v, want that %s does not exist", err, path)
	}
	directory := t.TempDir()
	if _, err := Open(t.Context(), directory); err == nil || !strings.Contains(err.Error(), directory) {
		t.Errorf("got the error %v, want that %s is a directory", err, directory)
	}
}

func TestADashIsStandardOutputAndIsNotClosed(t *testing.T) {
	reader, writer := pipe(t)
	stdout := os.Stdout
	os.Stdout = writer
	defer func() { os.Stdout = stdout }()
	o := open(t, "-")
	write(t, o, "line\n")
	if err := o.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	if _, err := writer.WriteString("still open\n"); err != nil {
		t.Errorf("after Close standard output gives %v, want it open", err)
	}
	writer.Close()
	if got, err := io.ReadAll(reader); err != nil || string(got) != "line\nstill open\n" {
		t.Errorf("the reader gets %q, %v", got, err)
	}
}

func pipe(t *testing.T) (reader, writer *os.File) {
	t.Helper()
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { reader.Close(); writer.Close() })
	return reader, writer
}

func socketPair(t *testing.T) (ours, theirs *os.File) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs = os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "theirs")
	t.Cleanup(func() { ours.Close(); theirs.Close() })
	return ours, theirs
}

func tcpPair(t *testing.T) (ours, theirs *os.File) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	client, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	server, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	fileOf := func(c net.Conn) *os.File {
		f, err := c.(*net.TCPConn).File()
		if err != nil {
			t.Fatal(err)
		}
		c.Close() // the file is a duplicate
		t.Cleanup(func() { f.Close() })
		return f
	}
	return fileOf(client), fileOf(server)
}

func TestAReaderThatGoesAwayIsSeenBeforeAnyWrite(t *testing.T) {
	for name, pair := range map[string]func(t *testing.T) (ours, theirs *os.File){
		"pipe": func(t *testing.T) (ours, theirs *os.File) {
			reader, writer := pipe(t)
			return writer, reader
		},
		"unix socket": socketPair,
	} {
		t.Run(name, func(t *testing.T) {
			ours, theirs := pair(t)
			o := outputTo(t, ours)
			if o.ReaderGone() {
				t.Fatal("the reader is held to be gone, and is there")
			}
			write(t, o, "line\n")
			if o.ReaderGone() {
				t.Fatal("the reader is held to be gone after a write, and is there")
			}
			theirs.Close()
			if !o.ReaderGone() {
				t.Error("the reader is held to be there, and is gone")
			}
			if n, err := o.Write([]byte("line\n")); !errors.Is(err, ErrReaderGone) {
				t.Errorf("a write gives %d, %v; want %v", n, err, ErrReaderGone)
			}
		})
	}
}

func TestATCPConnectionThatIsResetIsAReaderThatWentAway(t *testing.T) {
	ours, theirs := tcpPair(t)
	o := outputTo(t, ours)
	if o.ReaderGone() {
		t.Fatal("the reader is held to be gone, and is there")
	}
	write(t, o, "never read\n")
	theirs.Close() // with unread data: a reset
	// The kernel may deliver it a little later.
	reset := []unix.PollFd{{Fd: int32(ours.Fd())}}
	if n, err := unix.Poll(reset, 10_000); n != 1 || err != nil {
		t.Fatalf("waiting for the reset gives %d, %v", n, err)
	}
	if !o.ReaderGone() {
		t.Error("the reader is held to be there, and has reset the connection")
	}
	if n, err := o.Write([]byte("line\n")); !errors.Is(err, ErrReaderGone) {
		t.Errorf("a write gives %d, %v; want %v", n, err, ErrReaderGone)
	}
}

func TestAFileHasNoReaderThatCouldGoAway(t *testing.T) {
	o := open(t, filepath.Join(t.TempDir(), "records"))
	if o.ReaderGone() {
		t.Error("a file's reader is held to be gone")
	}
	null := open(t, "/dev/null")
	write(t, null, "line\n")
	if null.ReaderGone() {
		t.Error("the reader of /dev/null is held to be gone")
	}
}

func TestAFullDeviceGivesTheSystemsError(t *testing.T) {
	o := open(t, "/dev/full")
	n, err := o.Write([]byte("line\n"))
	if n != 0 || !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), "/dev/full") {
		t.Errorf("a write gives %d, %v; want 0 and ENOSPC with the name /dev/full", n, err)
	}
	if errors.Is(err, ErrReaderGone) {
		t.Error("a full device is taken for a reader that went away")
	}
}
