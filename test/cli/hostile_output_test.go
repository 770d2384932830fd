package cli_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// runAsNobody runs a shell command as the user nobody.
func runAsNobody(t *testing.T, command string, args ...string) {
	t.Helper()
	cmd := exec.Command("sh", append([]string{"-c", command, "sh"}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", command, err, out)
	}
}

// What the user nobody has put into a directory such as /tmp is refused, with one line that
// names the flag, the path and the remedy.
func TestOutput_PlantedByAnotherUser(t *testing.T) {
	requireRoot(t)
	dir, err := os.MkdirTemp("", "tcpshift-hostile-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o777|os.ModeSticky); err != nil {
		t.Fatal(err)
	}
	victim := filepath.Join(t.TempDir(), "victim")
	const remedy = ": name a file of your own, or add --output-follow if it is meant"
	for _, tt := range []struct{ name, plant, reason string }{
		{"link", `ln -s "$1" "$2"`, "is a symbolic link"},
		{"loop", `ln -s "$2" "$2"`, "is a symbolic link"},
		{"descriptor", `ln -s /dev/fd/2 "$2"`, "is a symbolic link"},
		{"file", `: >"$2"`, "belongs to another user (uid 65534)"},
		{"fifo", `mkfifo "$2"`, "belongs to another user (uid 65534)"},
	} {
		path := filepath.Join(dir, tt.name)
		runAsNobody(t, tt.plant, victim, path)
		for _, command := range [][]string{nil, {"alerts"}, {"snapshot"}} {
			r := run(append(command, "--output", path))
			r.mustEnd(t, 1)
			r.mustPrintNothing(t)
			r.mustPrintError(t, "--output: "+path+" "+tt.reason+remedy)
		}
	}
	if _, err := os.Lstat(victim); err == nil {
		t.Error("the file that the link names was created")
	}
	// With the flag it is written to.
	file := filepath.Join(dir, "file")
	r := run(append(quiet, "--duration", "1ms", "--output", file, "--output-follow"))
	r.mustEnd(t, 0)
	if content, err := os.ReadFile(file); err != nil || len(content) == 0 {
		t.Errorf("the file that is meant has %d bytes, %v", len(content), err)
	}
}

// /dev/stdout and /dev/fd/N are the descriptors that the program has inherited.
func TestOutput_InheritedDescriptor(t *testing.T) {
	requireRoot(t)
	for _, path := range []string{"/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"} {
		r := run(append(quiet, "--duration", "1ms", "--output", path))
		r.mustEnd(t, 0)
		r.mustPrintError(t, "")
		parseStream(t, r)
	}
	file := filepath.Join(t.TempDir(), "records")
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r := run(append(quiet, "--duration", "1ms", "--output", "/dev/fd/3"), func(cmd *exec.Cmd) { cmd.ExtraFiles = []*os.File{f} })
	r.mustEnd(t, 0)
	r.mustPrintNothing(t)
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	r.stdout = string(content)
	parseStream(t, r)
	r = run(append(quiet, "--duration", "1ms", "--output", "/dev/fd/4"))
	r.mustEnd(t, 1)
	r.mustPrintError(t, "--output: open /dev/fd/4: bad file descriptor")
}

// A terminal that hangs up ends the run normally, even with nothing to write.
func TestOutput_TerminalHangsUp(t *testing.T) {
	requireRoot(t)
	for _, interval := range []string{"0", "1ms"} {
		ours, theirs := outputPair(t, "terminal")
		tr := launch(t, flags("--only", "stats", "--stats-interval", interval), withStdout(theirs),
			func(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} })
		tr.out = ours
		tr.lines.Reset(ours)
		tr.awaitStart()
		theirs.Close()
		ours.Close()
		r := tr.waitUnread()
		r.mustEnd(t, 0)
		r.mustPrintError(t, "")
	}
}

// Under nohup(1) SIGHUP has no effect. Without a file it ends the stream in order.
func TestSignal_Hangup(t *testing.T) {
	requireRoot(t)
	ignoring := func(cmd *exec.Cmd) {
		cmd.Args = append([]string{"sh", "-c", `trap "" HUP; exec "$0" "$@"`, program}, cmd.Args[1:]...)
		cmd.Path = lookPath(t, "sh")
	}
	args := flags("--only", "stats", "--stats-interval", "1ms")
	tr := startTracer(t, args, ignoring)
	tr.signal(syscall.SIGHUP)
	for range 200 {
		tr.next()
	}
	if s := tr.stop(); s.last().Signal != "SIGTERM" {
		t.Errorf("under nohup the signal of stop is %s", s.last().Signal)
	}
	tr = startTracer(t, args)
	tr.signal(syscall.SIGHUP)
	tr.signal(syscall.SIGHUP) // as from the shell and from the kernel
	if s := tr.end("signal"); s.last().Signal != "SIGHUP" {
		t.Errorf("the signal of stop is %s, want SIGHUP", s.last().Signal)
	}
}

// Without a flight recorder SIGUSR1 has a line on standard error, and the stream goes on.
func TestSignal_NoRecorder(t *testing.T) {
	requireRoot(t)
	tr := startTracer(t, flags("--only", "stats", "--stats-interval", "1ms"))
	tr.signal(syscall.SIGUSR1)
	for range 100 {
		tr.next()
	}
	tr.signal(syscall.SIGTERM)
	r := tr.wait()
	r.mustEnd(t, 0)
	r.mustPrintError(t, "SIGUSR1 has no effect: there is no flight recorder (--recorder)")
	parseStream(t, r)
}

// timeout(1) sends its signal to the process and then to the process group: that is one request.
func TestSignal_Timeout(t *testing.T) {
	requireRoot(t)
	timeout := lookPath(t, "timeout")
	for i := range 5 {
		r := run(flags("--only", "stats", "--stats-interval", "1ms"), func(cmd *exec.Cmd) {
			cmd.Args = append([]string{"timeout", fmt.Sprintf("0.%d", 5+i), program}, cmd.Args[1:]...)
			cmd.Path = timeout
			cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		})
		r.mustEnd(t, 124)
		r.mustPrintError(t, "")
		parseStream(t, r)
	}
}

// No file that the program opens gets the number of a standard descriptor that was closed.
func TestOutput_ClosedDescriptorsStayEmpty(t *testing.T) {
	requireRoot(t)
	path := filepath.Join(t.TempDir(), "records")
	tr := launch(t, append(quiet, "--output", path), func(cmd *exec.Cmd) {
		cmd.Args = append([]string{"sh", "-c", `exec "$0" "$@" <&- >&- 2>&-`, program}, cmd.Args[1:]...)
		cmd.Path = lookPath(t, "sh")
	})
	awaitFile(t, path).Close()
	for fd := range 3 {
		if target, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", tr.cmd.Process.Pid, fd)); err != nil || target != os.DevNull {
			t.Errorf("descriptor %d is %s, %v; want %s", fd, target, err, os.DevNull)
		}
	}
	tr.signal(syscall.SIGTERM)
	tr.waitUnread().mustEnd(t, 0)
}
