package cli_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// result is the output and the end of a run.
type result struct {
	command        string
	status         int            // -1 if a signal ended it
	signal         syscall.Signal // that ended it
	stdout, stderr string
}

// String formats the run for a failure message.
func (r result) String() string {
	how := strconv.Itoa(r.status)
	if r.signal != 0 {
		how = "ended by " + r.signal.String()
	}
	return fmt.Sprintf("command: %s\nstatus:  %s\nstdout:\n%s\nstderr:\n%s", r.command, how, r.stdout, r.stderr)
}

func flags(args ...string) []string { return args }

// run runs the binary and waits for its end. Any goroutine may call it.
func run(args []string, adjust ...func(*exec.Cmd)) result {
	ctx, cancel := context.WithTimeout(context.Background(), waitLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	for _, f := range adjust {
		f(cmd)
	}
	err := cmd.Run()
	r := newResult(cmd, err)
	r.stdout, r.stderr = stdout.String(), stderr.String()
	if ctx.Err() != nil {
		r.stderr += fmt.Sprintf("[killed by the test after %v]\n", waitLimit)
	}
	return r
}

func withStdout(f *os.File) func(*exec.Cmd) {
	return func(cmd *exec.Cmd) { cmd.Stdout = f }
}

func newResult(cmd *exec.Cmd, err error) result {
	r := result{command: commandLine(cmd.Args), status: -1}
	if cmd.ProcessState == nil {
		r.command += fmt.Sprintf(" [not run: %v]", err)
		return r
	}
	r.status = cmd.ProcessState.ExitCode()
	if s, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && s.Signaled() {
		r.signal = s.Signal()
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		r.command += fmt.Sprintf(" [%v]", err)
	}
	return r
}

// commandLine formats arguments, with quotes where needed.
func commandLine(args []string) string {
	words := []string{filepath.Base(args[0])}
	for _, arg := range args[1:] {
		if arg == "" || strings.ContainsFunc(arg, func(r rune) bool { return r <= ' ' || r > '~' || r == '"' }) {
			arg = strconv.Quote(arg)
		}
		words = append(words, arg)
	}
	return strings.Join(words, " ")
}

// mustEnd checks the exit status.
func (r result) mustEnd(t testing.TB, status int) {
	t.Helper()
	if r.status != status {
		t.Fatalf("status %d, want %d\n%v", r.status, status, r)
	}
}

// mustPrintError checks that standard error is this line, or empty for "".
func (r result) mustPrintError(t testing.TB, line string) {
	t.Helper()
	want := line
	if line != "" {
		want = "tcpshift: " + line + "\n"
	}
	if r.stderr != want {
		t.Errorf("standard error is wrong, want:\n%s\n%v", want, r)
	}
}

func (r result) mustPrintNothing(t testing.TB) {
	t.Helper()
	if r.stdout != "" {
		t.Errorf("want nothing on standard output\n%v", r)
	}
}
