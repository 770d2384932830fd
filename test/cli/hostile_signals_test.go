package cli_test

import (
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/cap"

	"github.com/tcpshift/tcpshift/internal/sandbox"
)

// withSignalLimit starts a program with these limits (soft:hard) of queued signals.
func withSignalLimit(t *testing.T, limits string) func(*exec.Cmd) {
	path := lookPath(t, "prlimit")
	return func(cmd *exec.Cmd) {
		cmd.Args = append([]string{"prlimit", "--sigpending=" + limits, cmd.Path}, cmd.Args[1:]...)
		cmd.Path = path
	}
}

// A tracer for which the kernel queues no signal starts, works and ends: where it cannot raise the
// limit it keeps its privileges, and says so.
func TestHostile_NoRoomForSignals(t *testing.T) {
	requireSandbox(t)
	mayRaise, err := cap.GetProc().GetFlag(cap.Effective, cap.SYS_RESOURCE)
	if err != nil {
		t.Fatal(err)
	}
	for limits, enough := range map[string]bool{"0:0": mayRaise, "3:3": mayRaise, "0:10000": true} {
		t.Run(limits, func(t *testing.T) {
			tr := startTracer(t, flags("--sandbox", "--only", "stats", "--port", "1", "--stats-interval", "10ms"), withSignalLimit(t, limits))
			got := privilegesIn(t, "/proc/"+strconv.Itoa(tr.cmd.Process.Pid)+"/status")
			if kept := got["CapEff"]&(1<<unix.CAP_NET_RAW) != 0; kept == enough {
				t.Errorf("it keeps CAP_NET_RAW: %v, want %v", kept, !enough)
			}
			reason, off := featuresOf(t, tr.started)[sandbox.Landlock].(string)
			if off == enough || off && !strings.Contains(reason, "signals") {
				t.Errorf("the start record is %s, want Landlock on: %v", tr.started, enough)
			}
			tr.signal(syscall.SIGTERM)
			r := tr.wait()
			r.mustEnd(t, 0)
			const warning = "tcpshift: it keeps privileges that it no longer needs: too many signals are queued for this user: raise its limit (prlimit --sigpending="
			if warned := strings.HasPrefix(r.stderr, warning); warned == enough || enough && r.stderr != "" {
				t.Errorf("standard error is %q", r.stderr)
			}
			parseStream(t, r)
		})
	}
}

// A terminal with `stty tostop` does not stop a tracer that writes to it from the background.
func TestHostile_TerminalStopsBackground(t *testing.T) {
	requireRoot(t)
	ours, theirs := outputPair(t, "terminal")
	settings, err := unix.IoctlGetTermios(int(theirs.Fd()), unix.TCGETS)
	if err == nil {
		settings.Lflag |= unix.TOSTOP
		err = unix.IoctlSetTermios(int(theirs.Fd()), unix.TCSETS, settings)
	}
	if err != nil {
		t.Fatal(err)
	}
	// The shell is in the foreground. If the tracer stops, wait returns, and the end of the shell
	// sends SIGHUP.
	tr := launch(t, flags("--format", "ndjson", "--only", "stats", "--port", "1", "--duration", "100ms"), withStdout(theirs), func(cmd *exec.Cmd) {
		cmd.Stdin, cmd.Stderr = theirs, theirs
		cmd.Args = append([]string{"sh", "-c", `set -m; "$@" & wait`, "sh", cmd.Path}, cmd.Args[1:]...)
		cmd.Path = lookPath(t, "sh")
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	})
	tr.out = ours
	tr.lines.Reset(ours)
	tr.await("stop", func(line string) bool { return strings.HasPrefix(line, `{"type":"stop"`) })
	if text := tr.read.String(); !strings.Contains(text, `"reason":"duration"`) {
		t.Errorf("the terminal has stopped it: %s", text)
	}
}
