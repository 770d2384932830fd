package record

import (
	"net/netip"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// fuzzed are the values of a transition, a connection and a socket that the fuzzer chooses.
type fuzzed struct {
	seq, cookie                       uint64
	nanoseconds, monotonic            int64
	local, peer                       []byte
	localPort, peerPort               uint16
	netns, uid, pid, errno            uint32
	comm                              []byte
	source, old, next, substate, role uint8
	flags, known                      uint8 // see transition()
	path                              string
	inState, openedAt, established    int64
	sent, received                    uint64
	retransmits                       uint32
	rtt, expires                      int64
}

func (v *fuzzed) flag(bit uint) bool { return v.flags>>bit&1 == 1 }

func (v *fuzzed) transition() tcp.Transition {
	t := tcp.Transition{
		Time: time.Unix(0, v.nanoseconds), Monotonic: time.Duration(v.monotonic), Cookie: v.cookie, Netns: v.netns, UID: v.uid,
		Error: tcp.Errno(v.errno), Local: tcp.Endpoint{Port: v.localPort}, Peer: tcp.Endpoint{Port: v.peerPort},
		Owner: tcp.Owner{PID: v.pid, Source: tcp.PIDSource(v.source)},
		Old:   tcp.State(v.old), New: tcp.State(v.next), Substate: tcp.State(v.substate), Role: tcp.Role(v.role),
		InState: time.Duration(v.inState), Mapped: v.flag(0), IPv6: v.flag(1), TimeWaitUnknown: v.flag(2), Locked: v.flag(3),
		PeerFIN: v.flag(4), NoLinger2: v.flag(5), Expired: v.flag(6), NoProcess: v.flag(7),
	}
	t.Local.Addr, _ = netip.AddrFromSlice(v.local)
	t.Peer.Addr, _ = netip.AddrFromSlice(v.peer)
	copy(t.Owner.Comm[:], v.comm)
	if v.known&1 == 0 {
		return t
	}
	t.Cgroup = &tcp.Cgroup{Path: v.path}
	if v.known&2 != 0 {
		t.Cgroup.Container = containerID
	}
	if v.known&4 != 0 {
		t.Cgroup.Runtime = "docker"
	}
	if v.known&8 != 0 {
		t.Cgroup.PodUID = pod().PodUID
	}
	return t
}

func (v *fuzzed) connection(last *tcp.Transition) tcp.Connection {
	return tcp.Connection{
		Opened: time.Unix(0, v.openedAt), OpenedAt: time.Duration(v.openedAt), EstablishedFor: time.Duration(v.established), Sent: v.sent,
		Received: v.received, Retransmits: v.retransmits, RTT: time.Duration(v.rtt), ClosedBy: tcp.ClosedByOf(last),
	}
}

func (v *fuzzed) socket() tcp.Socket {
	return tcp.Socket{Transition: v.transition(), ExpiresIn: time.Duration(v.expires)}
}

// fuzzRecords runs check on values that the fuzzer derives from the golden cases.
func fuzzRecords(f *testing.F, check func(t *testing.T, v *fuzzed)) {
	seeds := []tcp.Transition{
		fullV4(), fullV6(), mapped(), largest(), timeWait(tcp.FinWait2), timeWaitEnd(true), {Time: moment}, {Time: moment, Old: tcp.Close, New: tcp.Close},
	}
	for _, h := range hostileComms {
		hostile := fullV4()
		hostile.Owner, hostile.Cgroup = task(1, h.comm), &tcp.Cgroup{Path: h.comm}
		seeds = append(seeds, hostile)
	}
	for _, c := range cgroups {
		hosted := fullV4()
		hosted.Cgroup = c.cgroup
		seeds = append(seeds, hosted)
	}
	c := fullConnection()
	for i, s := range seeds {
		var path string
		var known, flags uint8
		if s.Cgroup != nil {
			path, known = s.Cgroup.Path, uint8(2*i+1)
		}
		if s.IPv6 {
			flags = 1 << 1
		}
		f.Add(uint64(i+1), s.Cookie, s.Time.UnixNano(), int64(s.Monotonic), s.Local.Addr.AsSlice(), s.Peer.Addr.AsSlice(),
			s.Local.Port, s.Peer.Port, s.Netns, s.UID, s.Owner.PID, uint32(s.Error), s.Owner.Comm[:], uint8(s.Owner.Source),
			uint8(s.Old), uint8(s.New), uint8(s.Substate), uint8(s.Role), flags, known, path, int64(s.InState), int64(c.OpenedAt),
			int64(c.EstablishedFor), c.Sent, c.Received, c.Retransmits, int64(c.RTT), int64(i%3)*1e9)
	}
	f.Fuzz(func(t *testing.T, seq, cookie uint64, nanoseconds, monotonic int64, local, peer []byte, localPort, peerPort uint16,
		netns, uid, pid, errno uint32, comm []byte, source, old, next, substate, role, flags, known uint8, path string,
		inState, openedAt, established int64, sent, received uint64, retransmits uint32, rtt, expires int64,
	) {
		check(t, &fuzzed{
			seq, cookie, nanoseconds, monotonic, local, peer, localPort, peerPort, netns, uid, pid, errno, comm, source, old, next,
			substate, role, flags, known, path, inState, openedAt, established, sent, received, retransmits, rtt, expires,
		})
	})
}

func FuzzText(f *testing.F) {
	fuzzRecords(f, func(t *testing.T, v *fuzzed) {
		event, socket := v.transition(), v.socket()
		end := v.connection(&event)
		checkText(t, Text{}.Transition(nil, &event), 1)
		checkText(t, Text{}.Connection(nil, &event, &end), 1)
		checkText(t, Text{}.Socket(nil, &socket), 1)
		// The header has the other values that come from outside.
		word := string(event.Owner.Comm[:])
		checkText(t, Text{}.Start(nil, &Start{
			Time: event.Time, Version: word, Host: word, Kernel: word, Features: []Feature{{"feature", "off: " + word}},
		}), 4)
	})
}

// checkText checks that a terminal shows the line as text and obeys nothing in it.
func checkText(t *testing.T, line []byte, lines int) {
	t.Helper()
	if !utf8.Valid(line) {
		t.Fatalf("a line that is not UTF-8: %q", line)
	}
	if got := strings.Count(string(line), "\n"); got != lines || !strings.HasSuffix(string(line), "\n") {
		t.Fatalf("%d lines, want %d: %q", got, lines, line)
	}
	for _, r := range string(line) {
		if r != '\n' && !unicode.IsPrint(r) {
			t.Fatalf("%U stands in a line: %q", r, line)
		}
	}
}
