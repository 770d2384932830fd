package look_test

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/test/tcplab"
)

// hostileEscape is a name that sets the title of a terminal, and shows as other than it is.
const hostileEscape = "\x1b]2;x\a\u202eab"

// topLoad starts servers in a namespace, and returns what makes a known number of connections: 61 that end in order, 21
// that are refused, 5 that the server does not close, 11 of a process with a hostile name.
func topLoad(t *testing.T, n *tcplab.Netns) (makeConnections func()) {
	t.Helper()
	n.Sysctl("net.ipv4.ip_local_port_range", "40000 40259")
	n.Sysctl("net.ipv4.tcp_tw_reuse", "0")
	start(t, n, worker{Name: "api", Address: "127.0.0.1:8080", Serve: "close"})
	start(t, n, worker{Name: "sessions", Address: "127.0.0.1:9001", Serve: "keep"})
	return func() {
		t.Helper()
		var clients []*exec.Cmd
		for _, w := range []worker{
			{Name: "shop", Address: "127.0.0.1:8080", PerSecond: 20, To: 3 * time.Second},
			{Name: "health", Address: "127.0.0.1:9", PerSecond: 10, To: 2 * time.Second},
			{Name: "login", Address: "127.0.0.1:9001", PerSecond: 5, To: 800 * time.Millisecond},
			{Name: hostileEscape, Address: "127.0.0.1:8080", PerSecond: 10, To: time.Second},
		} {
			clients = append(clients, start(t, n, w))
		}
		for _, c := range clients {
			if err := c.Wait(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// topOf is a command of sh that runs top for a namespace, with the modes of the terminal before and after it.
func topOf(n *tcplab.Netns, environment string) string {
	return fmt.Sprintf(`echo before; b=$(stty -g); %s %s top --netns %d; s=$?; [ "$b" = "$(stty -g)" ] && echo "modes as before, status $s"; exec cat`, environment, program, n.Inode())
}

func newTopNetns(t *testing.T) *tcplab.Netns {
	t.Helper()
	if os.Geteuid() != 0 {
		skipMissing(t, "needs root, to load BPF programs and make namespaces")
	}
	return tcplab.NewNetns(t)
}

// The screen of a real load in a real terminal: its numbers are those of the load, it follows a change of the terminal's
// size, and q gives the terminal back.
func TestTop_Numbers(t *testing.T) {
	n := newTopNetns(t)
	makeConnections := topLoad(t, n)
	p := newPane(t, 80, 24, topOf(n, ""))
	p.await("tcpshift top", "0 connections, 0/s", "LISTEN 2 ")
	makeConnections()
	p.press("Right") // by TOTAL
	screen := p.await(
		"170 connections, ", " 21 failed, ", // 61 + 21 + 5 + 11 of clients, 61 + 11 of api
		"LISTEN 2 ", "CLOSE_WAIT 5 ", "TIME_WAIT 77 ", "ESTABLISHED 0",
		"no alert is open", "SERVICE CONN/s ▼TOTAL FAILED CLOSE_WAIT RETRANS OPEN")
	for _, row := range []string{`^api \S+ 72 0 0 0 0$`, `^shop \S+ 61 0 0 0 0$`, `^health \S+ 21 21 0 0 0$`, `^login \S+ 5 0 0 0 0$`, `^sessions 0 0 0 5 0 5$`, `^\\x1b\]2;x\\x07\\u202eab \S+ 11 0 0 0 0$`} {
		if !regexp.MustCompile(`(?m)` + row).MatchString(screen) {
			t.Errorf("there is no row %s:\n%s", row, screen)
		}
	}
	if title := p.is("pane_title"); title == "x" {
		t.Error("a name has set the title of the terminal")
	}

	p.press("2")
	p.await("DESTINATION ▼PORTS USED % OPENED/s TIME LEFT", "127.0.0.1:8080 72 of 260 28 ", "127.0.0.1:9001 5 of 260 2 ")
	p.press("Enter")
	p.await("> 127.0.0.1:8080", "127.0.0.1:8080 61 0")
	p.press("Escape", "1", "/", "h", "e", "a", "l", "Enter")
	p.await("filter: heal", "health ")
	p.awaitGone("shop ")
	p.press("Enter")
	p.await("> health", "127.0.0.1:9 21 21 21 refused")

	p.tmux("resize-window", "-x", "120", "-y", "40")
	p.press("Escape")
	p.await("TIME_WAIT", "OPEN TIME_WAIT SENT RECEIVED", "> sort")
	if got := 1 + strings.Count(p.screen(), "\n"); got != 40 {
		t.Errorf("the screen has %d lines", got)
	}
	p.tmux("resize-window", "-x", "50", "-y", "12")
	p.await("170 conn ", "1 Services 6", "SERVICE CONN/s ▼TOTAL FAILED")
	p.tmux("resize-window", "-x", "80", "-y", "24")
	p.press("?")
	p.await("Ctrl-C", "TIME LEFT: until connect() finds no port")
	p.press("x", "Space")
	p.await("FROZEN")
	p.press("q")
	p.await("before", "modes as before, status 0")
	p.mustBeRestored()
	if screen := p.screen(); strings.Contains(screen, "tcpshift") {
		t.Errorf("something is left on the terminal:\n%s", screen)
	}
}

// colors are the escape sequences of a color.
var colors = regexp.MustCompile(`\x1b\[(\d+;)*(3|4|9|10)[0-7](;\d+)*m`)

// reversed is that of the selected row.
var reversed = regexp.MustCompile(`\x1b\[(0;)?7m`)

// With NO_COLOR nothing is colored, without it something is, and SIGTERM gives the terminal back.
func TestTop_ColorsAndSIGTERM(t *testing.T) {
	n := newTopNetns(t)
	start(t, n, worker{Name: "api", Address: "127.0.0.1:8080", Serve: "close"})
	for environment, wantColors := range map[string]bool{"NO_COLOR=1": false, "NO_COLOR=": true} {
		p := newPane(t, 80, 24, topOf(n, environment))
		p.await("LISTEN 1 ")
		c := start(t, n, worker{Name: "health", Address: "127.0.0.1:9", PerSecond: 5, To: time.Second})
		if err := c.Wait(); err != nil {
			t.Fatal(err)
		}
		p.await("6 failed, ")
		if escapes := p.tmux("capture-pane", "-p", "-e"); colors.MatchString(escapes) != wantColors || !reversed.MatchString(escapes) {
			t.Errorf("%s: colors, want %t, and a reversed row: %q", environment, wantColors, escapes)
		}
		if err := unix.Kill(p.child(), unix.SIGTERM); err != nil {
			t.Fatal(err)
		}
		p.await("before", "modes as before, status 0")
		p.mustBeRestored()
	}
}

// What is no terminal, and a terminal that can show no screen, are refused in one line.
func TestTop_DumbTerminal(t *testing.T) {
	p := newPane(t, 80, 24, fmt.Sprintf(`TERM=dumb %s top; echo "status $?"; exec cat`, program))
	screen := p.await("status 2")
	if want := "tcpshift: TERM=dumb cannot show a screen: use trace --format text, or set TERM to what your terminal is"; !strings.Contains(strings.ReplaceAll(screen, "\n", ""), strings.ReplaceAll(want, "\n", "")) && !strings.Contains(strings.ReplaceAll(screen, "\n", " "), want) {
		t.Errorf("the terminal shows\n%s", screen)
	}
}

// What the screen costs at 10,000 connections a second between processes of this host: CPU time of the process, drawing
// and the count of all sockets included. It is to be less than 5 % of a core, which make bench-top checks. A machine that
// does not reach that rate has a higher cost for each connection, and none is hidden. A run without -top-limit fails
// only if it is several times as much.
func TestTop_Cost(t *testing.T) {
	n := newTopNetns(t)
	p := newPane(t, 80, 24, topOf(n, ""))
	p.await("tcpshift top", "0 connections, 0/s")
	pid := p.child()
	var clients []*exec.Cmd
	const perClient, rate = 10000, 2500
	addresses := []string{"127.0.0.1:8080", "127.0.0.2:8080", "127.0.0.3:8080", "127.0.0.4:8080"}
	for _, address := range addresses {
		start(t, n, worker{Name: "api", Address: address, Serve: "close"})
		clients = append(clients, start(t, n, worker{Name: "shop", Address: address, PerSecond: rate, To: (perClient - 1) * time.Second / rate}))
	}
	before := tcplab.CPUTime(t, pid)
	began := time.Now()
	for _, c := range clients {
		if err := c.Wait(); err != nil {
			t.Fatal(err)
		}
	}
	connections := len(addresses) * perClient
	p.await(fmt.Sprintf("%d,000 connections, ", 2*connections/1000)) // both ends
	used := tcplab.CPUTime(t, pid) - before
	percent := 100 * used.Seconds() * 10000 / float64(connections)
	t.Logf("%d connections in %v take %v of CPU: %.2f %% of a core at 10,000 a second", connections, time.Since(began).Round(time.Millisecond), used, percent)
	if percent >= *topLimit {
		t.Errorf("the screen takes %.2f %% of a core, want less than %v %%", percent, *topLimit)
	}
	p.press("q")
	p.await("status 0")
}

// The screen of a recording has the numbers that jq finds in it.
func checkTopOfRecording(t *testing.T, recording string) {
	p := newPane(t, 120, 40, fmt.Sprintf(`%s top %s; echo "status $?"; exec cat`, program, recording))
	screen := p.await("END OF THE RECORDING")
	var total struct {
		Connections, Failed, Retransmits, Alerts int
		Services                                 map[string][2]int
	}
	jq(t, &total, recording, `. as $all | `+connections+` | {Connections: length, Failed: (`+failed+` | length), Retransmits: (map(.retransmits) | add),
		Alerts: ($all | map(select(.type == "alert") | .alert) | unique | length),
		Services: (group_by(`+service+`) | map({key: (.[0] | `+service+`), value: [length, (`+failed+` | length)]}) | from_entries)}`)
	// The numbers have commas.
	plain := regexp.MustCompile(`(\d),(\d\d\d)`).ReplaceAllString(screen, "$1$2")
	for _, want := range []string{
		fmt.Sprintf("%d connections, ", total.Connections), fmt.Sprintf(" %d failed, ", total.Failed), fmt.Sprintf(" %d retransmits, ", total.Retransmits),
		fmt.Sprintf("no alert is open; %d so far", total.Alerts),
	} {
		if !strings.Contains(plain, want) {
			t.Errorf("the screen lacks %q:\n%s", want, screen)
		}
	}
	for name, n := range total.Services {
		row := regexp.MustCompile(fmt.Sprintf(`(?m)^%s \S+ %d %d `, regexp.QuoteMeta(name), n[0], n[1]))
		if !row.MatchString(plain) {
			t.Errorf("%s has %d connections, %d failed; the screen is\n%s", name, n[0], n[1], screen)
		}
	}
	if len(total.Services) < 5 {
		t.Errorf("the storm has only the services %v", total.Services)
	}
	p.press("q")
	p.await("status 0")
	p.mustBeRestored()
}

// pictureTop makes the picture of top, of a moment of a recorded storm in which the time that is left is known.
func pictureTop(t *testing.T, b *browser, recording, path string) {
	t.Helper()
	p := newPane(t, 96, 24, fmt.Sprintf("exec %s top --speed 10 %s", program, recording))
	p.await(" open: time_wait_storm", "s left")
	p.press("Space")
	p.await("FROZEN", "time_wait_storm")
	page := ansiPage(t, p.tmux("capture-pane", "-p", "-e"))
	b.expected = append(b.expected, "file://"+page)
	b.do(step{Open: "file://" + page, Width: 900, Height: 480, Scheme: "dark"})
	b.do(step{Screenshot: path})
	p.press("q")
}
