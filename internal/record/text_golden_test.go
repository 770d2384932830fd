package record

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/internal/detect"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// screen is a terminal of that size.
func screen(columns, rows int) *Screen {
	return &Screen{Size: func() (int, int) { return columns, rows }}
}

// textStreams are the ways in which testdata/text/NAME shows one stream.
var textStreams = map[string]func() Text{
	"pipe.txt":           func() Text { return Text{} },
	"color.txt":          func() Text { return Text{Color: true} },
	"120-color.txt":      func() Text { return Text{Color: true, Screen: screen(120, 50)} },
	"120.txt":            func() Text { return Text{Screen: screen(120, 50)} },
	"80.txt":             func() Text { return Text{Screen: screen(80, 50)} },
	"80-rows-12.txt":     func() Text { return Text{Screen: screen(80, 12)} },
	"160.txt":            func() Text { return Text{Screen: screen(160, 50)} },
	"transitions.txt":    func() Text { return Text{NoConnections: true} },
	"transitions-80.txt": func() Text { return Text{NoConnections: true, Screen: screen(80, 50)} },
	"connections.txt":    func() Text { return Text{NoTransitions: true} },
	"connections-80.txt": func() Text { return Text{NoTransitions: true, Screen: screen(80, 50)} },
	"alerts.txt":         func() Text { return Text{NoTransitions: true, NoConnections: true} },
	"alerts-80.txt":      func() Text { return Text{NoTransitions: true, NoConnections: true, Screen: screen(80, 50)} },
}

func step(after time.Duration, old, next tcp.State, role tcp.Role, owner tcp.Owner, local, peer tcp.Endpoint) tcp.Transition {
	return tcp.Transition{
		Time: moment.Add(after), Monotonic: 9*time.Second + after, Netns: 4026531833,
		Old: old, New: next, Role: role, Owner: owner, Local: local, Peer: peer,
	}
}

// textStream is what a user may see within a second: a request, a refused connect, an
// IPv6 connection with long addresses, and what is no row.
func textStream(t Text) []byte {
	curl, python, odd := task(15720, "curl"), task(15578, "python3"), task(3141592, "\x1b[2J 日本語")
	client, server := endpoint("192.168.178.20", 51592), endpoint("10.0.0.7", 8443)
	longClient := endpoint("2001:db8:1234:5678:9abc:def0:1234:5678", 40000)
	longServer := endpoint("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", 443)
	const us = time.Microsecond
	refused := step(900*us, tcp.SynSent, tcp.Close, tcp.RoleClient, curl, endpoint("127.0.0.1", 45380), endpoint("127.0.0.1", 9))
	refused.Error = 111
	rows := []struct {
		t tcp.Transition
		c *tcp.Connection
	}{
		{t: step(0, tcp.Close, tcp.SynSent, tcp.RoleClient, curl, endpoint("192.168.178.20", 0), server)},
		{t: step(48*us, tcp.SynSent, tcp.Established, tcp.RoleClient, curl, client, server)},
		{t: step(53*us, tcp.SynRecv, tcp.Established, tcp.RoleServer, python, server, client)},
		{t: step(700*us, tcp.Established, tcp.FinWait1, tcp.RoleClient, curl, client, server)},
		{t: step(710*us, tcp.FinWait1, tcp.FinWait2, tcp.RoleClient, curl, client, server)},
		{t: step(720*us, tcp.FinWait2, tcp.TimeWait, tcp.RoleClient, curl, client, server), c: &tcp.Connection{
			OpenedAt: 9*time.Second - 1230*us, Sent: 78, Received: 12600, RTT: 48 * us, ClosedBy: tcp.ClosedByLocal,
		}},
		{t: refused, c: &tcp.Connection{OpenedAt: 9*time.Second + 842*us, Retransmits: 3, ClosedBy: tcp.ClosedByRefused}},
		{t: step(950*us, tcp.LastAck, tcp.Close, tcp.RoleServer, odd, longServer, longClient), c: &tcp.Connection{
			Sent: 1 << 40, Received: 1023, RTT: 12345 * us, ClosedBy: tcp.ClosedByResetReceived,
		}},
		{t: step(960*us, tcp.Listen, tcp.Close, tcp.RoleListener, tcp.Owner{}, endpoint("0.0.0.0", 80), tcp.Endpoint{})},
	}
	dst := t.Start(nil, &Start{
		Time: moment, Version: "v1.2.3", Host: "web-1", Kernel: "6.18.44", Arch: "amd64",
		Features: []Feature{{"accept_hook", "this kernel does not permit it (lockdown, or built without)"}},
	})
	for _, r := range rows {
		if !t.NoTransitions {
			dst = t.Transition(dst, &r.t)
		}
		if r.c != nil && !t.NoConnections {
			dst = t.Connection(dst, &r.t, r.c)
		}
	}
	a := stormAlert()
	dst = t.Alert(dst, &a)
	a.Phase, a.Lasted, a.Severity = detect.Close, 71*time.Second, detect.Warning
	dst = t.Alert(dst, &a)
	dst = t.Loss(dst, &Loss{Time: moment, Lost: 1234, Cause: CauseRingFull})
	dst = t.Stats(dst, &Stats{Time: moment, Counts: someCounts})
	return t.Stop(dst, &Stop{Time: moment, Reason: "signal", Signal: "SIGTERM", Counts: someCounts})
}

