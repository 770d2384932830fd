package pipelines_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

const examplesDir = "../../deploy/pipelines"

// wrapper stands for tcpshift in the PATH of the examples. It adds a filter, so that the connections
// of the consumer are not traced, and a second output with what the consumer must get.
const wrapper = `#!/bin/sh
echo $$ >"$TCPSHIFT_TEST_DIR/pid"
exec %s "$@" --port %d --output "$TCPSHIFT_TEST_DIR/want?host=true$TCPSHIFT_TEST_QUERY" 2>"$TCPSHIFT_TEST_DIR/stderr"
`

func writeWrapper() error {
	if err := os.MkdirAll(scratch+"/bin", 0o755); err != nil {
		return err
	}
	text := fmt.Sprintf(wrapper, scratch+"/program", trafficPort)
	if err := os.WriteFile(scratch+"/bin/tcpshift", []byte(text), 0o755); err != nil {
		return err
	}
	return os.Setenv("PATH", scratch+"/bin:"+os.Getenv("PATH")+":/usr/sbin:/usr/lib/postgresql/15/bin")
}

// commandLine is a command in the comment at the top of an example.
var commandLine = regexp.MustCompile(`(?m)^(?:#|--)     ?(\S.*)$`)

// example is a file of deploy/pipelines that a test runs.
type example struct {
	t        testing.TB
	name     string
	commands []string // in the order of the file; tcpshift is one of them
	dir      string   // of this run
	tcpshift *process
}

func openExample(t testing.TB, name string) *example {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(examplesDir, name))
	if err != nil {
		t.Fatal(err)
	}
	e := &example{t: t, name: name, dir: t.TempDir()}
	for _, match := range commandLine.FindAllSubmatch(text, -1) {
		e.commands = append(e.commands, string(match[1]))
	}
	serve(t)
	return e
}

// command returns the command line of the example that contains a text.
func (e *example) command(word string) string {
	e.t.Helper()
	for _, each := range e.commands {
		if strings.Contains(each, word) {
			return each
		}
	}
	e.t.Fatalf("%s has no command with %q, only %q", e.name, word, e.commands)
	return ""
}

// process is a command of an example that runs.
type process struct {
	t       testing.TB
	line    string
	cmd     *exec.Cmd
	output  bytes.Buffer
	stopped chan struct{} // closed when it has ended
}

// start runs a command line in the directory of the examples until the test ends.
func (e *example) start(line string) *process {
	e.t.Helper()
	p := &process{t: e.t, line: line, cmd: exec.Command("sh", "-c", line), stopped: make(chan struct{})}
	p.cmd.Dir = examplesDir
	p.cmd.Env = append(os.Environ(), "TCPSHIFT_TEST_DIR="+e.dir, "TCPSHIFT_TEST_QUERY="+e.selection())
	p.cmd.Stdout, p.cmd.Stderr = &p.output, &p.output
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	p.cmd.WaitDelay = time.Second
	if err := p.cmd.Start(); err != nil {
		e.t.Fatalf("%s: %v", line, err)
	}
	go func() {
		_ = p.cmd.Wait()
		close(p.stopped)
	}()
	e.t.Cleanup(func() {
		p.kill()
		if e.t.Failed() {
			e.t.Logf("%s:\n%.8000s", line, p.output.String())
		}
	})
	return p
}

// kill ends the process and its children without a warning.
func (p *process) kill() { p.end(syscall.SIGKILL) }

// end sends a signal to the process and its children, and waits until it has ended.
func (p *process) end(signal syscall.Signal) {
	_ = syscall.Kill(-p.cmd.Process.Pid, signal)
	<-p.stopped
}

// selection is the part of the example's --output that chooses records. The second output has it, too.
func (e *example) selection() string {
	var query strings.Builder
	for _, each := range regexp.MustCompile(`[?&](only|schema|fields)=[^&' ]+`).FindAllString(readText(filepath.Join(examplesDir, e.name)), -1) {
		query.WriteString("&" + each[1:])
	}
	if strings.Contains(strings.Join(e.commands, " "), "--output 'otlp") {
		query.WriteString("&schema=otel")
	}
	return query.String()
}

