package cli_test

import (
	"bufio"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func newFIFO(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// isOpening reports whether the tracer is in open(2) with the flags of an output.
func (tr *tracer) isOpening() bool {
	tr.t.Helper()
	const flags = unix.O_WRONLY | unix.O_APPEND | unix.O_NOCTTY | unix.O_CLOEXEC
	return isInSystemCall(tr.t, tr.cmd.Process.Pid, unix.SYS_OPENAT, 2, flags)
}

// awaitOpening returns when the tracer blocks in open(2) of the FIFO.
func (tr *tracer) awaitOpening() {
	tr.t.Helper()
	for began := time.Now(); !tr.isOpening(); time.Sleep(time.Millisecond) {
		if time.Since(began) > waitLimit {
			tr.fatalf("the tracer did not open the FIFO within %v", waitLimit)
		}
	}
}

// The first signal ends a tracer that waits for a reader of its FIFO.
func TestFIFO_SignalWhileOpening(t *testing.T) {
	requireRoot(t)
	for name, s := range map[string]syscall.Signal{"SIGINT": syscall.SIGINT, "SIGTERM": syscall.SIGTERM, "SIGQUIT": syscall.SIGQUIT, "SIGHUP": syscall.SIGHUP} {
		for _, command := range [][]string{nil, {"snapshot"}} {
			path := newFIFO(t)
			tr := launch(t, append(command, "--output", path))
			tr.awaitOpening()
			tr.signal(s)
			r := tr.wait()
			r.mustEnd(t, 1)
			r.mustPrintNothing(t)
			r.mustPrintError(t, "--output: open "+path+": no process reads this FIFO: stopped waiting at "+name)
		}
	}
}

// A reader that opens the FIFO late gets the whole stream.
func TestFIFO_LateReader(t *testing.T) {
	requireRoot(t)
	path := newFIFO(t)
	tr := launch(t, append(quiet, "--output", path))
	tr.awaitOpening()
	reader, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	tr.out, tr.lines = reader, bufio.NewReader(reader)
	for began := time.Now(); tr.isOpening(); time.Sleep(time.Millisecond) {
		if time.Since(began) > waitLimit {
			tr.fatalf("the tracer did not notice the reader within %v", waitLimit)
		}
	}
	tr.awaitStart()
	tr.stop()
}
