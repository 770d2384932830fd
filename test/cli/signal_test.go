package cli_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A signal ends the stream, and stop names the signal.
func TestSignal_NamedInStop(t *testing.T) {
	requireRoot(t)
	for name, s := range map[string]syscall.Signal{"SIGINT": syscall.SIGINT, "SIGTERM": syscall.SIGTERM, "SIGQUIT": syscall.SIGQUIT, "SIGHUP": syscall.SIGHUP} {
		t.Run(name, func(t *testing.T) {
			tr := startTracer(t, []string{"--only", "stats", "--stats-interval", "1ms"})
			tr.next()
			tr.signal(s)
			got := tr.end("signal")
			if got.last().Signal != name {
				t.Errorf("stop has signal %q, want %q\n%v", got.last().Signal, name, got.result)
			}
		})
	}
}

// A signal that comes before the start record ends the run, too.
func TestSignal_BeforeStart(t *testing.T) {
	requireRoot(t)
	// With growing delays, signals come at many moments of the start.
	for delay := time.Duration(0); delay < 200*time.Millisecond; delay += 20 * time.Millisecond {
		tr := launch(t, quiet)
		time.Sleep(delay) // the moment is the input of the test
		tr.signal(syscall.SIGTERM)
		r := tr.wait()
		if r.signal == syscall.SIGTERM && r.stdout == "" {
			continue // before the tracer handled signals
		}
		r.mustEnd(t, 0)
		r.mustPrintError(t, "")
		if s := parseStream(t, r); s.last().Signal != "SIGTERM" {
			t.Errorf("signal %v after the start: want a stop that names it\n%v", delay, r)
		}
	}
}

// A reader that stalls and reads on after the signal gets the whole stream.
func TestSignal_ReaderResumes(t *testing.T) {
	requireRoot(t)
	tr := blockedTracer(t)
	tr.signal(syscall.SIGTERM)
	tr.end("signal")
}

// A second signal ends the tracer when its reader does not read.
func TestSignal_SecondSignal(t *testing.T) {
	requireRoot(t)
	tr := blockedTracer(t)
	opened := openObjects(t, tr)
	ended := make(chan result)
	go func() { ended <- tr.waitUnread() }()
	repeat := time.NewTicker(20 * time.Millisecond)
	defer repeat.Stop()
	for signals := 0; ; {
		select {
		case r := <-ended:
			if r.signal != syscall.SIGTERM || signals < 2 {
				t.Errorf("after %d signals, want an end by SIGTERM\n%v", signals, r)
			}
			mustBeGone(t, opened)
			return
		case <-repeat.C: // the first signal may not have been delivered yet
			_ = tr.cmd.Process.Signal(syscall.SIGTERM)
			signals++
		}
	}
}

// blockedTracer starts a tracer that waits for the reader of a full pipe.
func blockedTracer(t *testing.T, adjust ...func(*exec.Cmd)) *tracer {
	t.Helper()
	tr := startTracer(t, []string{"--only", "stats", "--stats-interval", "1ms"}, adjust...)
	if _, err := unix.FcntlInt(tr.out.Fd(), unix.F_SETPIPE_SZ, os.Getpagesize()); err != nil {
		t.Fatalf("shrink the pipe: %v", err)
	}
	if err := unix.SetNonblock(int(tr.out.Fd()), true); err != nil { // Fd has made it blocking
		t.Fatalf("fcntl: %v", err)
	}
	began := time.Now()
	for last, same := 0, 0; same < 20; time.Sleep(10 * time.Millisecond) {
		size, err := unix.IoctlGetInt(int(tr.out.Fd()), unix.TIOCINQ)
		if err == nil {
			err = unix.SetNonblock(int(tr.out.Fd()), true)
		}
		if err != nil || time.Since(began) > waitLimit {
			tr.fatalf("the pipe was not full within %v: %v", waitLimit, err)
		}
		if same++; size != last || size == 0 {
			last, same = size, 0
		}
	}
	return tr
}

// isInSystemCall reports whether a thread waits in a system call with this argument.
func isInSystemCall(t testing.TB, pid, number, argument int, value uint64) bool {
	t.Helper()
	waits, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/syscall", pid))
	if err != nil || len(waits) == 0 {
		t.Fatalf("find the threads of %d: %v", pid, err)
	}
	for _, path := range waits {
		call, err := os.ReadFile(path)
		fields := strings.Fields(string(call))
		if err == nil && len(fields) > 1+argument && fields[0] == strconv.Itoa(number) &&
			fields[1+argument] == fmt.Sprintf("%#x", value) {
			return true
		}
	}
	return false
}

// If the reader has closed its end, the run ends normally, even with nothing to write.
func TestReaderGone_NothingToWrite(t *testing.T) {
	requireRoot(t)
	t.Run("pipe", func(t *testing.T) {
		tr := startTracer(t, []string{"--only", "stats", "--stats-interval", "0"})
		tr.out.Close() // as head -n 1 does
		r := tr.waitUnread()
		r.mustEnd(t, 0)
		r.mustPrintError(t, "")
	})
	t.Run("socket", func(t *testing.T) {
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		ours, theirs := os.NewFile(uintptr(pair[0]), "ours"), os.NewFile(uintptr(pair[1]), "theirs")
		defer ours.Close()
		tr := launch(t, []string{"--only", "stats", "--stats-interval", "0"}, withStdout(theirs))
		theirs.Close()
		tr.out = ours
		tr.lines.Reset(ours)
		tr.next()
		ours.Close()
		r := tr.waitUnread()
		r.mustEnd(t, 0)
		r.mustPrintError(t, "")
	})
}

// If the reader closes its end while records come, the run ends normally.
func TestReaderGone_WhileRecordsCome(t *testing.T) {
	requireRoot(t)
	tr := startTracer(t, []string{"--only", "stats", "--stats-interval", "1ms"})
	tr.next()
	tr.out.Close()
	r := tr.waitUnread()
	r.mustEnd(t, 0)
	r.mustPrintError(t, "")
}

// If the reader has closed its end, every command ends normally.
func TestReaderGone_EveryCommand(t *testing.T) {
	requireRoot(t)
	for _, args := range [][]string{nil, {"snapshot"}, {"snapshot", "--format", "text"}, {"doctor"}, {"version"}, {"explain"}, {"explain", "CLOSE"}, {"help"}, {"completion", "bash"}} {
		reader, writer, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		reader.Close()
		r := run(args, withStdout(writer))
		writer.Close()
		r.mustEnd(t, 0)
		r.mustPrintError(t, "")
	}
}
