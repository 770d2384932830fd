package cli_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// launchCommand launches a trace with a command whose standard input ends with in.Close.
func launchCommand(t *testing.T, args []string, adjust ...func(*exec.Cmd)) (tr *tracer, in io.Closer) {
	t.Helper()
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	tr = launch(t, args, append(adjust, func(cmd *exec.Cmd) { cmd.Stdin = reader })...)
	reader.Close()
	t.Cleanup(func() { writer.Close() }) // before launch waits for the end
	return tr, writer
}

// The command's grandchild is traced, after its end as well, and another process with the same name
// and peer is not. The status is the command's, and standard output is its own.
func TestCommand_TracesChildren(t *testing.T) {
	requireRoot(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	peer := listener.Addr().(*net.TCPAddr).Port
	connect := fmt.Sprintf("exec 3<>/dev/tcp/127.0.0.1/%d", peer)
	output := filepath.Join(t.TempDir(), "records")
	tr, in := launchCommand(t, flags("trace", "--output", output, "--", "bash", "-c", `bash -c "$1"; echo $$; read x; exit 7`, "name", connect))
	child, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	pid := strings.TrimSpace(tr.next()) // the grandchild has ended
	other := exec.Command("bash", "-c", connect)
	if err := other.Run(); err != nil {
		t.Fatal(err)
	}
	child.Close()
	var end connectionRecord
	var line string
	awaitLine(t, awaitFile(t, output), func(each string) bool {
		line = each
		return strings.HasSuffix(each, "\n") && strings.Contains(each, `"type":"connection"`)
	})
	if err := json.Unmarshal([]byte(line), &end); err != nil {
		t.Fatal(err)
	}
	in.Close()
	r := tr.wait()
	r.mustEnd(t, 7)
	r.mustPrintError(t, "")
	if r.stdout != pid+"\n" {
		t.Errorf("standard output is not the command's\n%v", r)
	}
	if end.Role != "client" || int(end.PeerPort) != peer || end.Comm == nil || *end.Comm != "bash" || fmt.Sprint(end.PID) == pid {
		t.Errorf("the connection of the grandchild has the record %s", line)
	}
	written, err := os.ReadFile(output)
	if err != nil {
		t.Fatal(err)
	}
	s := parseStream(t, result{stdout: string(written)})
	if s.last().Reason != "command" || s.last().Connections != 1 {
		t.Errorf("stop is %s", s.last().line)
	}
}

// The exit statuses are those of env(1).
func TestCommand_Status(t *testing.T) {
	requireRoot(t)
	script := filepath.Join(t.TempDir(), "script")                          // without an interpreter
	if err := os.WriteFile(script, []byte("exit 5\n"), 0o755); err != nil { //nolint:gosec // it is executed
		t.Fatal(err)
	}
	plain := filepath.Join(t.TempDir(), "plain")
	if err := os.WriteFile(plain, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		args   []string
		status int
		stderr string // a part of it
	}{
		{flags("--", "true"), 0, "stop: command;"},
		{flags("--", script), 5, "stop: command;"},
		{flags("--sandbox", "--", "sh", "-c", "kill -KILL $$"), 128 + 9, "stop: command;"},
		{flags("--", "/nonexistent"), 127, `tcpshift: run "/nonexistent": no such file or directory`},
		{flags("--", "nonexistent-command"), 127, `tcpshift: run "nonexistent-command": executable file not found in $PATH`},
		{flags("--", plain), 126, `tcpshift: run "` + plain + `": permission denied`},
		{flags("extra", "--", "true"), 125, `tcpshift: unexpected argument "extra": 'tcpshift trace' takes flags, and a command behind '--'`},
		{flags("--port", "x", "--", "true"), 125, "tcpshift: --port:"},
		{flags("--output", "/nonexistent/file", "--", "true"), 125, "tcpshift: --output:"},
		{flags("--duration", "1ms", "--", "sh", "-c", "exit 6"), 6, "stop: duration;"},
	} {
		r := run(append(flags("trace"), tt.args...))
		r.mustEnd(t, tt.status)
		r.mustPrintNothing(t)
		if !strings.Contains(r.stderr, tt.stderr) {
			t.Errorf("standard error has no %q\n%v", tt.stderr, r)
		}
	}
}

// The command finds what it would find without tcpshift: descriptors, ignored signals, environment,
// working directory, and limits.
func TestCommand_Surroundings(t *testing.T) {
	requireRoot(t)
	look := []string{"sh", "-c", `ls /proc/self/fd; grep -E 'Sig(Ign|Blk)|NoNewPrivs|Cap' /proc/self/status; pwd; echo $PROBE; ulimit -a; tail -n +1 <&5`}
	surround := func(cmd *exec.Cmd) {
		passed, err := os.Open("/proc/version")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { passed.Close() })
		cmd.ExtraFiles = []*os.File{nil, nil, passed} // descriptor 5
		cmd.Dir, cmd.Env = t.TempDir(), append(os.Environ(), "PROBE=a b")
	}
	var direct strings.Builder
	cmd := exec.Command(look[0], look[1:]...)
	surround(cmd)
	dir := cmd.Dir
	cmd.Stdout = &direct
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	r := run(append(flags("trace", "--sandbox", "--"), look...), surround, func(cmd *exec.Cmd) { cmd.Dir = dir })
	r.mustEnd(t, 0)
	if r.stdout != direct.String() {
		t.Errorf("with tcpshift:\n%s\nwithout it:\n%s", r.stdout, direct.String())
	}
}

