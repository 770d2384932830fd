package top

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/internal/activity"
)

// programEnv makes the test binary a program with a screen, which does what its value says.
const programEnv = "TCPSHIFT_TOP_PROGRAM"

func TestMain(m *testing.M) {
	if how := os.Getenv(programEnv); how != "" {
		os.Exit(runProgram(how))
	}
	os.Exit(m.Run())
}

func runProgram(how string) int {
	looks := 0
	s, err := Open(Config{Host: "db1", Snapshot: func() *activity.Snapshot {
		if looks++; how == "panics" && looks == 2 {
			panic("the program is wrong")
		}
		return snapshot()
	}})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer s.Close()
	if how == "ends" {
		s.Message("\x1b]0;x\a a message")
		time.Sleep(time.Second) // it is drawn meanwhile
		return 3
	}
	<-s.Quit()
	return 4
}

// programTerminal is a program on a pseudo-terminal.
type programTerminal struct {
	t             *testing.T
	master, slave *os.File
	before        unix.Termios
	cmd           *exec.Cmd
	stderr        bytes.Buffer
}

func startProgram(t *testing.T, how string) *programTerminal {
	t.Helper()
	p := &programTerminal{t: t}
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Skip("needs pseudo-terminals: ", err)
	}
	p.master = os.NewFile(uintptr(fd), "/dev/ptmx")
	t.Cleanup(func() { p.master.Close() })
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		err = unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Col: 80, Row: 24})
	}
	if err == nil {
		p.slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.slave.Close() })
	p.before = p.modes()
	p.cmd = exec.Command("/proc/self/exe")
	p.cmd.Env = append(os.Environ(), programEnv+"="+how, "TERM=xterm-256color", "LC_ALL=C.UTF-8")
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = p.slave, p.slave, &p.stderr
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.cmd.Process.Kill() }) // it may have ended
	return p
}

func (p *programTerminal) modes() unix.Termios {
	p.t.Helper()
	modes, err := unix.IoctlGetTermios(int(p.slave.Fd()), unix.TCGETS)
	if err != nil {
		p.t.Fatal(err)
	}
	return *modes
}

// readUntil reads until a text has come.
func (p *programTerminal) readUntil(text string) string {
	p.t.Helper()
	_ = p.master.SetReadDeadline(time.Now().Add(20 * time.Second))
	var all []byte
	chunk := make([]byte, 4096)
	for !bytes.Contains(all, []byte(text)) {
		n, err := p.master.Read(chunk)
		all = append(all, chunk[:n]...)
		if err != nil {
			p.t.Fatalf("%q does not come: %v: %q, %s", text, err, all, p.stderr.String())
		}
	}
	return string(all)
}

// mustEnd waits for the end, and compares the status and the modes of the terminal.
func (p *programTerminal) mustEnd(status int) {
	p.t.Helper()
	_ = p.cmd.Wait() // its status is compared
	if got := p.cmd.ProcessState.ExitCode(); got != status {
		p.t.Errorf("the status is %d, want %d: %s", got, status, p.stderr.String())
	}
	if after := p.modes(); after != p.before {
		p.t.Errorf("the modes of the terminal are %+v, and were %+v", after, p.before)
	}
}

// The end of a program gives the terminal back, and a message on the screen is printable.
func TestScreen_End(t *testing.T) {
	p := startProgram(t, "ends")
	shown := p.readUntil("\x1b[?1049l")
	if !strings.Contains(shown, "\x1b[?1049h") || !strings.Contains(shown, `\x1b]0;x\x07 a message`) || strings.Contains(shown, "\x1b]0;x") {
		t.Errorf("the screen is %q", shown)
	}
	p.mustEnd(3)
}

// q, Ctrl-C and the end of the terminal end the screen.
func TestScreen_Quit(t *testing.T) {
	for name, press := range map[string]string{"q": "q", "Ctrl-C": "\x03"} {
		t.Run(name, func(t *testing.T) {
			p := startProgram(t, "waits")
			p.readUntil("SERVICE")
			if p.modes() == p.before {
				t.Error("the modes do not change while there is a screen")
			}
			if _, err := p.master.WriteString(press); err != nil {
				t.Fatal(err)
			}
			p.readUntil("\x1b[?1049l")
			p.mustEnd(4)
		})
	}
	t.Run("hang-up", func(t *testing.T) {
		p := startProgram(t, "waits")
		p.readUntil("SERVICE")
		p.master.Close()
		_ = p.cmd.Wait() // its status is compared
		if got := p.cmd.ProcessState.ExitCode(); got != 4 {
			t.Errorf("the status is %d: %s", got, p.stderr.String())
		}
	})
}

// A panic gives the terminal back before it is reported.
func TestScreen_Panic(t *testing.T) {
	p := startProgram(t, "panics")
	p.readUntil("\x1b[?1049l")
	p.mustEnd(2)
	if !strings.Contains(p.stderr.String(), "the program is wrong") {
		t.Errorf("it reports %q", p.stderr.String())
	}
}

// Ctrl-C ends the screen while the terminal does not read, in the middle of a frame.
func TestScreen_QuitWhileStalled(t *testing.T) {
	p := startProgram(t, "waits")
	p.readUntil("SERVICE")
	if err := unix.IoctlSetWinsize(int(p.slave.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: 1000, Row: 500}); err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Process.Signal(unix.SIGWINCH); err != nil { // one frame is more than the kernel keeps now
		t.Fatal(err)
	}
	poll := []unix.PollFd{{Fd: int32(p.slave.Fd()), Events: unix.POLLOUT}}
	for n := 1; n > 0; time.Sleep(10 * time.Millisecond) {
		var err error
		if n, err = unix.Poll(poll, 0); err != nil {
			t.Fatal(err)
		}
	}
	began := time.Now()
	if _, err := p.master.WriteString("\x03"); err != nil {
		t.Fatal(err)
	}
	p.mustEnd(4)
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("the end takes %v", took)
	}
	p.readUntil("\x1b[?1049l")
}
