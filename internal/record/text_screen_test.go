package record

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/internal/detect"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// No line is wider than the terminal, whatever stands in it.
func TestText_LinesFitTheTerminal(t *testing.T) {
	for name, cases := range goldenFiles {
		others := []Text{{}, {NoConnections: true}, {NoTransitions: true}}
		switch name {
		case "transition":
			others = others[:2]
		case "connection":
			others = []Text{{}, {NoTransitions: true}}
		}
		for _, c := range cases {
			for _, columns := range []int{80, 81, 93, 100, 119, 120, 121, 140, 141, 160, 200, 300} {
				for _, only := range others {
					only.Screen = screen(columns, 24)
					for line := range strings.Lines(string(c.line(only, nil, 1))) {
						if cells := displayWidth([]byte(strings.TrimSuffix(line, "\n"))); cells > columns {
							t.Errorf("%s, %s: %d cells on a terminal of %d columns: %s", name, c.name, cells, columns, line)
						}
					}
				}
			}
		}
	}
}

// On a terminal too narrow for all columns to shrink enough, each record still has a row.
func TestText_NarrowTerminal(t *testing.T) {
	for columns := range 80 {
		text := Text{Color: true, Screen: screen(columns, 3)}
		if got := textStream(text); strings.Count(string(got), "ENDED ") < 3 && columns >= 60 {
			t.Errorf("%d columns:\n%s", columns, got)
		}
	}
}

// Full columns leave room for long addresses on a wide terminal.
func TestText_WideTerminalShowsAll(t *testing.T) {
	event, end := fullV6(), fullConnection()
	event.Local = event.Peer
	const whole = "[2001:db8:1234:5678:9abc:def0:1234:5678]:443 [2001:db8:1234:5678:9abc:def0:1234:5678]:443 "
	text := Text{Screen: screen(192, 24)}
	for _, row := range []string{string(text.Transition(nil, &event)), string(text.Connection(nil, &event, &end))} {
		if !strings.Contains(row, whole) {
			t.Errorf("an address is cut: %s", row)
		}
	}
}

// The header comes again before it would leave the screen.
func TestText_HeaderEveryScreen(t *testing.T) {
	event, end := fullV4(), fullConnection()
	const rows = 24
	for _, text := range []Text{{}, {NoTransitions: true}, {NoConnections: true}} {
		text.Screen = screen(120, rows)
		dst := text.Start(nil, &Start{Time: moment})
		for i := range 200 {
			switch {
			case i%7 == 3:
				dst = text.Stats(dst, &Stats{Time: moment})
			case i%19 == 5:
				a := stormAlert()
				dst = text.Alert(dst, &a)
			case text.NoTransitions || !text.NoConnections && i%2 == 0:
				dst = text.Connection(dst, &event, &end)
			default:
				dst = text.Transition(dst, &event)
			}
		}
		lines := strings.Split(strings.TrimSuffix(string(dst), "\n"), "\n")
		headers := 0
		for i, line := range lines {
			if !strings.HasPrefix(line, "05:") { // what is no row does not need the header
				continue
			}
			seen := false
			for _, earlier := range lines[max(0, i-(rows-2)):i] {
				seen = seen || strings.HasPrefix(earlier, "TIME")
			}
			if !seen {
				t.Fatalf("line %d has no header on its screen:\n%s", i+1, strings.Join(lines[:i+1], "\n"))
			}
		}
		for _, line := range lines {
			if strings.HasPrefix(line, "TIME") {
				headers++
			}
		}
		if most := 2 + len(lines)/8; headers > most {
			t.Errorf("%d lines of titles among %d lines", headers, len(lines))
		}
	}
}

// A change of the width brings a header with the new columns at the next row.
func TestText_Resize(t *testing.T) {
	columns := 120
	text := Text{Screen: &Screen{Size: func() (int, int) { return columns, 24 }}}
	text.Start(nil, &Start{Time: moment})
	event := fullV4()
	if row := string(text.Transition(nil, &event)); strings.Count(row, "\n") != 1 {
		t.Fatalf("more than a row: %s", row)
	}
	columns = 80
	got := strings.Split(string(text.Transition(nil, &event)), "\n")
	if len(got) != 4 || !strings.HasPrefix(got[0], "TIME ") || strings.Contains(got[0], "ROLE") || !strings.HasPrefix(got[2], "05:06:07 ") {
		t.Errorf("got %q", got)
	}
	if row := string(text.Transition(nil, &event)); strings.Count(row, "\n") != 1 {
		t.Errorf("the header comes again without a change: %s", row)
	}
}