// SIGTERM is passed on to the command. SIGINT is not: a terminal sends it to both.
func TestCommand_Signals(t *testing.T) {
	requireRoot(t)
	t.Run("SIGTERM", func(t *testing.T) {
		tr, _ := launchCommand(t, flags("trace", "--sandbox", "--", "bash", "-c", `trap 'exit 9' TERM; echo ready; exec >/dev/null 2>&1; while :; do read -t 0.01; done`))
		if line := tr.next(); line != "ready\n" {
			t.Fatalf("the command prints %q", line)
		}
		tr.signal(syscall.SIGTERM)
		r := tr.wait()
		r.mustEnd(t, 9)
		if !strings.Contains(r.stderr, "stop: command;") {
			t.Errorf("the trace has not ended with the command\n%v", r)
		}
	})
	const asNobody = "exec setpriv --reuid 65534 --clear-groups "
	const trap = `bash -c "trap 'exit 9' TERM; echo ready; while :; do read -t 0.01; done"`
	for name, args := range map[string][]string{
		"SIGTERM, the command is another user's":                 {},
		"SIGTERM, the command is another user's, in the sandbox": {"--sandbox"},
		"SIGTERM, the command is another user's, under Landlock": {"--sandbox", "--only", "transition"},
	} {
		t.Run(name, func(t *testing.T) {
			tr, _ := launchCommand(t, append(append(flags("trace"), args...), "--", "sh", "-c", asNobody+trap))
			if line := tr.next(); line != "ready\n" {
				t.Fatalf("the command prints %q", line)
			}
			tr.signal(syscall.SIGTERM)
			r := tr.waitUnread()
			r.mustEnd(t, 9)
			if !strings.Contains(r.stderr, "stop: command;") || strings.Contains(r.stderr, "operation not permitted") {
				t.Errorf("the trace has not ended with the command\n%v", r)
			}
		})
	}
	t.Run("SIGTERM, the command is another user's, without CAP_KILL", func(t *testing.T) {
		tr, _ := launchCommand(t, flags("trace", "--", "sh", "-c", asNobody+`sh -c "echo ready; exec >/dev/null 2>&1; read x"`), withoutKill)
		if line := tr.next(); line != "ready\n" {
			t.Fatalf("the command prints %q", line)
		}
		tr.signal(syscall.SIGTERM)
		r := tr.waitUnread()
		r.mustEnd(t, 1)
		if !strings.Contains(r.stderr, "operation not permitted") || !strings.Contains(r.stderr, "stop: signal SIGTERM;") {
			t.Errorf("the trace has not ended without the command\n%v", r)
		}
	})
	t.Run("SIGINT", func(t *testing.T) {
		tr, in := launchCommand(t, flags("trace", "--", "sh", "-c", "echo ready; read x; exit 4"))
		tr.next()
		tr.signal(syscall.SIGINT)
		tr.signal(syscall.SIGINT)
		in.Close()
		r := tr.wait()
		r.mustEnd(t, 4)
		if !strings.Contains(r.stderr, "stop: command;") {
			t.Errorf("the trace has not ended with the command\n%v", r)
		}
	})
}

// withoutKill starts a program without CAP_KILL.
func withoutKill(cmd *exec.Cmd) {
	setpriv, err := exec.LookPath("setpriv")
	if err != nil {
		panic(err)
	}
	cmd.Path, cmd.Args = setpriv, append([]string{"setpriv", "--bounding-set", "-kill"}, cmd.Args...)
}

// The command runs to its end although the reader of the records has gone away.
func TestCommand_ReaderGone(t *testing.T) {
	requireRoot(t)
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	tr, in := launchCommand(t, flags("trace", "--output", "/dev/fd/3", "--", "sh", "-c", "echo ready; read x; exit 4"),
		func(cmd *exec.Cmd) { cmd.ExtraFiles = []*os.File{writer} })
	writer.Close()
	tr.next()
	reader.Close()
	in.Close()
	r := tr.wait()
	r.mustEnd(t, 4)
	r.mustPrintError(t, "")
}
