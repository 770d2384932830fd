package cli_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/test/tcplab"
)

// terminal is a pseudo-terminal with a command that has it as standard output.
type terminal struct {
	t      testing.TB
	master *os.File
	cmd    *exec.Cmd
	stderr bytes.Buffer
	closed chan struct{} // when the command has closed the terminal

	mu   sync.Mutex
	text []byte
}

// openTerminal starts the binary on a new terminal of that size. env is added to its
// environment, in which TERM is xterm.
func openTerminal(t testing.TB, columns, rows uint16, env []string, args ...string) *terminal {
	t.Helper()
	master, slave := openPTY(t)
	term := &terminal{t: t, master: master, cmd: exec.Command(program, args...), closed: make(chan struct{})}
	term.resize(columns, rows)
	term.cmd.Stdout, term.cmd.Stderr = slave, &term.stderr
	term.cmd.Env = append(append(os.Environ(), "TERM=xterm", "NO_COLOR="), env...)
	err := term.cmd.Start()
	slave.Close()
	if err != nil {
		t.Fatalf("start %s: %v", commandLine(term.cmd.Args), err)
	}
	t.Cleanup(func() {
		if term.cmd.ProcessState == nil {
			_ = term.cmd.Process.Kill()
			_ = term.cmd.Wait()
		}
	})
	go term.read()
	return term
}

// openPTY opens both ends of a pseudo-terminal, as openpty(3) does.
func openPTY(t testing.TB) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		skipMissing(t, "needs pseudo-terminals: "+err.Error())
	}
	t.Cleanup(func() { master.Close() })
	var number int
	conn, err := master.SyscallConn() // Fd would make reads block, and they would have no deadline
	if err == nil {
		failed := conn.Control(func(fd uintptr) {
			if number, err = unix.IoctlGetInt(int(fd), unix.TIOCGPTN); err == nil {
				err = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0)
			}
		})
		err = errors.Join(err, failed)
	}
	if err == nil {
		slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err != nil {
		t.Fatalf("open a pseudo-terminal: %v", err)
	}
	return master, slave
}

func (term *terminal) resize(columns, rows uint16) {
	term.t.Helper()
	size := unix.Winsize{Col: columns, Row: rows}
	if err := unix.IoctlSetWinsize(int(term.master.Fd()), unix.TIOCSWINSZ, &size); err != nil {
		term.t.Fatalf("set the size of a terminal: %v", err)
	}
}

