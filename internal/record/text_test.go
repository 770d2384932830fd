package record

import (
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// widest is a transition whose values fill their columns, those that may be longer
// (an IPv6 address, the kernel-only states) aside.
func widest() tcp.Transition {
	t := fullV4()
	t.Old, t.New, t.Role, t.Netns = tcp.Established, tcp.Established, tcp.RoleListener, 1<<32-1
	t.Owner = task(4<<20, "fifteen-bytes-1")
	t.Local, t.Peer = endpoint("255.255.255.255", 65535), endpoint("255.255.255.255", 65535)
	return t
}

// cell is a value and the title that it stands under.
type cell struct{ title, value string }

// checkUnderTitles fails unless each value begins where its title begins or, aligned to
// the right, ends where it ends. Positions are cells of a terminal.
func checkUnderTitles(t *testing.T, titles, row string, want []cell) {
	t.Helper()
	at := 0
	for _, c := range want {
		index := strings.Index(row[at:], c.value)
		if index < 0 {
			t.Errorf("%s: no %q from byte %d on in\n%s\n%s", c.title, c.value, at, titles, row)
			return
		}
		begin := displayWidth([]byte(row[:at+index]))
		end := begin + displayWidth([]byte(c.value))
		at += index + len(c.value)
		titleBegin := strings.Index(titles+" ", c.title+" ")
		titleEnd := titleBegin + len(c.title)
		if titleBegin < 0 || begin != titleBegin && end != titleEnd {
			t.Errorf("%s: %q takes the cells %d to %d, its title %d to %d:\n%s\n%s",
				c.title, c.value, begin, end, titleBegin, titleEnd, titles, row)
		}
	}
	if rest := strings.TrimSpace(row[at:]); rest != "" {
		t.Errorf("%q stands after the last value:\n%s\n%s", rest, titles, row)
	}
}

// titlesOf gives the lines of titles that a stream begins with.
func titlesOf(text Text) []string {
	lines := strings.Split(strings.TrimSuffix(string(text.Start(nil, &Start{Time: moment})), "\n"), "\n")
	return lines[1:]
}

// Each value of a transition stands under its title.
func TestText_TransitionsUnderTitles(t *testing.T) {
	narrow := tcp.Transition{Time: moment, Netns: 1, Old: tcp.Close, New: tcp.Close, Error: 1}
	long := widest()
	long.Local = endpoint("2001:db8:1234:5678:9abc:def0:1234:5678", 443)
	for _, tt := range []struct {
		name  string
		text  Text
		event tcp.Transition
		want  []cell
	}{
		{"values that fill their columns", Text{}, widest(), []cell{
			{"TIME(UTC)", "05:06:07.000008"}, {"PID", "4194304"}, {"COMM", "fifteen-bytes-1"},
			{"LOCAL", "255.255.255.255:65535"}, {"PEER", "255.255.255.255:65535"}, {"OLD", "ESTABLISHED"}, {"NEW", "ESTABLISHED"},
			{"ROLE", "listener"}, {"NETNS", "4294967295"}, {"ERROR", "ECONNRESET"},
		}},
		{"values not known", Text{NoConnections: true}, narrow, []cell{
			{"TIME(UTC)", "05:06:07.000008"}, {"PID", "-"}, {"COMM", "-"}, {"LOCAL", "-"}, {"PEER", "-"}, {"OLD", "CLOSE"},
			{"NEW", "CLOSE"}, {"ROLE", "-"}, {"NETNS", "1"}, {"ERROR", "EPERM"},
		}},
		{"120 columns", Text{NoConnections: true, Screen: screen(120, 24)}, widest(), []cell{
			{"TIME(UTC)", "05:06:07.000008"}, {"PID", "4194304"}, {"COMM", "fifteen-bytes-1"},
			{"LOCAL", "255.255.255.255:65535"}, {"PEER", "255.255.255.255:65535"}, {"OLD", "ESTABLISHED"}, {"NEW", "ESTABLISHED"},
			{"ERROR", "ECONNRESET"},
		}},
		{"120 columns, shared with connections", Text{Screen: screen(120, 24)}, fullV4(), []cell{
			{"TIME(UTC)", "05:06:07.000"}, {"PID", "4242"}, {"COMM", "curl"}, {"LOCAL", "192.0.2.1:50388"},
			{"PEER", "198.51.100.7:443"}, {"OLD", "ESTABLISHED"}, {"NEW", "CLOSE"}, {"ROLE", "client"}, {"ERROR", "ECONNRESET"},
		}},
		{"80 columns", Text{NoConnections: true, Screen: screen(80, 24)}, long, []cell{
			{"TIME(UTC)", "05:06:07.000"}, {"PID", "4194304"}, {"COMM", "fifteen…"}, {"LOCAL", "…:443"},
			{"PEER", "…255.255.255:65535"}, {"OLD", "ESTABLISHED"}, {"NEW", "ESTABLISHED"},
		}},
		{"80 columns, shared with connections", Text{Screen: screen(80, 24)}, fullV4(), []cell{
			{"TIME", "05:06:07"}, {"PID", "4242"}, {"COMM", "curl"}, {"LOCAL", "…:50388"}, {"PEER", "198.51.100.7:443"},
			{"OLD", "ESTABLISHED"}, {"NEW", "CLOSE"},
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			titles := titlesOf(tt.text)[0]
			row := strings.TrimSuffix(string(tt.text.Transition(nil, &tt.event)), "\n")
			checkUnderTitles(t, titles, row, tt.want)
		})
	}
}

// On a pipe a value that is too wide for its column is whole, and the next one stands apart.
func TestText_WideValuesOnPipe(t *testing.T) {
	wide := fullV6()
	wide.Old, wide.New, wide.Role, wide.Owner = tcp.BoundInactive, tcp.NewSynRecv, 255, task(1<<32-1, "\x1b\x1b\x1b\x1b\x1b")
	want := []string{
		"05:06:07.000008", "4294967295", `\x1b\x1b\x1b\x1b\x1b`, "[2001:db8::1]:50388", "[2001:db8:1234:5678:9abc:def0:1234:5678]:443",
		"BOUND_INACTIVE", "NEW_SYN_RECV", "ROLE_255", "4026531840", "ECONNRESET",
	}
	if got := strings.Fields(string(Text{}.Transition(nil, &wide))); !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	socket := tcp.Socket{Transition: wide, ExpiresIn: 1}
	want = []string{"NEW_SYN_RECV", "ROLE_255", "4026531840", want[1], want[2], want[3], want[4], "0s"}
	if got := strings.Fields(string(Text{}.Socket(nil, &socket))); !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

// Each value of a connection stands under its title, whether transitions share the
// stream or not.
func TestText_ConnectionsUnderTitles(t *testing.T) {
	last, full := widest(), fullConnection()
	full.OpenedAt, full.Sent, full.Received, full.Retransmits, full.RTT = 1, 1023<<20, 1023, 9999, 1234567
	last.Monotonic = 23*time.Hour + 59*time.Minute
	common := []cell{
		{"TIME(UTC)", "05:06:07.000008"}, {"PID", "4194304"}, {"COMM", "fifteen-bytes-1"},
		{"LOCAL", "255.255.255.255:65535"}, {"PEER", "255.255.255.255:65535"},
	}
	measures := []cell{
		{"DURATION", "23h59m"}, {"TX", "1023M"}, {"RX", "1023B"}, {"RETRANS", "9999"}, {"RTT", "1.23ms"},
		{"ENDED-BY", "reset_received"},
	}
	unknown := []cell{{"DURATION", "-"}, {"TX", "0B"}, {"RX", "0B"}, {"RETRANS", "0"}, {"RTT", "-"}, {"ENDED-BY", "-"}}
	mark := []cell{{"ENDED", "ENDED"}}
	short := fullV4()
	for _, tt := range []struct {
		name string
		text Text
		last tcp.Transition
		c    tcp.Connection
		want []cell
	}{
		{"alone", Text{NoTransitions: true}, last, full, slices.Concat(common, measures)},
		{"beside transitions", Text{}, last, full, slices.Concat(common, mark, measures)},
		{"not known", Text{}, last, tcp.Connection{}, slices.Concat(common, mark, unknown)},
		{"120 columns", Text{Screen: screen(120, 24)}, short, full, slices.Concat([]cell{
			{"TIME(UTC)", "05:06:07.000"}, {"PID", "4242"}, {"COMM", "curl"}, {"LOCAL", "192.0.2.1:50388"}, {"PEER", "198.51.100.7:443"},
		}, mark, []cell{
			{"DURATION", "9s"}, {"TX", "1023M"}, {"RX", "1023B"}, {"RETR", "9999"}, {"RTT", "1.23ms"}, {"ENDED-BY", "reset_received"},
		})},
		{"120 columns, alone", Text{NoTransitions: true, Screen: screen(120, 24)}, short, full, []cell{
			{"TIME(UTC)", "05:06:07.000"}, {"PID", "4242"}, {"COMM", "curl"}, {"LOCAL", "192.0.2.1:50388"}, {"PEER", "198.51.100.7:443"},
			{"DURATION", "9s"}, {"TX", "1023M"}, {"RX", "1023B"}, {"RETR", "9999"}, {"RTT", "1.23ms"}, {"ENDED-BY", "reset_received"},
		}},
		{"80 columns", Text{Screen: screen(80, 24)}, short, full, slices.Concat([]cell{
			{"TIME", "05:06:07"}, {"PID", "4242"}, {"COMM", "curl"}, {"LOCAL", "…:50388"}, {"PEER", "198.51.100.7:443"},
		}, mark, []cell{{"DURATION", "9s"}, {"ENDED-BY", "reset_recei…"}})},
		{"80 columns, alone", Text{NoTransitions: true, Screen: screen(80, 24)}, short, full, []cell{
			{"TIME", "05:06:07"}, {"PID", "4242"}, {"COMM", "curl"}, {"LOCAL", "…:50388"}, {"PEER", "….51.100.7:443"},
			{"DURATION", "9s"}, {"TX", "1023M"}, {"RX", "1023B"}, {"ENDED-BY", "reset_rec…"},
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			titles := titlesOf(tt.text)
			row := strings.TrimSuffix(string(tt.text.Connection(nil, &tt.last, &tt.c)), "\n")
			checkUnderTitles(t, titles[len(titles)-1], row, tt.want)
		})
	}
}

// A stream has a line of titles for each kind of row that it may have.
func TestText_TitlesPerRowKind(t *testing.T) {
	for _, tt := range []struct {
		text Text
		want []string // a title that only this line has
	}{
		{Text{}, []string{"NEW", "ENDED-BY"}},
		{Text{NoConnections: true}, []string{"NEW"}},
		{Text{NoTransitions: true}, []string{"ENDED-BY"}},
		{Text{NoTransitions: true, NoConnections: true}, nil},
	} {
		titles := titlesOf(tt.text)
		if len(titles) != len(tt.want) {
			t.Errorf("%+v: the titles are %q", tt.text, titles)
			continue
		}
		for i, line := range titles {
			if !slices.Contains(strings.Fields(line), tt.want[i]) {
				t.Errorf("%+v: the titles are %q, want %q among those of line %d", tt.text, titles, tt.want[i], i+1)
			}
		}
	}
}

// Each value of a snapshot stands under its title.
func TestText_SocketsUnderTitles(t *testing.T) {
	full := tcp.Socket{Transition: widest()}
	full.New = tcp.NewSynRecv
	timeWait := tcp.Socket{
		Transition: tcp.Transition{
			New: tcp.TimeWait, Substate: tcp.TimeWait, Netns: 2, Local: endpoint("192.0.2.1", 80), Peer: endpoint("::1", 5),
		},
		ExpiresIn: 31_449_000_000,
	}
	for _, tt := range []struct {
		name   string
		text   Text
		socket tcp.Socket
		want   []cell
	}{
		{"values that fill their columns", Text{}, full, []cell{
			{"STATE", "NEW_SYN_RECV"}, {"ROLE", "listener"}, {"NETNS", "4294967295"}, {"PID", "4194304"}, {"COMM", "fifteen-bytes-1"},
			{"LOCAL", "255.255.255.255:65535"}, {"PEER", "255.255.255.255:65535"},
		}},
		{"values not known", Text{}, tcp.Socket{Transition: tcp.Transition{New: tcp.Close, Netns: 1}}, []cell{
			{"STATE", "CLOSE"}, {"ROLE", "-"}, {"NETNS", "1"}, {"PID", "-"}, {"COMM", "-"}, {"LOCAL", "-"}, {"PEER", "-"},
		}},
		{"a TIME_WAIT with its time", Text{}, timeWait, []cell{
			{"STATE", "TIME_WAIT"}, {"ROLE", "-"}, {"NETNS", "2"}, {"PID", "-"}, {"COMM", "-"}, {"LOCAL", "192.0.2.1:80"},
			{"PEER", "[::1]:5"}, {"EXPIRES", "31.4s"},
		}},
		{"queues", Text{}, tcp.Socket{Transition: timeWait.Transition, Queues: tcp.Queues{Known: true, Receive: 123456, Send: 7}}, []cell{
			{"STATE", "TIME_WAIT"}, {"ROLE", "-"}, {"NETNS", "2"}, {"PID", "-"}, {"COMM", "-"}, {"LOCAL", "192.0.2.1:80"},
			{"PEER", "[::1]:5"}, {"RECV-Q", "123456"}, {"SEND-Q", "7"},
		}},
		{"80 columns", Text{Screen: screen(80, 24)}, timeWait, []cell{
			{"STATE", "TIME_WAIT"}, {"PID", "-"}, {"COMM", "-"}, {"LOCAL", "192.0.2.1:80"}, {"PEER", "[::1]:5"}, {"EXPIRES", "31.4s"},
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			titles := strings.TrimSuffix(string(tt.text.Header(nil)), "\n")
			checkUnderTitles(t, titles, strings.TrimSuffix(string(tt.text.Socket(nil, &tt.socket)), "\n"), tt.want)
		})
	}
}

// What is not known of the host is left out of the first line.
func TestText_UnknownHost(t *testing.T) {
	for _, tt := range []struct {
		start Start
		want  string
	}{
		{Start{Version: "v1", Host: "web", Kernel: "6.1", Arch: "amd64"}, "# tcpshift v1 on web, Linux 6.1 amd64, 2026-03-04 05:06:07 UTC"},
		{Start{Version: "v1", Kernel: "6.1", Arch: "amd64"}, "# tcpshift v1, Linux 6.1 amd64, 2026-03-04 05:06:07 UTC"},
		{Start{Version: "v1", Host: "web", Arch: "amd64"}, "# tcpshift v1 on web amd64, 2026-03-04 05:06:07 UTC"},
		{Start{Version: "v1"}, "# tcpshift v1, 2026-03-04 05:06:07 UTC"},
	} {
		tt.start.Time = moment
		got, _, _ := strings.Cut(string(Text{}.Start(nil, &tt.start)), "\n")
		if got != tt.want {
			t.Errorf("got  %s\nwant %s", got, tt.want)
		}
	}
}

// Columns count cells of a terminal, neither bytes nor runes.
func TestText_WidthOfRunes(t *testing.T) {
	for _, tt := range []struct {
		comm  string
		cells int
	}{
		{"curl", 4}, {"ééééééé", 7}, {"日本語", 6}, {"\U0001f600", 2}, {"ｆｕｌｌ", 8}, {"e\u0301e\u0301", 2}, {"ﾊﾝｶｸ", 4},
	} {
		event := fullV4()
		event.Owner = task(1, tt.comm)
		row := Text{}.Transition(nil, &event)
		before, _, found := strings.Cut(string(row), "192.0.2.1")
		blanks := len(before) - len(strings.TrimRight(before, " "))
		if want := columns[columnComm].width + 1 - tt.cells; !found || blanks != want {
			t.Errorf("%q: %d blanks before the next column, want %d: %s", tt.comm, blanks, want, row)
		}
		if got := displayWidth([]byte(tt.comm)); got != tt.cells {
			t.Errorf("%q takes %d cells, want %d", tt.comm, got, tt.cells)
		}
	}
}

// A name with wide characters is cut at a whole character.
func TestText_CutWideName(t *testing.T) {
	event := fullV4()
	event.Owner = task(1, "日本語日本")
	row := string(Text{NoConnections: true, Screen: screen(80, 24)}.Transition(nil, &event))
	row = row[strings.Index(row, "\n")+1:]
	if !strings.Contains(row, " 日本語…  …") { // 7 of 8 cells, and the space between columns
		t.Errorf("got %s", row)
	}
}

// No line ends with a space.
func TestText_NoTrailingSpace(t *testing.T) {
	for name, cases := range goldenFiles {
		for _, c := range cases {
			for line := range strings.Lines(string(c.line(Text{}, nil, 1))) {
				if strings.HasSuffix(line, " \n") {
					t.Errorf("%s, %s: %q", name, c.name, line)
				}
			}
		}
	}
}

// No two process names look alike.
func TestText_NamesAreDistinct(t *testing.T) {
	comms := []string{"\x9b", "\u009b", `\x9b`, `\u009b`, "\u00ad", "\xad", "\u202e", `\u202e`, "\ufffd", "\xff"}
	for _, h := range hostileComms {
		comms = append(comms, h.comm)
	}
	for b := range 256 {
		comms = append(comms, string([]byte{'<', byte(b), '>'}), "<"+string(rune(b))+">")
	}
	shownAs := make(map[string]string)
	for _, comm := range comms {
		shown := string(appendPrintable(nil, []byte(comm)))
		if other, taken := shownAs[shown]; taken && other != comm {
			t.Errorf("%q and %q both show as %s", other, comm, shown)
		}
		shownAs[shown] = comm
		// The escapes are Go's, which has a decoder for them.
		if got, err := strconv.Unquote(`"` + strings.ReplaceAll(shown, `"`, `\"`) + `"`); err != nil || got != comm {
			t.Errorf("%s reads back as %q, %v; want %q", shown, got, err, comm)
		}
	}
}

// Printable text is left as it is.
func TestText_PrintableIsUnchanged(t *testing.T) {
	for _, comm := range []string{"curl", "say \"hi\"", "grün", "日本語", "\ufffd"} {
		if got := string(appendPrintable(nil, []byte(comm))); got != comm || !utf8.ValidString(got) {
			t.Errorf("%q shows as %q", comm, got)
		}
	}
}
