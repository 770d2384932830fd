package record

import (
	"bytes"
	"net/netip"
	"strings"
	"time"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// moment is not in UTC, and its nanoseconds have zeros at both ends, which must be kept.
var moment = time.Date(2026, time.March, 4, 7, 6, 7, 8000, time.FixedZone("two hours east", 2*60*60))

// goldenCase is a record for which each encoder has a golden line.
type goldenCase struct {
	name   string
	encode func(e Encoder, dst []byte) []byte // without its number
}

// line appends the record with its number. A start is always the first record.
func (c *goldenCase) line(e Encoder, dst []byte, seq uint64) []byte {
	line := c.encode(e, nil)
	if bytes.HasPrefix(line, []byte(`{"type":"start"`)) || bytes.Contains(line, []byte(`"tcpshift.start"`)) {
		seq = 1
	}
	return e.WithSeq(dst, line, seq)
}

// goldenFiles are testdata/NAME.ndjson and testdata/NAME.txt.
var goldenFiles = map[string][]goldenCase{
	"start":      startCases(),
	"transition": transitionCases(),
	"connection": connectionCases(),
	"socket":     socketCases(),
	"alert":      alertCases(),

	"socket_count": socketCountCases(),
	"summary":      summaryCases(),
	"process":      processCases(),
	"stats":        statsCases(),
	"loss":         lossCases(),
	"reload":       reloadCases(),
	"stop":         stopCases(),
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

// claimed is a cgroup whose names another user than root has chosen.
func claimed() *tcp.Cgroup {
	return &tcp.Cgroup{
		Path: "/user@1000.service/docker-" + containerID + ".scope/nginx.service", Unit: "nginx.service",
		Container: containerID, Runtime: "docker", ContainerClaimed: true, UnitClaimed: true,
	}
}

// pod is a cgroup with all fields known.
func pod() *tcp.Cgroup {
	return &tcp.Cgroup{
		Path:      "/kubepods.slice/kubepods-pod2e8ec3c7_6990_4be5_ad35_620e3c14e752.slice/cri-containerd-" + containerID + ".scope",
		Container: containerID, Runtime: "containerd", PodUID: "2e8ec3c7-6990-4be5-ad35-620e3c14e752",
	}
}

const containerID = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func fullV4() tcp.Transition {
	return tcp.Transition{
		Time: moment, Monotonic: 9 * time.Second, Cookie: 0xfedcba9876543210, Local: endpoint("192.0.2.1", 50388),
		Peer: endpoint("198.51.100.7", 443), Netns: 4026531840, UID: 1000, Owner: task(4242, "curl"), CgroupID: 77, Cgroup: pod(),
		Error: 104, Old: tcp.Established, New: tcp.Close, Role: tcp.RoleClient, InState: 1_500_000_000,
		// No record has these.
		Locked: true, PeerFIN: true, NoLinger2: true, NoProcess: true,
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

// hostileComms are names that a process can give itself, 16 bytes at most.
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

// inSample is a record of an encoder whose sample is 1/100. Text has no sample.
func inSample(c goldenCase) goldenCase {
	return goldenCase{c.name, func(e Encoder, dst []byte) []byte {
		sampling, can := e.(SamplingEncoder)
		if !can {
			return c.encode(e, dst)
		}
		sampling.SetSample(100)
		defer sampling.SetSample(0)
		return c.encode(e, dst)
	}}
}

func transitionCases() []goldenCase {
	edit := func(name string, change func(t *tcp.Transition)) goldenCase {
		return goldenCase{name, func(e Encoder, dst []byte) []byte {
			t := fullV4()
			change(&t)
			return e.Transition(dst, &t)
		}}
	}
	cases := []goldenCase{
		edit("everything known", func(*tcp.Transition) {}),
		edit("IPv6", func(t *tcp.Transition) { *t = fullV6() }),
		edit("IPv4 over an IPv6 socket", func(t *tcp.Transition) { *t = mapped() }),
		edit("nothing known but the states", func(t *tcp.Transition) {
			*t = tcp.Transition{Time: moment, Old: tcp.Close, New: tcp.Listen}
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

		edit("a close that leaves a TIME_WAIT", func(t *tcp.Transition) { *t = timeWait(tcp.TimeWait) }),
		edit("a close that leaves one in substate FIN_WAIT2", func(t *tcp.Transition) { *t = timeWait(tcp.FinWait2) }),
		edit("a close with an unknown timewait socket", func(t *tcp.Transition) {
			*t = timeWait(0)
			t.New, t.TimeWaitUnknown = tcp.Close, true
		}),
		edit("a TIME_WAIT that ends in its own time", func(t *tcp.Transition) { *t = timeWaitEnd(true) }),
		edit("a TIME_WAIT that ends before", func(t *tcp.Transition) { *t = timeWaitEnd(false) }),
		edit("a state that becomes itself", func(t *tcp.Transition) { t.Old, t.New, t.Error = tcp.FinWait2, tcp.FinWait2, 0 }),
		edit("a time in the state not known", func(t *tcp.Transition) { t.InState = 0 }),
		edit("the shortest time in the state", func(t *tcp.Transition) { t.InState = 1 }),
		edit("an owner that is remembered", func(t *tcp.Transition) { t.Owner.Source = tcp.PIDStored }),
		edit("an owner that accepted", func(t *tcp.Transition) { t.Owner.Source = tcp.PIDAccept }),
		edit("an owner that has the listener", func(t *tcp.Transition) { t.Owner.Source = tcp.PIDListener }),
		edit("an owner that was found at the start", func(t *tcp.Transition) { t.Owner.Source = tcp.PIDScan }),
		edit("a reset that this side sent", func(t *tcp.Transition) { t.ResetReason = "TCP_ABORT_ON_DATA" }),
	}
	for _, c := range cgroups {
		cases = append(cases, edit("a cgroup: "+c.name, func(t *tcp.Transition) { t.Cgroup = c.cgroup }))
	}
	for _, p := range ownerProcesses() {
		cases = append(cases, edit("an owner with "+p.name, func(t *tcp.Transition) { t.Process = p.process }))
	}
	for _, h := range hostileComms {
		cases = append(cases, edit("a comm with "+h.name, func(t *tcp.Transition) {
			t.Owner, t.Cgroup = task(4242, h.comm), nil
		}))
	}
	cases = append(cases, inSample(edit("one of a sample", func(t *tcp.Transition) { t.Cgroup = nil })),
		inSample(edit("a listener in every sample", func(t *tcp.Transition) {
			t.Peer, t.Role, t.Old, t.New, t.Error, t.Cgroup = tcp.Endpoint{}, tcp.RoleListener, tcp.Close, tcp.Listen, 0, nil
		})))
	return cases
}

// timeWait is an orderly close that leaves a timewait socket in this substate.
func timeWait(substate tcp.State) tcp.Transition {
	t := fullV4()
	t.Old, t.New, t.Substate, t.Error = tcp.FinWait2, tcp.TimeWait, substate, 0
	return t
}

func timeWaitEnd(expired bool) tcp.Transition {
	t := fullV4()
	t.Old, t.New, t.Error, t.InState, t.Expired, t.Owner = tcp.TimeWait, tcp.Close, 0, time.Minute, expired, tcp.Owner{}
	return t
}

// cgroups have different keys each.
var cgroups = []struct {
	name   string
	cgroup *tcp.Cgroup
}{
	{"not known", nil},
	{"the root", &tcp.Cgroup{Path: "/"}},
	{"no container's", &tcp.Cgroup{Path: "/system.slice/ssh.service"}},
	{"a container's, without runtime and pod", &tcp.Cgroup{Path: "/x/" + containerID, Container: containerID}},
	{"a container's in no pod", &tcp.Cgroup{Path: "/docker/" + containerID, Container: containerID, Runtime: "docker"}},
	{"a pod's without a container", &tcp.Cgroup{Path: "/kubepods/podx", PodUID: pod().PodUID}},
	{"claimed", claimed()},
	{"with the names of its pod", named()},
	{"with its unit and a hostile name", quadlet()},
	{"with a unit that is too long", &tcp.Cgroup{Path: "/u", Unit: strings.Repeat("\\", 100) + ".service"}},
	{"of any bytes", &tcp.Cgroup{Path: "/a \"b\" \\\x1b[2J/\xff\u202e"}},
	{"as long as it may be", &tcp.Cgroup{Path: longestPath("x")[:maxPath-len(`,"cgroup":""`)]}},
	{"too long", &tcp.Cgroup{Path: longestPath("x"), Container: containerID, Runtime: "docker"}},
	{"too long with its escapes", &tcp.Cgroup{Path: longestPath("\x01"), Container: containerID, Runtime: "docker"}},
}

// longestPath has the most levels that the BPF programs emit, each as long as possible.
func longestPath(letter string) string {
	const levels, nameLen = 12, 255
	return strings.Repeat("/"+strings.Repeat(letter, nameLen), levels)
}

func fullConnection() tcp.Connection {
	return tcp.Connection{
		Opened: moment.Add(-2 * time.Second), OpenedAt: 7 * time.Second, EstablishedFor: 1_500_000_000, Sent: 123456789, Received: 987654321,
		Retransmits: 3, RTT: 250 * time.Microsecond, ClosedBy: tcp.ClosedByResetReceived,
	}
}

func connectionCases() []goldenCase {
	edit := func(name string, change func(t *tcp.Transition, c *tcp.Connection)) goldenCase {
		return goldenCase{name, func(e Encoder, dst []byte) []byte {
			t, c := fullV4(), fullConnection()
			change(&t, &c)
			return e.Connection(dst, &t, &c)
		}}
	}
	cases := []goldenCase{
		edit("everything known", func(*tcp.Transition, *tcp.Connection) {}),
		edit("IPv6", func(t *tcp.Transition, _ *tcp.Connection) { *t = fullV6() }),
		edit("IPv4 over an IPv6 socket", func(t *tcp.Transition, c *tcp.Connection) {
			*t, c.ClosedBy = mapped(), tcp.ClosedByPeer
			t.Old, t.New = tcp.LastAck, tcp.Close
		}),
		edit("a TIME_WAIT at its end", func(t *tcp.Transition, c *tcp.Connection) {
			*t, c.ClosedBy = timeWait(tcp.TimeWait), tcp.ClosedByLocal
		}),
		edit("begun before the tracer", func(_ *tcp.Transition, c *tcp.Connection) { c.OpenedAt = 0 }),
		edit("never established, and never measured", func(t *tcp.Transition, c *tcp.Connection) {
			t.Old, t.Error = tcp.SynSent, 111
			*c = tcp.Connection{Opened: c.Opened, OpenedAt: c.OpenedAt, ClosedBy: tcp.ClosedByRefused}
		}),
		edit("nothing known at all", func(t *tcp.Transition, c *tcp.Connection) {
			*t, *c = tcp.Transition{Time: moment, Old: tcp.SynRecv, New: tcp.Close}, tcp.Connection{}
		}),
		edit("no owner", func(t *tcp.Transition, _ *tcp.Connection) { t.Owner = tcp.Owner{} }),
		edit("the largest numbers", func(t *tcp.Transition, c *tcp.Connection) { *t, *c = largest(), largestConnection() }),
		edit("a reset that this side sent", func(t *tcp.Transition, c *tcp.Connection) {
			t.ResetReason, c.ClosedBy = "TCP_ABORT_ON_DATA", tcp.ClosedByResetSent
		}),
		edit("a claimed container", func(t *tcp.Transition, _ *tcp.Connection) { t.Cgroup = claimed() }),
		edit("the names of a pod", func(t *tcp.Transition, _ *tcp.Connection) { t.Cgroup = named() }),
		edit("a unit and a hostile name", func(t *tcp.Transition, _ *tcp.Connection) { t.Cgroup = quadlet() }),
	}
	for _, by := range []tcp.ClosedBy{
		"", tcp.ClosedByLocal, tcp.ClosedByPeer, tcp.ClosedByResetSent, tcp.ClosedByResetReceived, tcp.ClosedByTimeout,
		tcp.ClosedByAbort, tcp.ClosedByRefused, tcp.ClosedByNoPort, tcp.ClosedByAddressInUse,
	} {
		cases = append(cases, edit("closed by "+string(by), func(t *tcp.Transition, c *tcp.Connection) {
			c.ClosedBy, t.Error, t.Cgroup = by, 0, nil
		}))
	}
	for _, p := range ownerProcesses() {
		cases = append(cases, edit("an owner with "+p.name, func(t *tcp.Transition, _ *tcp.Connection) {
			t.Process, t.Cgroup = p.process, named()
		}))
	}
	cases = append(cases, updateCases(edit)...)
	cases = append(cases, inSample(edit("one of a sample", func(t *tcp.Transition, _ *tcp.Connection) { t.Cgroup = nil })))
	return cases
}

// updateCases are the records of a trace with updates. edit changes the end of a connection.
func updateCases(edit func(string, func(*tcp.Transition, *tcp.Connection)) goldenCase) []goldenCase {
	live := func(state tcp.State) func(*tcp.Transition, *tcp.Connection) {
		return func(t *tcp.Transition, c *tcp.Connection) {
			t.Old, t.New, t.Error = 0, state, 0
			c.Phase, c.ClosedBy, c.Cwnd = tcp.PhaseUpdate, "", 10
		}
	}
	cases := []goldenCase{
		edit("an end, with updates before", func(_ *tcp.Transition, c *tcp.Connection) { c.Phase = tcp.PhaseEnd }),
		edit("an update", live(tcp.Established)),
		edit("an update of one begun before the tracer, without a role", func(t *tcp.Transition, c *tcp.Connection) {
			live(tcp.CloseWait)(t, c)
			c.OpenedAt, t.Role, t.Cgroup = 0, tcp.RoleUnknown, nil
		}),
		edit("an update of a server, IPv6", func(t *tcp.Transition, c *tcp.Connection) {
			*t = fullV6()
			live(tcp.FinWait2)(t, c)
			t.Role, t.Cgroup = tcp.RoleServer, nil
		}),
		edit("an update in a handshake, with an error", func(t *tcp.Transition, c *tcp.Connection) {
			live(tcp.SynSent)(t, c)
			t.Error, c.EstablishedFor, c.Sent, c.Received, c.RTT = 113, 0, 0, 0, 0
		}),
		edit("the largest numbers of an update", func(t *tcp.Transition, c *tcp.Connection) {
			*t, *c = largest(), largestConnection()
			live(255)(t, c)
			t.Role, c.Cwnd = tcp.RoleServer, 1<<32-1
		}),
	}
	return append(cases, inSample(edit("an update of one of a sample", live(tcp.LastAck))))
}

func largestConnection() tcp.Connection {
	return tcp.Connection{
		Opened: moment, OpenedAt: -1 << 63, EstablishedFor: -1, Sent: 1<<64 - 1, Received: 1<<64 - 1, Retransmits: 1<<32 - 1, RTT: -1,
		ClosedBy: tcp.ClosedByResetReceived,
	}
}

func socketCases() []goldenCase {
	edit := func(name string, change func(s *tcp.Socket)) goldenCase {
		return goldenCase{name, func(e Encoder, dst []byte) []byte {
			s := tcp.Socket{Transition: fullV4(), Connection: fullConnection(), Queues: tcp.Queues{Known: true, Receive: 12, Send: 34}}
			s.Connection.Phase, s.Connection.Cwnd = tcp.PhaseUpdate, 10
			s.Old, s.New, s.Error, s.InState = 0, tcp.Established, 0, 0
			change(&s)
			return e.(SocketEncoder).Socket(dst, &s)
		}}
	}
	first := edit("everything known", func(s *tcp.Socket) { s.Error = 104 })
	return []goldenCase{
		{first.name, func(e Encoder, dst []byte) []byte { return first.encode(e, e.(SocketEncoder).Header(dst)) }},
		edit("a listener", func(s *tcp.Socket) {
			s.Local, s.Peer, s.New, s.Role = endpoint("0.0.0.0", 80), tcp.Endpoint{}, tcp.Listen, tcp.RoleListener
			s.Connection = tcp.Connection{}
		}),
		edit("IPv6", func(s *tcp.Socket) {
			s.IPv6, s.Local, s.Peer = true, fullV6().Local, fullV6().Peer
			s.Owner = tcp.Owner{}
		}),
		edit("IPv4 over an IPv6 socket", func(s *tcp.Socket) { s.Mapped = true }),
		edit("a request that waits for its handshake", func(s *tcp.Socket) {
			s.New, s.Role, s.Owner, s.Cgroup, s.Cookie = tcp.NewSynRecv, tcp.RoleServer, tcp.Owner{}, nil, 0
			s.Connection, s.Queues = tcp.Connection{}, tcp.Queues{}
		}),
		edit("a TIME_WAIT, which has no owner", func(s *tcp.Socket) {
			s.New, s.Substate, s.ExpiresIn, s.Owner = tcp.TimeWait, tcp.TimeWait, 59_960_000_000, tcp.Owner{}
			s.Connection, s.Queues = tcp.Connection{}, tcp.Queues{}
		}),
		edit("one that waits for the peer's FIN", func(s *tcp.Socket) {
			s.New, s.Substate, s.ExpiresIn, s.Owner = tcp.TimeWait, tcp.FinWait2, 4_000_000, tcp.Owner{}
			s.Connection, s.Queues = tcp.Connection{}, tcp.Queues{}
		}),
		edit("one that is overdue", func(s *tcp.Socket) {
			s.New, s.Substate, s.Owner = tcp.TimeWait, tcp.TimeWait, tcp.Owner{}
			s.Connection, s.Queues = tcp.Connection{}, tcp.Queues{}
		}),
		edit("nothing known but the state", func(s *tcp.Socket) {
			*s = tcp.Socket{Transition: tcp.Transition{Time: moment, New: tcp.Close}}
		}),
		edit("a state outside the table", func(s *tcp.Socket) { s.New = 17 }),
		edit("a hostile comm", func(s *tcp.Socket) { s.Owner = task(1, "\x1b\xff\u202e\"\n") }),
		edit("the largest numbers", func(s *tcp.Socket) {
			*s = tcp.Socket{Transition: largest(), Connection: largestConnection(), Queues: tcp.Queues{Known: true, Receive: 1<<32 - 1, Send: 1<<32 - 1}}
			s.Connection.Phase, s.Connection.Cwnd = tcp.PhaseUpdate, 1<<32-1
		}),
		edit("a claimed container", func(s *tcp.Socket) { s.Cgroup = claimed() }),
		edit("the names of its pod", func(s *tcp.Socket) { s.Cgroup = named() }),
		edit("the names of a container in a unit", func(s *tcp.Socket) { s.Cgroup = quadlet() }),
	}
}

// largest is a transition whose every value takes the most room.
func largest() tcp.Transition {
	wide := endpoint("fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 65535)
	return tcp.Transition{
		Time: moment, Cookie: 1<<64 - 1, Netns: 1<<32 - 1, UID: 1<<32 - 1, Local: wide, Peer: wide,
		Owner: task(1<<32-1, "\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01"),
		Error: 1<<32 - 1, Old: tcp.BoundInactive, New: tcp.BoundInactive, Role: tcp.RoleListener, IPv6: true, InState: -1,
	}
}

func startCases() []goldenCase {
	full := Start{
		Time: moment, Version: "v1.2.3", Host: "web-1", BootID: "2e8ec3c7-6990-4be5-ad35-620e3c14e752",
		Kernel: "6.18.44-generic", Arch: "amd64", PID: 4242,
		Features: []Feature{
			{"socket_storage", ""}, {"socket_cookie", ""}, {"socket_scan", ""}, {"accept_hook", ""}, {"time_wait_ends", ""},
		},
	}
	edit := func(name string, change func(s *Start)) goldenCase {
		return goldenCase{name, func(e Encoder, dst []byte) []byte {
			s := full
			change(&s)
			return e.Start(dst, &s)
		}}
	}
	return []goldenCase{
		edit("every feature there", func(*Start) {}),
		edit("features off, with the reason", func(s *Start) {
			s.Features = []Feature{{"socket_storage", `this kernel says "no"`}, {"socket_cookie", "nor\nthis"}, {"accept_hook", "no"}}
		}),
		edit("no features at all", func(s *Start) { s.Features = nil }),
		edit("kernel not known", func(s *Start) { s.Kernel = "" }),
		edit("host not known", func(s *Start) { s.Host = "" }),
		edit("host, boot and kernel not known", func(s *Start) { s.Host, s.BootID, s.Kernel = "", "", "" }),
		edit("a hostile host name", func(s *Start) { s.Host = "\x1b[2Jho\"st\n\u202e\xff" }),
	}
}

var someCounts = Counts{
	Fired: 1020, Entered: 1015, Missed: 5, OtherProtocol: 20, Filtered: 300, LostRingFull: 30, LostRingBusy: 2, LostReentry: 1, Deferred: 4,
	LostQueueFull: 9, Read: 663, Dropped: 67, Written: 587, WrittenBytes: 180000, Connections: 59, LostConnections: 10,
	TimeWaitUnknown: 6, LostResets: 12, CgroupUnknown: 16, TimeWaitEnds: 7, TimeWaitEndsLostQueueFull: 11, TimeWaitEndsLostKernel: 8, LostAlerts: 14, AlertsSuppressed: 13, DetectionLeftOut: 15, StateUnavailable: 17, DroppedConnections: 20, HasSelection: true,
	Updates: 21, DroppedUpdates: 22, LostUpdates: 23, MissedUpdates: 24, LateUpdates: 25, HasUpdates: true, RecorderFiles: 26, LostRecorder: 27, HasRecorder: true, Spooled: 18, HasSpool: true, LostSummaries: 19, SeededAfter: 1500 * time.Microsecond,
}

func largestCounts() Counts {
	const most = 1<<64 - 1
	return Counts{most, most, most, 0, most, most, most, most, most, most, most, most, most, most, most, most, most, most, most, most, most, most, most, most, most, most, most, most, true, most, most, most, most, most, true, most, most, true, most, true, 1<<63 - 1}
}

func statsCases() []goldenCase {
	stats := func(name string, c Counts) goldenCase {
		return goldenCase{name, func(e Encoder, dst []byte) []byte {
			return e.Stats(dst, &Stats{Time: moment, Counts: c})
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
		cases = append(cases, goldenCase{string(cause), func(e Encoder, dst []byte) []byte {
			return e.Loss(dst, &Loss{Time: moment, Lost: 1234, Cause: cause})
		}})
	}
	return append(cases,
		goldenCase{"queue_full", func(e Encoder, dst []byte) []byte {
			return e.Loss(dst, &Loss{Time: moment, Lost: 1234, Cause: CauseQueueFull, LostConnections: 56, TimeWaitEndsLostQueueFull: 7, LostSummaries: 8})
		}},
		goldenCase{"spool_full", func(e Encoder, dst []byte) []byte {
			return e.Loss(dst, &Loss{Time: moment, Lost: 3, Cause: CauseSpoolFull, LostAlerts: 2})
		}},
		goldenCase{"queue_full, with updates", func(e Encoder, dst []byte) []byte {
			return e.Loss(dst, &Loss{Time: moment, Cause: CauseQueueFull, LostConnections: 5, LostUpdates: 6})
		}},
		goldenCase{"rejected", func(e Encoder, dst []byte) []byte {
			return e.Loss(dst, &Loss{Time: moment, Lost: 4, Cause: CauseRejected})
		}},
		goldenCase{"queue_full, connections only", func(e Encoder, dst []byte) []byte {
			return e.Loss(dst, &Loss{Time: moment, Cause: CauseQueueFull, LostConnections: 56})
		}},
	)
}

func reloadCases() []goldenCase {
	reload := func(changed string) goldenCase {
		return goldenCase{changed, func(e Encoder, dst []byte) []byte {
			return e.Reload(dst, &Reload{Time: moment, Changed: changed})
		}}
	}
	return []goldenCase{reload("only,outputs,resets"), reload("stats-interval")}
}

func stopCases() []goldenCase {
	stop := func(reason, signal string) goldenCase {
		return goldenCase{reason + signal, func(e Encoder, dst []byte) []byte {
			return e.Stop(dst, &Stop{Time: moment, Reason: reason, Signal: signal, Counts: someCounts})
		}}
	}
	return []goldenCase{
		stop("signal", "SIGTERM"), stop("signal", "SIGINT"), stop("duration", ""), stop("count", ""), stop("reload", ""), stop("end", ""),
	}
}
