package cli_test

import (
	"bufio"
	"bytes"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// quiet is a filter that leaves out all transitions: no program uses this port.
var quiet = slices.Clip(flags("--port", "1"))

// tracer is a running binary whose standard output is read line by line.
type tracer struct {
	t       testing.TB
	cmd     *exec.Cmd
	out     *os.File // our end of the pipe; nil if adjust set another output
	lines   *bufio.Reader
	read    strings.Builder // what was read from out
	started string          // the start record, after awaitStart
	stderr  bytes.Buffer
	waited  bool
}

// launch starts the binary. If it still runs at the end of the test, it is killed.
func launch(t testing.TB, args []string, adjust ...func(*exec.Cmd)) *tracer {
	t.Helper()
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatalf("make a pipe: %v", err)
	}
	tr := &tracer{t: t, cmd: exec.Command(program, args...), out: out, lines: bufio.NewReader(out)}
	tr.cmd.Stdout, tr.cmd.Stderr = in, &tr.stderr
	for _, f := range adjust {
		f(tr.cmd)
	}
	err = tr.cmd.Start()
	in.Close()
	if err != nil {
		out.Close()
		t.Fatalf("start %s: %v", commandLine(tr.cmd.Args), err)
	}
	t.Cleanup(func() {
		if !tr.waited {
			_ = tr.cmd.Process.Kill()
			_ = tr.cmd.Wait()
		}
		out.Close()
	})
	return tr
}

// startTracer starts the binary and waits for its start record: it sees every later
// transition.
func startTracer(t testing.TB, args []string, adjust ...func(*exec.Cmd)) *tracer {
	t.Helper()
	tr := launch(t, args, adjust...)
	tr.awaitStart()
	return tr
}

func (tr *tracer) awaitStart() {
	tr.t.Helper()
	tr.started = tr.next()
	if !strings.HasPrefix(tr.started, `{"type":"start",`) {
		tr.fatalf("the first line is not start: %s", tr.started)
	}
}

// next reads one line.
func (tr *tracer) next() string {
	tr.t.Helper()
	_ = tr.out.SetReadDeadline(time.Now().Add(waitLimit))
	line, err := tr.lines.ReadString('\n')
	tr.read.WriteString(line)
	if err != nil {
		tr.fatalf("no further line on standard output: %v", err)
	}
	return line
}

// await reads lines until a wanted one comes.
func (tr *tracer) await(what string, wanted func(line string) bool) {
	tr.t.Helper()
	for began := time.Now(); !wanted(tr.next()); {
		if time.Since(began) > waitLimit {
			tr.fatalf("no %s within %v", what, waitLimit)
		}
	}
}

func (tr *tracer) signal(s syscall.Signal) {
	tr.t.Helper()
	if err := tr.cmd.Process.Signal(s); err != nil {
		tr.fatalf("send %v: %v", s, err)
	}
}

// wait reads the rest of the output and waits for the end.
func (tr *tracer) wait() result {
	tr.t.Helper()
	killer := time.AfterFunc(waitLimit, func() { _ = tr.cmd.Process.Kill() })
	defer killer.Stop()
	_ = tr.out.SetReadDeadline(time.Now().Add(waitLimit))
	_, _ = tr.lines.WriteTo(&tr.read)
	return tr.waitUnread()
}

// waitUnread waits for the end without reading.
func (tr *tracer) waitUnread() result {
	tr.t.Helper()
	killer := time.AfterFunc(waitLimit, func() { _ = tr.cmd.Process.Kill() })
	err := tr.cmd.Wait()
	tr.waited = true
	r := newResult(tr.cmd, err)
	r.stdout, r.stderr = tr.read.String(), tr.stderr.String()
	if !killer.Stop() {
		r.stderr += "[killed by the test after " + waitLimit.String() + "]\n"
	}
	return r
}

// stop ends the tracer with SIGTERM and returns its stream, which must be complete.
func (tr *tracer) stop() stream {
	tr.t.Helper()
	tr.signal(syscall.SIGTERM)
	return tr.end("signal")
}

// end waits for the end of the tracer and returns its stream.
func (tr *tracer) end(reason string) stream {
	tr.t.Helper()
	r := tr.wait()
	r.mustEnd(tr.t, 0)
	r.mustPrintError(tr.t, "")
	s := parseStream(tr.t, r)
	if last := s.last(); last.Reason != reason {
		tr.t.Fatalf("stop has reason %q, want %q\n%v", last.Reason, reason, r)
	}
	return s
}

// fatalf ends the process first, to show its output.
func (tr *tracer) fatalf(format string, args ...any) {
	tr.t.Helper()
	if !tr.waited {
		_ = tr.cmd.Process.Kill()
		tr.t.Errorf(format, args...)
		tr.t.Fatalf("%v", tr.waitUnread())
	}
	tr.t.Fatalf(format, args...)
}