// read collects the output until the command closes the terminal: then a read fails
// with EIO.
func (term *terminal) read() {
	defer close(term.closed)
	buf := make([]byte, 4096)
	for {
		n, err := term.master.Read(buf)
		term.mu.Lock()
		term.text = append(term.text, buf[:n]...)
		term.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// output returns what the terminal has received, with line ends as the command wrote them.
func (term *terminal) output() string {
	term.mu.Lock()
	defer term.mu.Unlock()
	return strings.ReplaceAll(string(term.text), "\r\n", "\n")
}

// await waits until the output contains part.
func (term *terminal) await(part string) {
	term.t.Helper()
	for began := time.Now(); !strings.Contains(term.output(), part); time.Sleep(5 * time.Millisecond) {
		if time.Since(began) > waitLimit {
			term.t.Fatalf("no %q within %v\n%s%s", part, waitLimit, term.output(), &term.stderr)
		}
	}
}

// end waits for the command, which must succeed, and returns its whole output.
func (term *terminal) end() string {
	term.t.Helper()
	select {
	case <-term.closed:
	case <-time.After(waitLimit):
		term.t.Fatalf("the command did not end within %v\n%s", waitLimit, term.output())
	}
	if err := term.cmd.Wait(); err != nil || term.stderr.Len() > 0 {
		term.t.Fatalf("%v\n%s%s", err, term.output(), &term.stderr)
	}
	return term.output()
}

// traceOnTerminal traces some connections in a namespace of their own, and returns the
// output. between is called when half of them have been made.
func traceOnTerminal(t *testing.T, columns, rows uint16, env, args []string, between func(*terminal)) string {
	t.Helper()
	requireRoot(t)
	n := tcplab.NewNetns(t)
	term := openTerminal(t, columns, rows, env, append(flags("--format", "text", "--netns", fmt.Sprint(n.Inode())), args...)...)
	term.await("TIME")
	const connections = 12
	for i := range connections {
		if i == connections/2 && between != nil {
			between(term)
		}
		closeOneConnection(n)
	}
	n.Settle(0)
	if err := term.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	return term.end()
}

func closeOneConnection(n *tcplab.Netns) {
	to := netip.MustParseAddrPort("127.0.0.1:17001")
	listener := n.Listen(to)
	client := n.Socket(to.Addr())
	client.Connect(to)
	server := listener.Accept()
	client.Close()
	server.ReadEOF()
	server.Close()
	listener.Close()
}

var colorSequence = regexp.MustCompile("\x1b\\[[0-9;]*m")

// mustFit fails if the terminal has to break a line. It returns the lines without colors.
func mustFit(t *testing.T, output string, columns int) []string {
	t.Helper()
	plain := colorSequence.ReplaceAllString(output, "")
	if strings.Contains(plain, "\x1b") {
		t.Errorf("an escape sequence is not a color:\n%q", output)
	}
	lines := strings.Split(strings.TrimSuffix(plain, "\n"), "\n")
	for _, line := range lines {
		if utf8.RuneCountInString(line) > columns {
			t.Errorf("a line is wider than %d columns: %s", columns, line)
		}
	}
	return lines
}

func count(lines []string, match func(line string) bool) int {
	n := 0
	for _, line := range lines {
		if match(line) {
			n++
		}
	}
	return n
}

func isHeader(line string) bool { return strings.HasPrefix(line, "TIME") }

// On a terminal, the header comes again with every screen and states have colors.
func TestTerminal_HeaderAndColors(t *testing.T) {
	const rows = 24
	output := traceOnTerminal(t, 120, rows, nil, nil, nil)
	for _, want := range []string{
		"\x1b[32mESTABLISHED\x1b[0m", "\x1b[33mFIN_WAIT1\x1b[0m", "\x1b[35mTIME_WAIT\x1b[0m", "\x1b[1mENDED\x1b[0m", "\x1b[1mTIME(UTC)",
	} {
		if !strings.Contains(output, want) {
			t.Errorf("no %q in\n%s", want, output)
		}
	}
	lines := mustFit(t, output, 120)
	if headers := count(lines, isHeader); headers < 2*len(lines)/rows {
		t.Errorf("%d lines of titles among %d lines:\n%s", headers, len(lines), strings.Join(lines, "\n"))
	}
	ended := count(lines, func(line string) bool { return strings.Contains(line, " ENDED ") && !isHeader(line) })
	if ended < 12*2 {
		t.Errorf("%d connections end, want at least the 24 ends of 12:\n%s", ended, strings.Join(lines, "\n"))
	}
}

// A terminal of 80 columns does not have to break a line.
func TestTerminal_80Columns(t *testing.T) {
	for _, only := range []string{"", "transition", "connection"} {
		var args []string
		if only != "" {
			args = flags("--only", only)
		}
		lines := mustFit(t, traceOnTerminal(t, 80, 24, nil, args, nil), 80)
		if rows := count(lines, func(line string) bool { return strings.Contains(line, " 127.0.0.1") || strings.Contains(line, "…") }); rows < 24 {
			t.Errorf("--only %q: only %d rows:\n%s", only, rows, strings.Join(lines, "\n"))
		}
	}
}

// When the window changes its size, the next row has new columns under a new header.
func TestTerminal_Resize(t *testing.T) {
	output := traceOnTerminal(t, 140, 500, nil, nil, func(term *terminal) {
		term.await("ENDED ")
		term.resize(80, 500)
	})
	lines := mustFit(t, output, 140)
	var widths []int
	for _, line := range lines {
		if isHeader(line) && strings.Contains(line, " OLD ") {
			widths = append(widths, utf8.RuneCountInString(line))
		}
	}
	if len(widths) != 2 || widths[0] <= 120 || widths[1] > 80 {
		t.Errorf("the headers have widths %v, want one for 140 columns and one for 80:\n%s", widths, strings.Join(lines, "\n"))
	}
}

// NO_COLOR, TERM=dumb and --color decide about colors.
func TestTerminal_NoColor(t *testing.T) {
	for _, row := range []struct {
		env, args []string
		color     bool
	}{
		{[]string{"NO_COLOR=1"}, nil, false},
		{[]string{"NO_COLOR=0"}, nil, false},
		{[]string{"TERM=dumb"}, nil, false},
		{[]string{"TERM="}, nil, false},
		{nil, flags("--color", "never"), false},
		{[]string{"NO_COLOR=1"}, flags("--color", "always"), true},
		{nil, flags("--color=auto"), true},
	} {
		output := traceOnTerminal(t, 120, 24, row.env, append(row.args, "--count", "1"), nil)
		if got := strings.Contains(output, "\x1b"); got != row.color {
			t.Errorf("%v %v: colors: %v, want %v\n%q", row.env, row.args, got, row.color, output)
		}
		mustFit(t, output, 120)
	}
}

// A pipe gets colors only with --color always, and one line a record.
func TestTerminal_PipeHasNoColor(t *testing.T) {
	requireRoot(t)
	n := tcplab.NewNetns(t)
	n.Listen(netip.MustParseAddrPort("127.0.0.1:17001"))
	for _, row := range []struct {
		args []string
		want string
	}{
		{nil, "STATE  "}, {flags("--color", "never"), "STATE  "}, {flags("--color", "always"), "\x1b[1mSTATE  "},
	} {
		r := run(append(flags("snapshot", "--format", "text", "--netns", fmt.Sprint(n.Inode())), row.args...),
			func(cmd *exec.Cmd) { cmd.Env = append(os.Environ(), "TERM=xterm") })
		r.mustEnd(t, 0)
		if !strings.HasPrefix(r.stdout, row.want) || strings.Count(r.stdout, "\n") != 2 {
			t.Errorf("want a line that begins with %q and one more\n%v", row.want, r)
		}
	}
}

// A snapshot fits its terminal, too, and its states have colors.
func TestTerminal_Snapshot(t *testing.T) {
	requireRoot(t)
	n := tcplab.NewNetns(t)
	n.Listen(netip.MustParseAddrPort("127.0.0.1:17001"))
	output := openTerminal(t, 80, 24, nil, "snapshot", "--format", "text", "--netns", fmt.Sprint(n.Inode())).end()
	lines := mustFit(t, output, 80)
	if len(lines) != 2 || !strings.HasPrefix(lines[1], "LISTEN ") || !strings.Contains(output, "\x1b[36mLISTEN\x1b[0m") {
		t.Errorf("this is not a snapshot with colors:\n%q", output)
	}
}

// NDJSON on a terminal is the NDJSON of a pipe.
func TestTerminal_NDJSON(t *testing.T) {
	requireRoot(t)
	n := tcplab.NewNetns(t)
	n.Listen(netip.MustParseAddrPort("127.0.0.1:17001"))
	output := openTerminal(t, 80, 24, nil, "snapshot", "--netns", fmt.Sprint(n.Inode())).end()
	if strings.Contains(output, "\x1b") || !strings.HasPrefix(output, `{"type":"socket",`) || strings.Count(output, "\n") != 1 {
		t.Errorf("this is not one record: %q", output)
	}
}

// Explanations are wrapped at the width of a narrow terminal.
func TestTerminal_ExplainIsWrapped(t *testing.T) {
	mustFit(t, openTerminal(t, 50, 24, nil, "explain", "TIME_WAIT").end(), 50)
}

// The doctor's verdicts have colors on a terminal.
func TestTerminal_DoctorHasColors(t *testing.T) {
	requireRoot(t)
	if output := openTerminal(t, 80, 24, nil, "doctor").end(); !strings.Contains(output, "\x1b[32myes\x1b[0m") {
		t.Errorf("no verdict has a color: %q", output)
	}
	if output := openTerminal(t, 80, 24, []string{"NO_COLOR=1"}, "doctor").end(); strings.Contains(output, "\x1b") {
		t.Errorf("colors in spite of NO_COLOR: %q", output)
	}
	var piped io.Writer = new(bytes.Buffer)
	cmd := exec.Command(program, "doctor")
	cmd.Stdout = piped
	if err := cmd.Run(); err != nil || strings.Contains(fmt.Sprint(piped), "\x1b") {
		t.Errorf("on a pipe: %v, %q", err, piped)
	}
}
