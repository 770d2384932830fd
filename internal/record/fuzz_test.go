package record

import (
	"encoding/json"
	"net/netip"
	"reflect"
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
		PeerFIN: v.flag(4), NoLinger2: v.flag(5), Expired: v.flag(6), Orphan: v.flag(7),
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
		Opened: time.Unix(0, v.openedAt), OpenedAt: time.Duration(v.openedAt), Established: time.Duration(v.established), Sent: v.sent,
		Received: v.received, Retransmits: v.retransmits, RTT: time.Duration(v.rtt), ClosedBy: tcp.EndOf(last),
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
			int64(c.Established), c.Sent, c.Received, c.Retransmits, int64(c.RTT), int64(i%3)*1e9)
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

// The reference types are the records as docs/output.md has them, in its order.
// encoding/json encodes them, and the tests compare.

type referenceHead struct {
	Type string `json:"type"`
	Time string `json:"time"`
	Seq  uint64 `json:"seq"`
}

type referenceIdentity struct {
	Conn      string `json:"conn,omitempty"`
	Netns     uint32 `json:"netns"`
	Family    string `json:"family"`
	Mapped    bool   `json:"mapped,omitempty"`
	LocalAddr string `json:"local_addr,omitempty"`
	LocalPort uint16 `json:"local_port,omitempty"`
	PeerAddr  string `json:"peer_addr,omitempty"`
	PeerPort  uint16 `json:"peer_port,omitempty"`
	Role      string `json:"role,omitempty"`
}

type referenceOwner struct {
	PID       *uint32 `json:"pid,omitempty"`
	Comm      *string `json:"comm,omitempty"`
	UID       *uint32 `json:"uid,omitempty"`
	PIDSource string  `json:"pid_source,omitempty"`
	Cgroup    *string `json:"cgroup,omitempty"`
	Container string  `json:"container,omitempty"`
	Runtime   string  `json:"container_runtime,omitempty"`
	PodUID    string  `json:"pod_uid,omitempty"`
}

// referenceLabels are the labels of longestLabels.
type referenceLabels struct {
	Label  string `json:"label,omitempty"`
	Filler string `json:"filler,omitempty"`
}

type referenceTransition struct {
	referenceHead
	referenceIdentity
	OldState  string `json:"old_state"`
	NewState  string `json:"new_state"`
	KernelNew string `json:"kernel_new_state,omitempty"`
	Substate  string `json:"time_wait_substate,omitempty"`
	Unknown   bool   `json:"time_wait_unknown,omitempty"`
	Self      bool   `json:"self,omitempty"`
	End       string `json:"time_wait_end,omitempty"`
	InState   uint64 `json:"in_state_ns,omitempty"`
	referenceOwner
	Error string `json:"error,omitempty"`
	referenceLabels
}

type referenceConnection struct {
	referenceHead
	referenceIdentity
	referenceOwner
	Opened      string  `json:"opened,omitempty"`
	Duration    *uint64 `json:"duration_ns,omitempty"`
	Established *uint64 `json:"established_ns,omitempty"`
	Sent        uint64  `json:"sent_bytes"`
	Received    uint64  `json:"received_bytes"`
	Retransmits uint32  `json:"retransmits"`
	RTT         uint64  `json:"rtt_ns,omitempty"`
	FinalState  string  `json:"final_state"`
	ClosedBy    string  `json:"closed_by,omitempty"`
	Error       string  `json:"error,omitempty"`
	Partial     bool    `json:"partial,omitempty"`
	referenceLabels
}

type referenceSocket struct {
	referenceHead
	referenceIdentity
	State    string `json:"state"`
	Substate string `json:"time_wait_substate,omitempty"`
	Expires  uint64 `json:"expires_in_ns,omitempty"`
	referenceOwner
	Error string `json:"error,omitempty"`
	referenceLabels
}

