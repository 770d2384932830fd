package record

import (
	"slices"
	"strconv"
	"strings"
	"testing"
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

func TestTextColumnsStandUnderTheirTitles(t *testing.T) {
	header := string(Text{}.Start(nil, &Start{Time: moment}))
	_, titles, _ := strings.Cut(strings.TrimSuffix(header, "\n"), "\n")
	narrow := tcp.Transition{Time: moment, Netns: 1, Old: tcp.Close, New: tcp.Close, Error: 1}
	wide := fullV6() // where a column is too wide, the next one still stands apart
	wide.Old, wide.New, wide.Role = tcp.BoundInactive, tcp.NewSynRecv, 255
	for _, tt := range []struct {
		name    string
		event   tcp.Transition
		want    []string
		aligned bool
	}{
		{"values that fill their columns", widest(), []string{
			"05:06:07.000008", "ESTABLISHED", "ESTABLISHED", "listener", "4294967295", "4194304", "fifteen-bytes-1",
			"255.255.255.255:65535", "255.255.255.255:65535", "ECONNRESET",
		}, true},
		{"values not known", narrow, []string{
			"05:06:07.000008", "CLOSE", "CLOSE", "-", "1", "-", "-", "-", "-", "EPERM",
		}, true},
		{"values too wide for their columns", wide, []string{
			"05:06:07.000008", "BOUND_INACTIVE", "NEW_SYN_RECV", "ROLE_255", "4026531840", "4242", "curl",
			"[2001:db8::1]:50388", "[2001:db8:1234:5678:9abc:def0:1234:5678]:443", "ECONNRESET",
		}, false},
	} {
		row := strings.TrimSuffix(string(Text{}.Transition(nil, &tt.event)), "\n")
		if got := strings.Fields(row); strings.Join(got, "|") != strings.Join(tt.want, "|") {
			t.Errorf("%s:\ngot  %q\nwant %q", tt.name, got, tt.want)
			continue
		}
		end := 0
		for i, title := range []string{"TIME (UTC)", "OLD", "NEW", "ROLE", "NETNS", "PID", "COMM", "LOCAL", "PEER", "ERROR"} {
			begin := end + strings.Index(row[end:], tt.want[i])
			end = begin + len(tt.want[i])
			if want := strings.Index(titles, title); tt.aligned && begin != want {
				t.Errorf("%s: %s stands at %d, want %d as in the header:\n%s\n%s", tt.name, tt.want[i], begin, want, titles, row)
			}
		}
	}
}

func TestTheColumnsOfASnapshotStandUnderTheirTitles(t *testing.T) {
	titles := strings.TrimSuffix(string(Text{}.Header(nil)), "\n")
	names := []string{"STATE", "ROLE", "NETNS", "PID", "COMM", "LOCAL", "PEER", "EXPIRES"}
	if got := strings.Fields(titles); !slices.Equal(got, names) {
		t.Fatalf("the header is %q, want %q", got, names)
	}
	full := tcp.Socket{Transition: widest()}
	full.New = tcp.NewSynRecv
	for _, tt := range []struct {
		name    string
		socket  tcp.Socket
		want    []string
		aligned bool
	}{
		{"values that fill their columns", full, []string{
			"NEW_SYN_RECV", "listener", "4294967295", "4194304", "fifteen-bytes-1", "255.255.255.255:65535", "255.255.255.255:65535",
		}, true},
		{"values not known", tcp.Socket{Transition: tcp.Transition{New: tcp.Close, Netns: 1}}, []string{
			"CLOSE", "-", "1", "-", "-", "-", "-",
		}, true},
		{"a TIME_WAIT with its time", tcp.Socket{
			Transition: tcp.Transition{
				New: tcp.TimeWait, Substate: tcp.TimeWait, Netns: 2, Local: endpoint("192.0.2.1", 80), Peer: endpoint("::1", 5),
			},
			ExpiresIn: 31_449_000_000,
		}, []string{"TIME_WAIT", "-", "2", "-", "-", "192.0.2.1:80", "[::1]:5", "31.4s"}, true},
		{"values too wide for their columns", tcp.Socket{Transition: tcp.Transition{
			New: tcp.BoundInactive, Role: 255, Owner: task(1<<32-1, "\x1b\x1b\x1b\x1b\x1b"), Local: fullV6().Peer, Peer: fullV6().Peer,
		}, ExpiresIn: 1}, []string{
			"BOUND_INACTIVE", "ROLE_255", "0", "4294967295", `\x1b\x1b\x1b\x1b\x1b`, "[2001:db8:1234:5678:9abc:def0:1234:5678]:443",
			"[2001:db8:1234:5678:9abc:def0:1234:5678]:443", "0s",
		}, false},
	} {
		row := strings.TrimSuffix(string(Text{}.Socket(nil, &tt.socket)), "\n")
		if got := strings.Fields(row); !slices.Equal(got, tt.want) {
			t.Errorf("%s:\ngot  %q\nwant %q", tt.name, got, tt.want)
			continue
		}
		end := 0
		for i, value := range tt.want {
			begin := end + strings.Index(row[end:], value)
			end = begin + len(value)
			if want := strings.Index(titles, names[i]); tt.aligned && begin != want {
				t.Errorf("%s: %s stands at %d, want %d as in the header:\n%s\n%s", tt.name, value, begin, want, titles, row)
			}
		}
	}
}

func TestWhatIsNotKnownOfTheHostIsLeftOutOfTheHeader(t *testing.T) {
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

func TestACommOfManyByteRunesKeepsTheColumnsByItsRunes(t *testing.T) {
	plain, many := fullV4(), fullV4()
	plain.Owner, many.Owner = task(1, "eeeeeee"), task(1, "éééééééé"[:14])
	rowOf := func(e *tcp.Transition) []rune { return []rune(string(Text{}.Transition(nil, e))) }
	got, want := rowOf(&many), rowOf(&plain)
	if strings.ReplaceAll(string(got), "é", "e") != string(want) {
		t.Errorf("got  %q\nwant %q but for the accents", string(got), string(want))
	}
}

func TestATextLineHasNoSpaceAtItsEnd(t *testing.T) {
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

func TestNoTwoCommsLookTheSameInText(t *testing.T) {
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

func TestPrintableTextIsLeftAsItIs(t *testing.T) {
	for _, comm := range []string{"curl", "say \"hi\"", "grün", "日本語", "\ufffd"} {
		if got := string(appendPrintable(nil, []byte(comm))); got != comm || !utf8.ValidString(got) {
			t.Errorf("%q shows as %q", comm, got)
		}
	}
}
