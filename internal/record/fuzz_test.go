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

// fuzzed is what a fuzzer may choose of a transition.
type fuzzed struct {
	seq, cookie             uint64
	nanoseconds             int64
	local, peer             []byte
	localPort, peerPort     uint16
	netns, uid, pid, errno  uint32
	comm                    []byte
	source, old, next, role uint8
	mapped, v6              bool
}

func (v *fuzzed) transition() tcp.Transition {
	t := tcp.Transition{
		Time: time.Unix(0, v.nanoseconds), Cookie: v.cookie, Netns: v.netns, UID: v.uid, Error: tcp.Errno(v.errno),
		Local: tcp.Endpoint{Port: v.localPort}, Peer: tcp.Endpoint{Port: v.peerPort},
		Owner: tcp.Owner{PID: v.pid, Source: tcp.PIDSource(v.source)},
		Old:   tcp.State(v.old), New: tcp.State(v.next), Role: tcp.Role(v.role), Mapped: v.mapped, IPv6: v.v6,
	}
	t.Local.Addr, _ = netip.AddrFromSlice(v.local)
	t.Peer.Addr, _ = netip.AddrFromSlice(v.peer)
	copy(t.Owner.Comm[:], v.comm)
	return t
}

// fuzzTransitions runs check on whatever the fuzzer makes of the golden cases.
func fuzzTransitions(f *testing.F, check func(t *testing.T, seq uint64, event *tcp.Transition)) {
	seeds := []tcp.Transition{fullV4(), fullV6(), mapped(), largest(), {Time: moment}}
	for _, h := range hostileComms {
		hostile := fullV4()
		hostile.Owner = task(1, h.comm)
		seeds = append(seeds, hostile)
	}
	for i, s := range seeds {
		f.Add(uint64(i+1), s.Cookie, s.Time.UnixNano(), s.Local.Addr.AsSlice(), s.Peer.Addr.AsSlice(), s.Local.Port, s.Peer.Port,
			s.Netns, s.UID, s.Owner.PID, uint32(s.Error), s.Owner.Comm[:], uint8(s.Owner.Source), uint8(s.Old), uint8(s.New),
			uint8(s.Role), s.Mapped, s.IPv6)
	}
	f.Fuzz(func(t *testing.T, seq, cookie uint64, nanoseconds int64, local, peer []byte, localPort, peerPort uint16,
		netns, uid, pid, errno uint32, comm []byte, source, old, next, role uint8, mapped, v6 bool,
	) {
		v := fuzzed{
			seq, cookie, nanoseconds, local, peer, localPort, peerPort, netns, uid, pid, errno, comm, source, old, next, role,
			mapped, v6,
		}
		event := v.transition()
		check(t, seq, &event)
	})
}

// reference is the record as the documentation has it, in its order, for
// encoding/json to encode.
type reference struct {
	Type      string  `json:"type"`
	Time      string  `json:"time"`
	Seq       uint64  `json:"seq"`
	Conn      string  `json:"conn,omitempty"`
	Netns     uint32  `json:"netns"`
	Family    string  `json:"family"`
	Mapped    bool    `json:"mapped,omitempty"`
	LocalAddr string  `json:"local_addr,omitempty"`
	LocalPort uint16  `json:"local_port,omitempty"`
	PeerAddr  string  `json:"peer_addr,omitempty"`
	PeerPort  uint16  `json:"peer_port,omitempty"`
	Role      string  `json:"role,omitempty"`
	OldState  string  `json:"old_state"`
	NewState  string  `json:"new_state"`
	PID       *uint32 `json:"pid,omitempty"`
	Comm      *string `json:"comm,omitempty"`
	UID       uint32  `json:"uid"`
	PIDSource string  `json:"pid_source,omitempty"`
	Error     string  `json:"error,omitempty"`
	// The labels of longestLabels.
	Label  string `json:"label,omitempty"`
	Filler string `json:"filler,omitempty"`
}

func referenceOf(seq uint64, t *tcp.Transition) reference {
	r := reference{
		Type: "transition", Time: t.Time.UTC().Format("2006-01-02T15:04:05.000000000") + "Z", Seq: seq, Netns: t.Netns,
		Family: "ipv4", Mapped: t.Mapped, LocalPort: t.Local.Port, PeerPort: t.Peer.Port, Role: t.Role.String(),
		OldState: t.Old.String(), NewState: t.New.String(), UID: t.UID, PIDSource: t.Owner.Source.String(),
	}
	if t.Cookie != 0 {
		r.Conn = strings.TrimLeft(string(appendHex(nil, t.Cookie)), "0")
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
	if t.Owner.Source != tcp.PIDUnknown {
		comm, _, _ := strings.Cut(string(t.Owner.Comm[:]), "\x00")
		r.PID, r.Comm = &t.Owner.PID, &comm
	}
	if t.Error != 0 {
		r.Error = t.Error.String()
	}
	return r
}

func appendHex(dst []byte, v uint64) []byte {
	for shift := 60; shift >= 0; shift -= 4 {
		dst = append(dst, "0123456789abcdef"[v>>shift&15])
	}
	return dst
}

func FuzzTransitionAgainstEncodingJSON(f *testing.F) {
	plain, labels := NewNDJSON(nil), longestLabels(f)
	labelled := NewNDJSON(labels)
	fuzzTransitions(f, func(t *testing.T, seq uint64, event *tcp.Transition) {
		want := referenceOf(seq, event)
		checkAgainst(t, plain.Transition(nil, seq, event), &want)
		want.Label, want.Filler = labels[0].Value, labels[1].Value
		checkAgainst(t, labelled.Transition(nil, seq, event), &want)
	})
}

func checkAgainst(t *testing.T, line []byte, want *reference) {
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

// checkLine holds for every NDJSON line.
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
	d.UseNumber() // a float64 would forgive the last digits
	var m map[string]any
	if err := d.Decode(&m); err != nil {
		t.Fatalf("%v in %q", err, b)
	}
	return m
}

// keysOf gives the keys of an object, not of those in it, in their order. It
// fails for one that comes twice, which encoding/json forgives.
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
	fuzzTransitions(f, func(t *testing.T, seq uint64, event *tcp.Transition) {
		checkText(t, Text{}.Transition(nil, seq, event), 1)
		// What else comes from outside goes through the header.
		word := string(event.Owner.Comm[:])
		checkText(t, Text{}.Start(nil, seq, &Start{
			Time: event.Time, Version: word, Host: word, Kernel: word, Features: []Feature{{"feature", "off: " + word}},
		}), 3)
	})
}

// checkText: nothing that a terminal could take for more than text.
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
