package top

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/tcpshift/tcpshift/internal/activity"
	"github.com/tcpshift/tcpshift/internal/detect"
	"github.com/tcpshift/tcpshift/internal/summary"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

func comm(name string) (c tcp.Comm) {
	copy(c[:], name)
	return c
}

var (
	began = time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	peer  = netip.MustParseAddr("192.0.2.1")
)

// hostile are names that a process can give itself.
var hostile = []string{"\x1b[2J\x1b]0;x\a", "a\u202eb\u2066c", "zero\u200bw\u200d", "\xff\xfe\x80", "line\nbreak\t", "漢字漢字漢", "e\u0301\u0301\u0301\u0301", "\\x1b", strings.Repeat("█", 5)}

func service(name string, ended, failed uint64, rate float64) activity.Service {
	s := activity.Service{Key: activity.Key{CgroupID: 7, Comm: comm(name), Known: true}, Name: name, Rate: rate}
	s.Connections, s.Failed[0] = ended, failed
	return s
}

// snapshot has two services, a destination, an alert, and sockets.
func snapshot() *activity.Snapshot {
	s := &activity.Snapshot{
		At: began.Add(90 * time.Second), Began: began, SocketsKnown: true, AlertsOpened: 2, Lost: 0,
		Services: []activity.Service{service("worker", 12345, 67, 420.4), service("billing", 89, 0, 0.3)},
		Destinations: []detect.DestinationUsage{
			{Peer: peer, PeerPort: 8080, Local: netip.MustParseAddr("192.0.2.9"), PortsUsed: 210, Ports: 260, Rate: 42, Exhausts: true, ExhaustedIn: 4200 * time.Millisecond},
			{Peer: peer, PeerPort: 443, Local: netip.MustParseAddr("192.0.2.9"), PortsUsed: 3, Ports: 28232, Assumed: true},
		},
		Alerts: []detect.Alert{{ID: "a1", Kind: "time_wait_storm", Phase: detect.Open, Lasted: 12 * time.Second, Finding: detect.Finding{
			Severity: detect.Critical, Role: tcp.RoleClient, Peer: tcp.Endpoint{Addr: peer, Port: 8080}, Culprit: detect.Culprit{Known: true, Service: "worker"},
			Occupancy: 210, Capacity: 260, Exhausts: true, ExhaustionIn: 4200 * time.Millisecond,
			Cause: "200 of the 210 ports in use are in TIME_WAIT", Advice: "reuse connections",
		}}},
	}
	s.Services[0].CloseWait, s.Services[0].Open = 11, 31
	s.Sockets[tcp.Established], s.Sockets[tcp.TimeWait], s.Sockets[tcp.Listen] = 20, 4000, 3
	s.Total.Connections, s.Total.Retransmits, s.Total.Rate = 12434, 5, 420.6
	s.Total.Failed[0] = 67
	for i, name := range []string{"worker", "billing"} {
		r := summary.Row{Role: tcp.RoleClient, OwnerKnown: true, Service: name, Comm: comm(name), CgroupID: 7, Peer: peer, Port: 8080 + uint16(i)}
		r.Connections, r.Failed[4] = uint64(100*(i+1)), 2
		s.Details = append(s.Details, r)
	}
	return s
}

func shown() *model {
	m := newModel("db1", "")
	m.show(snapshot())
	return m
}

// screenText is the screen as text.
func screenText(m *model, width, height int) string {
	var lines []string
	for _, l := range m.view(width, height) {
		lines = append(lines, strings.TrimRight(l.String(), " "))
	}
	return strings.Join(lines, "\n")
}

func mustShow(t *testing.T, screen string, parts ...string) {
	t.Helper()
	squeezed := strings.Join(strings.Fields(screen), " ")
	for _, part := range parts {
		if !strings.Contains(squeezed, part) {
			t.Errorf("the screen lacks %q:\n%s", part, screen)
		}
	}
}

func press(m *model, keys ...key) {
	for _, k := range keys {
		m.press(k)
		m.view(80, 24)
	}
}