func headOf(recordType string, seq uint64, at time.Time) referenceHead {
	return referenceHead{recordType, string(timeByLibrary(nil, at)), seq}
}

func identityOf(t *tcp.Transition) referenceIdentity {
	r := referenceIdentity{
		Netns: t.Netns, Family: "ipv4", Mapped: t.Mapped, LocalPort: t.Local.Port, PeerPort: t.Peer.Port, Role: t.Role.String(),
	}
	if t.Cookie != 0 {
		r.Conn = strings.TrimLeft(string(hexOf(nil, t.Cookie)), "0")
	}
	if t.IPv6 {
		r.Family = "ipv6"
	}
	if t.Local.Addr.IsValid() {
		r.LocalAddr = t.Local.Addr.String()
	}
	if t.Peer.Addr.IsValid() {
		r.PeerAddr = t.Peer.Addr.String()
	}
	return r
}

func ownerOf(t *tcp.Transition) referenceOwner {
	r := referenceOwner{UID: &t.UID, PIDSource: t.Owner.Source.String()}
	if t.Owner.Source != tcp.PIDUnknown {
		comm, _, _ := strings.Cut(string(t.Owner.Comm[:]), "\x00")
		r.PID, r.Comm = &t.Owner.PID, &comm
	}
	if t.Cgroup != nil {
		r.Container, r.Runtime, r.PodUID = t.Cgroup.Container, t.Cgroup.Runtime, t.Cgroup.PodUID
		if len(`,"cgroup":`)+len(stringByRunes(nil, t.Cgroup.Path)) <= maxPath {
			r.Cgroup = &t.Cgroup.Path
		}
	}
	return r
}

func errorOf(e tcp.Errno) string {
	if e == 0 {
		return ""
	}
	return e.String()
}

func stateOf(s tcp.State) string {
	if s == 0 {
		return ""
	}
	return s.String()
}

func transitionReference(seq uint64, t *tcp.Transition) *referenceTransition {
	r := referenceTransition{
		referenceHead: headOf("transition", seq, t.Time), referenceIdentity: identityOf(t), OldState: t.Old.String(),
		NewState: t.New.String(), Substate: stateOf(t.Substate), Unknown: t.TimeWaitUnknown, InState: uint64(t.InState),
		referenceOwner: ownerOf(t), Error: errorOf(t.Error),
	}
	switch t.New {
	case tcp.TimeWait:
		r.KernelNew, r.Self = "CLOSE", t.Old == tcp.Close
	default:
		r.Self = t.Old == t.New
	}
	if t.Old == tcp.TimeWait {
		r.End = map[bool]string{true: "expired", false: "early"}[t.Expired]
	}
	return &r
}

func connectionReference(seq uint64, t *tcp.Transition, c *tcp.Connection) *referenceConnection {
	r := referenceConnection{
		referenceHead: headOf("connection", seq, t.Time), referenceIdentity: identityOf(t), referenceOwner: ownerOf(t),
		Sent: c.Sent, Received: c.Received, Retransmits: c.Retransmits, RTT: uint64(c.RTT),
		FinalState: t.New.String(), ClosedBy: string(c.ClosedBy), Error: errorOf(t.Error), Partial: c.OpenedAt == 0,
	}
	if c.OpenedAt != 0 {
		duration, established := uint64(t.Monotonic-c.OpenedAt), uint64(c.Established)
		r.Opened, r.Duration, r.Established = string(timeByLibrary(nil, c.Opened)), &duration, &established
	}
	return &r
}

func socketReference(seq uint64, s *tcp.Socket) *referenceSocket {
	r := referenceSocket{
		referenceHead: headOf("socket", seq, s.Time), referenceIdentity: identityOf(&s.Transition), State: s.New.String(),
		Substate: stateOf(s.Substate), Expires: uint64(s.ExpiresIn), Error: errorOf(s.Error),
	}
	if s.New != tcp.TimeWait {
		r.referenceOwner = ownerOf(&s.Transition)
	}
	return &r
}

