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

// outputTo makes an output for an open file, as Open does for "-".
func outputTo(t *testing.T, f *os.File) Output {
	t.Helper()
	o, err := newOutput(descriptor{fd: int(f.Fd()), name: f.Name()}, "", FileOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func open(t *testing.T, path string) Output {
	t.Helper()
	o, err := Open(t.Context(), path, false)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { o.Close() })
	return o
}

func write(t *testing.T, o Output, lines string) {
	t.Helper()
	if n, err := o.Write([]byte(lines)); err != nil || n != len(lines) {
		t.Fatalf("writing %d bytes returns %d, %v", len(lines), n, err)
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

// Open creates a file without access for others, and appends to one that exists.
func TestFile_CreateAndAppend(t *testing.T) {
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
		t.Errorf("the file contains %q, want %q", got, want)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if mode := info.Mode().Perm(); mode&0o007 != 0 {
		t.Errorf("the file's mode is %v, want no access for others: records name processes and peers", mode)
	}
}

// Two outputs that append to one file keep the lines of both.
func TestFile_SharedAppend(t *testing.T) {
	path := filepath.Join(t.TempDir(), "records")
	one, other := open(t, path), open(t, path)
	write(t, one, "1\n")
	write(t, other, "2\n")
	write(t, one, "3\n")
	if got, want := content(t, path), "1\n2\n3\n"; got != want {
		t.Errorf("the file contains %q, want %q", got, want)
	}
}

// The error for a path that cannot be opened contains the path.
func TestOpen_ErrorNamesPath(t *testing.T) {
	path := filepath.Join(t.TempDir(), "not", "there")
	if _, err := Open(t.Context(), path, false); err == nil || !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), path) {
		t.Errorf("got the error %v, want that %s does not exist", err, path)
	}
	directory := t.TempDir()
	if _, err := Open(t.Context(), directory, false); err == nil || !strings.Contains(err.Error(), directory) {
		t.Errorf("got the error %v, want that %s is a directory", err, directory)
	}
}

// "-" is standard output, which Close leaves open.
func TestOpen_StandardOutput(t *testing.T) {
	reader, writer := makePipe(t)
	stdout := os.Stdout
	os.Stdout = writer
	defer func() { os.Stdout = stdout }()
	o := open(t, "-")
	write(t, o, "line\n")
	if err := o.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	if _, err := writer.WriteString("still open\n"); err != nil {
		t.Errorf("a write to standard output after Close returns %v, want it open", err)
	}
	writer.Close()
	if got, err := io.ReadAll(reader); err != nil || string(got) != "line\nstill open\n" {
		t.Errorf("the reader reads %q, %v", got, err)
	}
}

func makePipe(t *testing.T) (reader, writer *os.File) {
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

// A pipe or socket whose reader has closed its end is reported before any write, and a
// write fails with ErrReaderGone.
func TestReaderGone_WithoutWrite(t *testing.T) {
	for name, pair := range map[string]func(t *testing.T) (ours, theirs *os.File){
		"pipe": func(t *testing.T) (ours, theirs *os.File) {
			reader, writer := makePipe(t)
			return writer, reader
		},
		"unix socket": socketPair,
	} {
		t.Run(name, func(t *testing.T) {
			ours, theirs := pair(t)
			o := outputTo(t, ours)
			if o.ReaderGone() {
				t.Fatal("the reader is reported as gone, and is there")
			}
			write(t, o, "line\n")
			if o.ReaderGone() {
				t.Fatal("the reader is reported as gone after a write, and is there")
			}
			theirs.Close()
			if !o.ReaderGone() {
				t.Error("the reader is gone, and not reported as gone")
			}
			if n, err := o.Write([]byte("line\n")); !errors.Is(err, ErrReaderGone) {
				t.Errorf("Write returns %d, %v; want %v", n, err, ErrReaderGone)
			}
		})
	}
}

// A TCP connection that was reset is reported as a reader that went away.
func TestReaderGone_TCPReset(t *testing.T) {
	ours, theirs := tcpPair(t)
	o := outputTo(t, ours)
	if o.ReaderGone() {
		t.Fatal("the reader is reported as gone, and is there")
	}
	write(t, o, "never read\n")
	theirs.Close() // unread data makes the kernel send a reset, maybe a little later
	reset := []unix.PollFd{{Fd: int32(ours.Fd())}}
	if n, err := unix.Poll(reset, 10_000); n != 1 || err != nil {
		t.Fatalf("poll for the reset returns %d, %v", n, err)
	}
	if !o.ReaderGone() {
		t.Error("the reader has reset the connection, and is not reported as gone")
	}
	if n, err := o.Write([]byte("line\n")); !errors.Is(err, ErrReaderGone) {
		t.Errorf("Write returns %d, %v; want %v", n, err, ErrReaderGone)
	}
}

// Neither a file nor /dev/null has a reader that can go away.
func TestReaderGone_NeverForFile(t *testing.T) {
	o := open(t, filepath.Join(t.TempDir(), "records"))
	if o.ReaderGone() {
		t.Error("the reader of a file is reported as gone")
	}
	null := open(t, "/dev/null")
	write(t, null, "line\n")
	if null.ReaderGone() {
		t.Error("the reader of /dev/null is reported as gone")
	}
}

// A write to a full device fails with the system's error and the name of the device.
func TestDevice_Full(t *testing.T) {
	o := open(t, "/dev/full")
	n, err := o.Write([]byte("line\n"))
	if n != 0 || !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), "/dev/full") {
		t.Errorf("Write returns %d, %v; want 0 and ENOSPC with the name /dev/full", n, err)
	}
	if errors.Is(err, ErrReaderGone) {
		t.Error("a full device is reported as a reader that went away")
	}
}