// The screen of 80 columns has all that it promises.
func TestView_80Columns(t *testing.T) {
	m := shown()
	mustShow(t, screenText(m, 80, 24),
		"tcpshift top db1 12:01:30 UTC for 1m30s", "12,434 connections, 421/s 67 failed, 0/s 5 retransmits, 0/s",
		"LISTEN 3 ", "ESTABLISHED 20 ", "TIME_WAIT 4,000 ", "CLOSE 12,434 ended", "CLOSE_WAIT 0",
		"1 open: time_wait_storm worker 192.0.2.1:8080 210 of 260 4.2s left",
		"1 Services 2", "2 Destinations 2", "3 Alerts 1",
		"SERVICE ▼CONN/s TOTAL FAILED CLOSE_WAIT RETRANS OPEN", "worker 420 12,345 67 11 0 31", "billing 0.3 89 0 0 0 0", "q quit")
	press(m, "2")
	mustShow(t, screenText(m, 80, 24), "DESTINATION ▼PORTS USED % OPENED/s TIME LEFT", "192.0.2.1:8080 210 of 260 81 42 4.2s", "192.0.2.1:443 3 of ~28,232 0 0 -")
	press(m, keyTab)
	mustShow(t, screenText(m, 80, 24), "time_wait_storm worker 192.0.2.1:8080 210 of 260")
}

// A count of the sockets that is older than others shows its age. One of a recording has none.
func TestView_AgedCount(t *testing.T) {
	for _, age := range []time.Duration{0, 4 * time.Second, 9 * time.Second} {
		s := snapshot()
		if age > 0 {
			s.SocketsAt = s.At.Add(-age)
		}
		m := newModel("db1", "")
		m.show(s)
		for _, width := range []int{30, 50, 80, 120} {
			screen := screenText(m, width, 40)
			if got, want := strings.Contains(screen, "counted 9s ago"), age >= agedCount && width > 30; got != want || !want && strings.Contains(screen, "counted") {
				t.Errorf("of an age of %v, %d columns:\n%s", age, width, screen)
			}
		}
	}
}

// On each page, every size of the screen gets exactly its number of lines, and no line is too wide.
func TestView_AnySize(t *testing.T) {
	for _, keys := range [][]key{nil, {"2"}, {"3"}, {keyEnter}, {"2", keyEnter}, {"3", keyEnter}, {"?"}, {"/", "x"}, {" "}} {
		m := shown()
		press(m, keys...)
		for width := 1; width <= 200; width += 3 {
			for height := 1; height <= 60; height += 4 {
				lines := m.view(width, height)
				if len(lines) != height && (width >= 20 && height >= 5 || len(lines) != 1) {
					t.Fatalf("%v: %dx%d has %d lines", keys, width, height, len(lines))
				}
				for _, l := range lines {
					if l.cells() > width {
						t.Fatalf("%v: %dx%d has a line of %d cells: %q", keys, width, height, l.cells(), l)
					}
				}
			}
		}
	}
}

// A name shows all of itself, moves no cursor, and shifts no column.
func TestView_HostileNames(t *testing.T) {
	m := newModel("\x1b[31mhost", "")
	s := snapshot()
	s.Services = nil
	for _, name := range hostile {
		s.Services = append(s.Services, service(name, 777, 0, 1))
	}
	s.Alerts[0].Culprit.Service, s.Alerts[0].Cause = hostile[0], hostile[1]
	s.Alerts[0].Severity = detect.Severity(hostile[0]) // that of a recording may be any text
	m.show(s)
	for _, keys := range [][]key{nil, {keyEnter}, {keyEscape, "3"}, {keyEnter}} {
		press(m, keys...)
		for _, l := range m.view(80, 40) {
			for _, r := range l.String() {
				if unicode.IsControl(r) || unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp) {
					t.Errorf("%q has %U", l, r)
				}
			}
		}
	}
	press(m, keyEscape, "1")
	for _, l := range m.view(80, 40) {
		if at := strings.Index(l.String(), "777"); at > 0 {
			if got := (line{{l.String()[:at], plain}}).cells(); got != 39 {
				t.Errorf("the number begins in cell %d: %q", got, l)
			}
		}
	}
	if screen := screenText(m, 80, 40); !strings.Contains(screen, `\x1b[2J`) || !strings.Contains(screen, `\\x1b`) {
		t.Errorf("escapes are not shown as such:\n%s", screen)
	}
}