// An alert on a terminal is wrapped, and each of its lines begins with the mark.
func TestText_AlertOnTerminal(t *testing.T) {
	a := stormAlert()
	for _, columns := range []int{80, 120} {
		text := string(Text{Screen: screen(columns, 24)}.Alert(nil, &a))
		var words []string
		for line := range strings.Lines(text) {
			if !strings.HasPrefix(line, "! ") || displayWidth([]byte(strings.TrimSuffix(line, "\n"))) > columns {
				t.Errorf("%d columns: %s", columns, line)
			}
			words = append(words, strings.Fields(line[1:])...)
		}
		pipe := string(Text{}.Alert(nil, &a))
		if strings.Count(pipe, "\n") != 1 {
			t.Errorf("more than one line on a pipe: %s", pipe)
		}
		if got, want := "! "+strings.Join(words, " ")+"\n", pipe; got != want {
			t.Errorf("%d columns: the words are\n%s\nwant\n%s", columns, got, want)
		}
		if lines := strings.Count(text, "\n"); lines > 10 {
			t.Errorf("%d lines on %d columns:\n%s", lines, columns, text)
		}
	}
}

// No name of a process can write to the terminal, or begin a line, wherever an alert has it.
func TestText_AlertWithHostileNames(t *testing.T) {
	for _, name := range []string{"\x1b[2Jx", "x\n", "\n", "a\nb", "\r", "\u202ex", "\xff", "!\n!"} {
		a := fullAlert()
		a.Cause, a.Advice = "bound by "+name, "stop "+name
		a.Culprit.Service, a.Culprit.NextService = name, name
		a.Culprit.Comm = tcp.Comm{}
		copy(a.Culprit.Comm[:], name)
		for what, text := range map[string]Text{
			"pipe": {}, "colored pipe": {Color: true}, "terminal": {Screen: screen(80, 24), Color: true},
		} {
			got := string(text.Alert(nil, &a))
			if what != "terminal" && strings.Count(got, "\n") != 1 {
				t.Errorf("%q, %s: more than one line: %q", name, what, got)
			}
			for line := range strings.Lines(got) {
				if plain := withoutColor(line); !strings.HasPrefix(plain, "!") || strings.ContainsFunc(strings.TrimSuffix(plain, "\n"), func(r rune) bool { return !isVisible(r) }) {
					t.Errorf("%q, %s: line %q", name, what, line)
				}
			}
		}
	}
}

// withoutColor removes the sequences that color a line.
func withoutColor(line string) string {
	return regexp.MustCompile("\x1b\\[[0-9;]*m").ReplaceAllString(line, "")
}

// The color of an alert shows how urgent it is.
func TestText_AlertColor(t *testing.T) {
	for _, tt := range []struct {
		phase    detect.Phase
		severity detect.Severity
		want     sgr
	}{
		{detect.Open, detect.Critical, sgrBoldRed}, {detect.Update, detect.Critical, sgrBoldRed},
		{detect.Open, detect.Warning, sgrBoldAmber}, {detect.Close, detect.Critical, sgrBoldGreen},
	} {
		a := stormAlert()
		a.Phase, a.Severity = tt.phase, tt.severity
		if got := string(Text{Color: true}.Alert(nil, &a)); !strings.HasPrefix(got, string(tt.want)+"!") {
			t.Errorf("%s %s: got %q", tt.phase, tt.severity, got)
		}
	}
}

// Durations have three digits, or two units.
func TestText_Durations(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-1: "-", 0: "0ns", 1: "1ns", 999: "999ns", 1000: "1µs", 48 * time.Microsecond: "48µs", 1953633: "1.95ms", 13903652: "13.9ms",
		999_400: "999µs", 999_600: "1ms", 999_500_000: "1s", 57174: "57.2µs", 12_345 * time.Millisecond: "12.3s",
		59_940 * time.Millisecond: "59.9s", 59_960 * time.Millisecond: "1m0s", 61 * time.Second: "1m1s",
		59*time.Minute + 59*time.Second: "59m59s", time.Hour - 1: "1h0m", 90 * time.Minute: "1h30m",
		24*time.Hour - 1: "1d0h", 76 * time.Hour: "3d4h", 999*24*time.Hour + 23*time.Hour: "999d23h",
	} {
		if got := string(appendDuration(nil, d)); got != want {
			t.Errorf("%v shows as %s, want %s", d, got, want)
		}
	}
}

// Sizes take five cells at most; K is 1024 bytes.
func TestText_Sizes(t *testing.T) {
	for n, want := range map[uint64]string{
		0: "0B", 78: "78B", 1023: "1023B", 1024: "1K", 1025: "1K", 1536: "1.5K", 10_239: "10K", 12_600: "12.3K", 102_300: "99.9K",
		102_349: "100K", 1023 << 10: "1023K", 1<<20 - 1: "1M", 1 << 20: "1M", 123456789: "118M", 1 << 40: "1T", 1<<64 - 1: "16E",
	} {
		got := string(appendSize(nil, n))
		if got != want || len(got) > columns[columnTX].width {
			t.Errorf("%d shows as %s, want %s", n, got, want)
		}
	}
}