func hexOf(dst []byte, v uint64) []byte {
	for shift := 60; shift >= 0; shift -= 4 {
		dst = append(dst, "0123456789abcdef"[v>>shift&15])
	}
	return dst
}

func FuzzRecordsAgainstEncodingJSON(f *testing.F) {
	plain, labels := NewNative(nil), longestLabels(f)
	labelled := NewNative(labels)
	withLabels := referenceLabels{labels[0].Value, labels[1].Value}
	fuzzRecords(f, func(t *testing.T, v *fuzzed) {
		event, socket := v.transition(), v.socket()
		end := v.connection(&event)
		transition, connection := transitionReference(v.seq, &event), connectionReference(v.seq, &event, &end)
		listed := socketReference(v.seq, &socket)
		checkAgainst(t, plain.WithSeq(nil, plain.Transition(nil, &event), v.seq), transition)
		checkAgainst(t, plain.WithSeq(nil, plain.Connection(nil, &event, &end), v.seq), connection)
		checkAgainst(t, plain.WithSeq(nil, plain.Socket(nil, &socket), v.seq), listed)
		transition.referenceLabels, connection.referenceLabels, listed.referenceLabels = withLabels, withLabels, withLabels
		checkAgainst(t, labelled.WithSeq(nil, labelled.Transition(nil, &event), v.seq), transition)
		checkAgainst(t, labelled.WithSeq(nil, labelled.Connection(nil, &event, &end), v.seq), connection)
		checkAgainst(t, labelled.WithSeq(nil, labelled.Socket(nil, &socket), v.seq), listed)
	})
}

func checkAgainst(t *testing.T, line []byte, want any) {
	t.Helper()
	checkLine(t, line)
	byEncodingJSON, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := decodeJSON(t, line), decodeJSON(t, byEncodingJSON); !reflect.DeepEqual(got, want) {
		t.Fatalf("the line decodes into %v, want %v\n%s", got, want, line)
	}
	if got, want := keysOf(t, line), keysOf(t, byEncodingJSON); !reflect.DeepEqual(got, want) {
		t.Fatalf("the keys are %v, want %v", got, want)
	}
}

// checkLine checks what every NDJSON line must fulfil.
func checkLine(t *testing.T, line []byte) {
	t.Helper()
	text, ended := strings.CutSuffix(string(line), "\n")
	switch {
	case !ended || strings.Contains(text, "\n"):
		t.Fatalf("not one line: %q", line)
	case len(line) > MaxLine:
		t.Fatalf("a line of %d bytes, want %d at most", len(line), MaxLine)
	case !utf8.Valid(line):
		t.Fatalf("a line that is not UTF-8: %q", line)
	}
	for _, r := range text {
		if unicode.IsControl(r) || r == '\u2028' || r == '\u2029' {
			t.Fatalf("%U stands in a line: %q", r, line)
		}
	}
}

func decodeJSON(t *testing.T, b []byte) map[string]any {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(string(b)))
	d.UseNumber() // a float64 would lose the last digits
	var m map[string]any
	if err := d.Decode(&m); err != nil {
		t.Fatalf("%v in %q", err, b)
	}
	return m
}

// keysOf returns the keys of an object in their order, without those of objects in it. It
// fails if a key is there twice, which encoding/json accepts.
func keysOf(t *testing.T, object []byte) []string {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(string(object)))
	if _, err := d.Token(); err != nil {
		t.Fatalf("%v in %q", err, object)
	}
	var keys []string
	seen := make(map[string]bool)
	for d.More() {
		token, err := d.Token()
		if err != nil {
			t.Fatalf("%v in %q", err, object)
		}
		key := token.(string)
		if seen[key] {
			t.Fatalf("the key %q comes twice in %q", key, object)
		}
		seen[key] = true
		keys = append(keys, key)
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			t.Fatalf("%v in %q", err, object)
		}
	}
	return keys
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