// run runs a command line of the example until it ends.
func (e *example) run(line string) {
	e.t.Helper()
	p := e.start(line)
	select {
	case <-p.stopped:
	case <-time.After(waitLimit):
		e.t.Fatalf("%s did not end within %v", line, waitLimit)
	}
	if p.cmd.ProcessState.ExitCode() != 0 {
		e.t.Fatalf("%s: %v", line, p.cmd.ProcessState)
	}
}

// trace starts tcpshift as the example has it, and waits until it traces.
func (e *example) trace() {
	e.t.Helper()
	e.tcpshift = e.start(e.command("tcpshift --"))
	e.await("start of tcpshift", func() bool { return len(e.want()) > 0 })
}

// traceTo does so with the other output that the example names: the one that begins with target.
func (e *example) traceTo(target string) {
	e.t.Helper()
	text := readText(filepath.Join(examplesDir, e.name))
	output := regexp.MustCompile(`--output '` + regexp.QuoteMeta(target) + `[^']*'`).FindString(text)
	if output == "" {
		e.t.Fatalf("%s names no output to %s", e.name, target)
	}
	if err := os.Remove(e.dir + "/want"); err != nil {
		e.t.Fatal(err)
	}
	e.tcpshift = e.start("tcpshift " + output)
	e.await("start of tcpshift", func() bool { return len(e.want()) > 0 })
}

// signal sends a signal to tcpshift.
func (e *example) signal(s syscall.Signal) {
	e.t.Helper()
	text, err := os.ReadFile(e.dir + "/pid")
	if err != nil {
		e.t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Sscan(string(text), &pid); err != nil {
		e.t.Fatal(err)
	}
	if err := syscall.Kill(pid, s); err != nil {
		e.t.Fatal(err)
	}
}

// stop ends tcpshift in order, and returns what it has written.
func (e *example) stop() []string {
	e.t.Helper()
	e.signal(syscall.SIGTERM)
	select {
	case <-e.tcpshift.stopped:
	case <-time.After(waitLimit):
		e.t.Fatalf("tcpshift did not end within %v of SIGTERM", waitLimit)
	}
	if code := e.tcpshift.cmd.ProcessState.ExitCode(); code != 0 {
		e.t.Errorf("tcpshift ended with status %d\n%s", code, readText(e.dir+"/stderr"))
	}
	want := e.want()
	if len(want) == 0 || !isStop.MatchString(want[len(want)-1]) {
		e.t.Fatalf("the stream has no stop: %.2000q", want)
	}
	return want
}

// isStop matches the last line of a stream, in the schemas of the examples.
var isStop = regexp.MustCompile(`^\{"type":"stop"|"event_name":"tcpshift\.stop"`)

// want returns the lines that tcpshift has written to the second output.
func (e *example) want() []string { return readLines(e.dir + "/want") }

// await waits until something is true.
func (e *example) await(what string, done func() bool) {
	e.t.Helper()
	for began := time.Now(); !done(); time.Sleep(20 * time.Millisecond) {
		if time.Since(began) > waitLimit {
			e.t.Fatalf("no %s within %v\n%s", what, waitLimit, readText(e.dir+"/stderr"))
		}
	}
}

// awaitLines waits until stored returns as many lines as are wanted, and compares all of them.
func (e *example) awaitLines(want []string, stored func() []string) {
	e.t.Helper()
	var got []string
	for began := time.Now(); len(got) < len(want) && time.Since(began) < waitLimit; time.Sleep(50 * time.Millisecond) {
		got = stored()
	}
	if len(got) != len(want) {
		e.t.Errorf("%d records are stored, want %d", len(got), len(want))
	}
	for i := range min(len(got), len(want)) {
		if withoutOwnTime(got[i]) != withoutOwnTime(want[i]) {
			e.t.Fatalf("record %d is stored as\n%s\nwant\n%s", i, got[i], want[i])
		}
	}
}

// ownTime is the time of a record that each output writes at a moment of its own.
var ownTime = regexp.MustCompile(`^(\{"type":"(?:stats|stop)","time":")[^"]*`)

func withoutOwnTime(line string) string { return ownTime.ReplaceAllString(line, "$1") }

func readText(path string) string {
	b, _ := os.ReadFile(path)
	return string(b)
}

// readLines returns the whole lines of a file, without their ends.
func readLines(path string) []string {
	text := readText(path)
	end := strings.LastIndexByte(text, '\n')
	if end < 0 {
		return nil
	}
	return strings.Split(text[:end], "\n")
}