func stormAlert() detect.Alert {
	a := fullAlert()
	a.Cause = "210 of the 210 ports in use are in TIME_WAIT: the connections are short, and this side closes them first, " +
		"which keeps the port of each for 60 s"
	a.Advice = "reuse connections: keep-alive, or a pool in the client; if that takes time, use more local or peer addresses"
	return a
}

func TestText_Golden(t *testing.T) {
	for name, text := range textStreams {
		path := filepath.Join("testdata", "text", name)
		got := textStream(text())
		if *update {
			if err := os.WriteFile(path, got, 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatalf("%v; 'go test -update' writes it", err)
		}
		gotLines, wantLines := strings.Split(string(got), "\n"), strings.Split(string(want), "\n")
		if len(gotLines) != len(wantLines) {
			t.Errorf("%s: %d lines, want %d", path, len(gotLines), len(wantLines))
		}
		for i := range min(len(gotLines), len(wantLines)) {
			if gotLines[i] != wantLines[i] {
				t.Errorf("%s, line %d:\ngot  %s\nwant %s", path, i+1, gotLines[i], wantLines[i])
			}
		}
	}
	entries, err := os.ReadDir("testdata/text")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if textStreams[e.Name()] == nil {
			t.Errorf("testdata/text/%s is not used", e.Name())
		}
	}
}

// Colors change nothing but colors.
func TestText_ColorOnlyAddsEscapes(t *testing.T) {
	for name, text := range textStreams {
		plain, colored := text(), text()
		plain.Color, colored.Color = false, true
		want, got := string(textStream(plain)), string(textStream(colored))
		if strings.Contains(want, "\x1b") {
			t.Errorf("%s: an escape sequence without color:\n%q", name, want)
		}
		if !strings.Contains(got, "\x1b[") || stripColors(t, got) != want {
			t.Errorf("%s: with its colors removed the text is\n%s\nwant\n%s", name, stripColors(t, got), want)
		}
		for line := range strings.Lines(got) {
			if strings.Count(line, "\x1b[")%2 != 0 {
				t.Errorf("%s: a line does not end its color: %q", name, line)
			}
		}
	}
}

// stripColors removes the escape sequences for colors, which must be the only ones.
func stripColors(t *testing.T, s string) string {
	t.Helper()
	for _, color := range []sgr{
		sgrReset, sgrBold, sgrDim, sgrRed, sgrGreen, sgrYellow, sgrMagenta, sgrCyan, sgrBoldRed, sgrBoldGreen, sgrBoldAmber,
	} {
		s = strings.ReplaceAll(s, string(color), "")
	}
	if strings.Contains(s, "\x1b") {
		t.Errorf("an escape sequence is no color: %q", s)
	}
	return s
}
