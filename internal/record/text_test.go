package record

import (
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
	header := string(Text{}.Start(nil, 1, &Start{Time: moment}))
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
		row := strings.TrimSuffix(string(Text{}.Transition(nil, 1, &tt.event)), "\n")
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

func TestACommOfManyByteRunesKeepsTheColumnsByItsRunes(t *testing.T) {
	plain, many := fullV4(), fullV4()
	plain.Owner, many.Owner = task(1, "eeeeeee"), task(1, "éééééééé"[:14])
	rowOf := func(e *tcp.Transition) []rune { return []rune(string(Text{}.Transition(nil, 1, e))) }
	got, want := rowOf(&many), rowOf(&plain)
	if strings.ReplaceAll(string(got), "é", "e") != string(want) {
		t.Errorf("got  %q\nwant %q but for the accents", string(got), string(want))
	}
}

func TestATextLineHasNoSpaceAtItsEnd(t *testing.T) {
	for name, cases := range goldenFiles {
		for _, c := range cases {
			for line := range strings.Lines(string(c.encode(Text{}, nil, 1))) {
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
