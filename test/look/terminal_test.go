package look_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// pane is a real terminal: that of a server of tmux, which runs a shell.
type pane struct {
	t      *testing.T
	socket string
}

// newPane starts a command of sh in a terminal.
func newPane(t *testing.T, columns, rows int, command string) *pane {
	t.Helper()
	if _, err := exec.LookPath("tmux"); err != nil {
		skipMissing(t, "needs tmux: test/check/install-deps.sh look")
	}
	p := &pane{t: t, socket: filepath.Join(t.TempDir(), "tmux")}
	t.Cleanup(func() { _ = exec.Command("tmux", "-S", p.socket, "kill-server").Run() }) // it may have ended
	p.tmux("-f", "/dev/null", "-u", "new-session", "-d", "-x", fmt.Sprint(columns), "-y", fmt.Sprint(rows), "cat")
	p.tmux("set", "-g", "remain-on-exit", "on")
	p.tmux("set", "-g", "default-terminal", "tmux-256color")
	p.tmux("set", "-g", "status", "off")
	p.tmux("resize-window", "-x", fmt.Sprint(columns), "-y", fmt.Sprint(rows))
	p.tmux("respawn-pane", "-k", "sh", "-c", command)
	return p
}

func (p *pane) tmux(args ...string) string {
	p.t.Helper()
	var stderr bytes.Buffer
	cmd := exec.Command("tmux", append([]string{"-S", p.socket}, args...)...)
	cmd.Stderr = &stderr
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8")
	out, err := cmd.Output()
	if err != nil {
		p.t.Fatalf("tmux %s: %v: %s", args, err, stderr.String())
	}
	return string(out)
}

// screen is what the terminal shows, with single spaces.
func (p *pane) screen() string {
	p.t.Helper()
	var lines []string
	for each := range strings.Lines(p.tmux("capture-pane", "-p")) {
		lines = append(lines, strings.Join(strings.Fields(each), " "))
	}
	return strings.Join(lines, "\n")
}

func (p *pane) press(keys ...string) {
	p.t.Helper()
	for _, each := range keys {
		p.tmux("send-keys", each)
	}
}

// await waits until the terminal shows all texts.
func (p *pane) await(texts ...string) string {
	p.t.Helper()
	for deadline := time.Now().Add(60 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		screen := p.screen()
		missing := ""
		for _, each := range texts {
			if !strings.Contains(screen, each) {
				missing = each
			}
		}
		if missing == "" {
			return screen
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("the terminal does not show %q:\n%s", missing, screen)
		}
	}
}

// awaitGone waits until the terminal does not show a text.
func (p *pane) awaitGone(text string) {
	p.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); strings.Contains(p.screen(), text); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			p.t.Fatalf("the terminal still shows %q:\n%s", text, p.screen())
		}
	}
}

// is returns what tmux knows of the terminal, such as alternate_on.
func (p *pane) is(format string) string {
	p.t.Helper()
	return strings.TrimSpace(p.tmux("display-message", "-p", "#{"+format+"}"))
}

// child is the pid of the program that the shell runs.
func (p *pane) child() int {
	p.t.Helper()
	shell := p.is("pane_pid")
	children, err := os.ReadFile(fmt.Sprintf("/proc/%s/task/%s/children", shell, shell))
	if err != nil {
		p.t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(children)))
	if err != nil {
		p.t.Fatalf("the shell has not one child: %q", children)
	}
	return pid
}

// mustBeRestored fails if a program has left the terminal in another mode than it found it in.
func (p *pane) mustBeRestored() {
	p.t.Helper()
	for format, want := range map[string]string{"alternate_on": "0", "cursor_flag": "1", "keypad_flag": "0", "keypad_cursor_flag": "0", "wrap_flag": "1", "mouse_any_flag": "0"} {
		if got := p.is(format); got != want {
			p.t.Errorf("the terminal's %s is %s", format, got)
		}
	}
}
