package record

import (
	"net/netip"
	"time"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// moment is not in UTC, and its nanoseconds have zeros at both ends: neither must show.
var moment = time.Date(2026, time.March, 4, 7, 6, 7, 8000, time.FixedZone("two hours east", 2*60*60))

// goldenCase is a record that one golden line is of, whoever encodes it.
type goldenCase struct {
	name   string
	encode func(e Encoder, dst []byte, seq uint64) []byte
}

// goldenFiles are testdata/NAME.ndjson and testdata/NAME.txt.
var goldenFiles = map[string][]goldenCase{
	"start":      startCases(),
	"transition": transitionCases(),
	"stats":      statsCases(),
	"loss":       lossCases(),
	"stop":       stopCases(),
}

var goldenLabels = []Label{
	{"cluster", "blue"}, {"note", "a \"quoted\" \\ value,\nwith \x1b[31m and \u202e"}, {"empty", ""},
}

func endpoint(addr string, port uint16) tcp.Endpoint {
	return tcp.Endpoint{Addr: netip.MustParseAddr(addr), Port: port}
}

func task(pid uint32, comm string) tcp.Owner {
	o := tcp.Owner{PID: pid, Source: tcp.PIDTask}
	copy(o.Comm[:], comm)
	return o
}

func fullV4() tcp.Transition {
	return tcp.Transition{
		Time: moment, Monotonic: 5, Cookie: 0xfedcba9876543210, Local: endpoint("192.0.2.1", 50388),
		Peer: endpoint("198.51.100.7", 443), Netns: 4026531840, UID: 1000, Owner: task(4242, "curl"), Error: 104,
		Old: tcp.Established, New: tcp.Close, Role: tcp.RoleClient,
	}
}

func fullV6() tcp.Transition {
	t := fullV4()
	t.IPv6, t.Local, t.Peer = true, endpoint("2001:db8::1", 50388), endpoint("2001:db8:1234:5678:9abc:def0:1234:5678", 443)
	return t
}

func mapped() tcp.Transition {
	t := fullV4()
	t.Mapped, t.Error, t.Role, t.Old, t.New = true, 0, tcp.RoleServer, tcp.SynRecv, tcp.Established
	return t
}

// hostileComms are what a process may call itself, 16 bytes at most.
var hostileComms = []struct{ name, comm string }{
	{"quotes", `say "hi" 'ho'`},
	{"a backslash", `back\slash\n`},
	{"a newline", "two\nlines\r\t"},
	{"an escape sequence", "\x1b[2J\x1b]0;x\a"},
	{"invalid UTF-8", "a\xff\xc3(\xed\xa0\x80\xf4"},
	{"DEL", "del\x7fete"},
	{"C1 controls", "\u0085\u009b31m"},
	{"a C1 control as a bare byte", "\x9b31m"},
	{"a right-to-left override", "gpj\u202eexe"},
	{"line separators", "a\u2028b\u2029c"},
	{"a byte order mark and a no-break space", "\ufeffa\u00a0b"},
	{"runes beyond the first plane", "\U0001f600\U000e0001"},
	{"16 bytes without NUL", "0123456789abcdef"},
	{"bytes after its NUL", "short\x00hidden"},
	{"what JSON in a page must not hold", "</script>&"},
	{"spaces", "  tmux: server "},
	{"no byte at all", ""},
}

func transitionCases() []goldenCase {
	edit := func(name string, change func(t *tcp.Transition)) goldenCase {
		return goldenCase{name, func(e Encoder, dst []byte, seq uint64) []byte {
			t := fullV4()
			change(&t)
			return e.Transition(dst, seq, &t)
		}}
	}
	cases := []goldenCase{
		edit("everything known", func(*tcp.Transition) {}),
		edit("IPv6", func(t *tcp.Transition) { *t = fullV6() }),
		edit("IPv4 over an IPv6 socket", func(t *tcp.Transition) { *t = mapped() }),
		edit("nothing known but the states", func(t *tcp.Transition) {
			*t = tcp.Transition{Time: moment, Old: tcp.Close, New: tcp.Close}
		}),
		edit("a half-empty child", func(t *tcp.Transition) {
			*t = tcp.Transition{
				Time: moment, Cookie: 1, Netns: 4026531840, Local: tcp.Endpoint{Port: 80}, Old: tcp.Listen, New: tcp.SynRecv,
				Role: tcp.RoleServer,
			}
		}),
		edit("a listener with the wildcard address", func(t *tcp.Transition) {
			t.Local, t.Peer, t.Role, t.Error = endpoint("0.0.0.0", 80), tcp.Endpoint{}, tcp.RoleListener, 0
			t.Old, t.New = tcp.Close, tcp.Listen
		}),
		edit("an IPv6 listener with the wildcard address", func(t *tcp.Transition) {
			t.IPv6, t.Local, t.Peer, t.Role, t.Error = true, endpoint("::", 80), tcp.Endpoint{}, tcp.RoleListener, 0
			t.Old, t.New = tcp.Listen, tcp.Close
		}),
		edit("a connect() without a local port yet", func(t *tcp.Transition) {
			t.Local.Port, t.Error, t.Old, t.New = 0, 0, tcp.Close, tcp.SynSent
		}),
		edit("no owner, whatever lies where one would be", func(t *tcp.Transition) { t.Owner.Source = tcp.PIDUnknown }),
		edit("user 0, which is a value", func(t *tcp.Transition) { t.Owner, t.UID = task(1, "systemd"), 0 }),
		edit("states outside the table", func(t *tcp.Transition) { t.Old, t.New = 17, 255 }),
		edit("an error outside the table", func(t *tcp.Transition) { t.Error = 4000 }),
		edit("the largest numbers", func(t *tcp.Transition) { *t = largest() }),
	}
	for _, h := range hostileComms {
		cases = append(cases, edit("a comm with "+h.name, func(t *tcp.Transition) { t.Owner = task(4242, h.comm) }))
	}
	return cases
}

// largest is a transition whose every value takes the most room.
func largest() tcp.Transition {
	wide := endpoint("fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 65535)
	return tcp.Transition{
		Time: moment, Cookie: 1<<64 - 1, Netns: 1<<32 - 1, UID: 1<<32 - 1, Local: wide, Peer: wide,
		Owner: task(1<<32-1, "\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01"),
		Error: 1<<32 - 1, Old: tcp.BoundInactive, New: tcp.BoundInactive, Role: tcp.RoleListener, IPv6: true,
	}
}

func startCases() []goldenCase {
	full := Start{
		Time: moment, Version: "v1.2.3", Host: "web-1", BootID: "2e8ec3c7-6990-4be5-ad35-620e3c14e752",
		Kernel: "6.18.44-generic", Arch: "amd64", PID: 4242,
		Features: []Feature{{"socket_storage", ""}, {"socket_cookie", ""}},
	}
	edit := func(name string, change func(s *Start)) goldenCase {
		return goldenCase{name, func(e Encoder, dst []byte, _ uint64) []byte {
			s := full
			change(&s)
			return e.Start(dst, 1, &s) // always the first
		}}
	}
	return []goldenCase{
		edit("every feature there", func(*Start) {}),
		edit("features off, with the reason", func(s *Start) {
			s.Features = []Feature{{"socket_storage", `this kernel says "no"`}, {"socket_cookie", "nor\nthis"}}
		}),
		edit("no features at all", func(s *Start) { s.Features = nil }),
		edit("host, boot and kernel not known", func(s *Start) { s.Host, s.BootID, s.Kernel = "", "", "" }),
		edit("a hostile host name", func(s *Start) { s.Host = "\x1b[2Jho\"st\n\u202e\xff" }),
	}
}

var someCounts = Counts{
	Fired: 1020, Entered: 1015, Missed: 5, OtherProtocol: 20, Filtered: 300, LostRingFull: 30, LostRingBusy: 2, LostReentry: 1,
	Read: 667, Dropped: 67, Written: 600, WrittenBytes: 180000,
}

func largestCounts() Counts {
	const most = 1<<64 - 1
	return Counts{most, most, most, 0, most, most, most, most, most, most, most, most}
}

func statsCases() []goldenCase {
	stats := func(name string, c Counts) goldenCase {
		return goldenCase{name, func(e Encoder, dst []byte, seq uint64) []byte {
			return e.Stats(dst, seq, &Stats{Time: moment, Counts: c})
		}}
	}
	return []goldenCase{
		stats("every count another", someCounts),
		stats("nothing yet, and every key there", Counts{}),
		stats("the largest numbers", largestCounts()),
	}
}

func lossCases() []goldenCase {
	var cases []goldenCase
	for _, cause := range []LossCause{CauseRingFull, CauseRingBusy, CauseReentry} {
		cases = append(cases, goldenCase{string(cause), func(e Encoder, dst []byte, seq uint64) []byte {
			return e.Loss(dst, seq, &Loss{Time: moment, Lost: 1234, Cause: cause})
		}})
	}
	return cases
}

func stopCases() []goldenCase {
	stop := func(reason, signal string) goldenCase {
		return goldenCase{reason + signal, func(e Encoder, dst []byte, seq uint64) []byte {
			return e.Stop(dst, seq, &Stop{Time: moment, Reason: reason, Signal: signal, Counts: someCounts})
		}}
	}
	return []goldenCase{
		stop("signal", "SIGTERM"), stop("signal", "SIGINT"), stop("duration", ""), stop("count", ""),
	}
}