// Rows are sorted by any column, in both directions, and the selected one stays selected.
func TestModel_Sort(t *testing.T) {
	m := shown()
	press(m, keyDown)
	if got := m.at[servicesPage].chosen; !strings.Contains(got, "billing") {
		t.Fatalf("selected is %q", got)
	}
	order := func() string {
		var names []string
		for _, r := range services.rows(m.shown.Services, &m.at[servicesPage], "") {
			names = append(names, r.Name)
		}
		return strings.Join(names, " ")
	}
	for _, c := range []struct {
		key  key
		want string
	}{{keyLeft, "billing worker"}, {"r", "worker billing"}, {keyRight, "worker billing"}, {keyRight, "worker billing"}, {"r", "billing worker"}, {"<", "worker billing"}} {
		press(m, c.key)
		if got := order(); got != c.want {
			t.Errorf("after %s they are %s, want %s", c.key, got, c.want)
		}
		if got := m.at[servicesPage].chosen; !strings.Contains(got, "billing") {
			t.Errorf("after %s %q is selected", c.key, got)
		}
	}
}

// Enter looks into a service and a destination: their connections, and into an alert: its cause.
func TestModel_LookInto(t *testing.T) {
	m := shown()
	press(m, keyDown, keyEnter)
	screen := screenText(m, 120, 30)
	mustShow(t, screen, "> billing", "192.0.2.1:8081 billing 200 2 2 refused")
	if strings.Contains(screen, "192.0.2.1:8080 worker") {
		t.Errorf("it has another service's connections:\n%s", screen)
	}
	press(m, keyEscape, "2", keyEnter)
	mustShow(t, screenText(m, 120, 30), "> 192.0.2.1:8080", "192.0.2.1:8080 worker 100 2")
	press(m, keyEscape, "3", keyEnter)
	mustShow(t, screenText(m, 80, 24), "critical worker 192.0.2.1:8080 210 of 260 for 12s", "Cause 200 of the 210 ports in use are in TIME_WAIT", "Advice reuse connections")
	s := snapshot()
	s.Alerts = nil
	m.show(s)
	mustShow(t, screenText(m, 80, 24), "no alert is open; 2 so far", "this alert is closed")
}

// A filter hides rows, and Esc shows them again.
func TestModel_Filter(t *testing.T) {
	m := shown()
	press(m, "/", "B", "i", "L", "x", keyBackspace)
	screen := screenText(m, 80, 24)
	mustShow(t, screen, "filter: BiL_", "billing 0.3")
	if strings.Contains(screen, "worker 420") {
		t.Errorf("the filter hides nothing:\n%s", screen)
	}
	press(m, "q", keyEnter)
	mustShow(t, screenText(m, 80, 24), "filter: BiLq", "nothing matches the filter")
	press(m, keyEscape)
	mustShow(t, screenText(m, 80, 24), "worker 420", "billing")
}

// A frozen screen shows what it showed, and the newest snapshot afterwards.
func TestModel_Freeze(t *testing.T) {
	m := shown()
	press(m, " ")
	newer := snapshot()
	newer.Total.Connections = 99999
	if m.show(newer) {
		t.Error("a frozen screen changes")
	}
	mustShow(t, screenText(m, 80, 24), "FROZEN", "12,434 connections")
	press(m, " ")
	screen := screenText(m, 80, 24)
	mustShow(t, screen, "99,999 connections")
	if strings.Contains(screen, "FROZEN") {
		t.Error("it is still frozen")
	}
}

// q and Ctrl-C quit, from everywhere but where a filter is typed.
func TestModel_Quit(t *testing.T) {
	for _, keys := range [][]key{nil, {"?"}, {keyEnter}} {
		m := shown()
		press(m, keys...)
		if !m.press("q") {
			t.Errorf("after %v q does not quit", keys)
		}
	}
	m := shown()
	press(m, "/")
	if m.press("q") || !m.press(keyQuit) {
		t.Error("where a filter is typed only Ctrl-C quits")
	}
}

// The bar of what is not zero is visible, and none is too long.
func TestBar_Length(t *testing.T) {
	for _, ascii := range []bool{false, true} {
		for part := range uint64(100) {
			got := line{{bar(part, 99, 13, ascii), plain}}.cells()
			if part == 0 && got != 0 || part > 0 && got == 0 || got > 13 {
				t.Errorf("%d of 99 is a bar of %d cells", part, got)
			}
		}
	}
	if got := bar(50, 100, 10, true); got != "#####" {
		t.Errorf("half a bar is %q", got)
	}
}

// Numbers that are too long lose digits, not their meaning.
func TestNumber_Fits(t *testing.T) {
	got := []string{number(999_999, 7), number(1_234_567, 7), number(18_446_744_073_709_551_615, 4), number(12, 7)}
	if want := []string{"999,999", "1234k", "18E", "12"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
