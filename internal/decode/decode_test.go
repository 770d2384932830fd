package decode

import (
	"encoding/binary"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

var (
	v4Local = []byte{192, 0, 2, 1}
	v4Peer  = []byte{198, 51, 100, 7}
	v6Local = netip.MustParseAddr("2001:db8::1").AsSlice()
	v6Peer  = netip.MustParseAddr("2001:db8::7").AsSlice()
)

func endpoint(addr string, port uint16) tcp.Endpoint {
	return tcp.Endpoint{Addr: netip.MustParseAddr(addr), Port: port}
}

func comm(name string) (c tcp.Comm) {
	copy(c[:], name)
	return c
}

// A sample of kind socket becomes a socket of a snapshot.
func TestSample_Socket(t *testing.T) {
	for _, tt := range []struct {
		name  string
		event wireSocketOf
		want  Event
	}{
		{
			"a listener on every address",
			wireSocketOf{wireEvent{localPort: 80, family: 6, new: 10, role: 3, pidSource: 5, pid: 7, comm: "nginx"}, 0, 18750, wireMeasures{receives: 3, sendsQ: 128}},
			Event{
				Transition: tcp.Transition{
					Local: endpoint("::", 80), New: tcp.Listen, Role: tcp.RoleListener, IPv6: true,
					Owner: tcp.Owner{PID: 7, Comm: comm("nginx"), Source: tcp.PIDScan},
				},
				KeepaliveJiffies: 18750, Queues: tcp.Queues{Known: true, Receive: 3, Send: 128},
			},
		},
		{
			"a connection",
			wireSocketOf{wireEvent{local: v4Local, localPort: 80, peer: v4Peer, peerPort: 5, family: 4, new: 1}, 0, 18750, wireMeasures{1, 2, 3, 4, 5, 6, 7}},
			Event{
				Transition: tcp.Transition{Local: endpoint("192.0.2.1", 80), Peer: endpoint("198.51.100.7", 5), New: tcp.Established},
				Connection: tcp.Connection{Phase: tcp.PhaseUpdate, Retransmits: 1, Sent: 2, Received: 3, RTT: 4 * time.Microsecond, Cwnd: 5},
				Queues:     tcp.Queues{Known: true, Receive: 6, Send: 7}, KeepaliveJiffies: 18750,
			},
		},
		{
			"a request whose handshake is not complete",
			wireSocketOf{wireEvent: wireEvent{local: v4Local, localPort: 80, peer: v4Peer, peerPort: 5, family: 4, new: 12, role: 2}},
			Event{Transition: tcp.Transition{
				Local: endpoint("192.0.2.1", 80), Peer: endpoint("198.51.100.7", 5), New: tcp.NewSynRecv, Role: tcp.RoleServer,
			}},
		},
		{
			"a TIME_WAIT that has some time left",
			wireSocketOf{wireEvent{local: v4Local, localPort: 80, peer: v4Peer, peerPort: 5, family: 4, new: 6, substate: 5}, 15000, 18750, wireMeasures{}},
			Event{
				Transition: tcp.Transition{
					Local: endpoint("192.0.2.1", 80), Peer: endpoint("198.51.100.7", 5), New: tcp.TimeWait, Substate: tcp.FinWait2,
				},
				JiffiesLeft: 15000, KeepaliveJiffies: 18750,
			},
		},
		{
			"a TIME_WAIT that is overdue",
			wireSocketOf{wireEvent{family: 4, new: 6, substate: 6}, 1<<64 - 3, 18750, wireMeasures{}},
			Event{
				Transition:  tcp.Transition{New: tcp.TimeWait, Substate: tcp.TimeWait},
				JiffiesLeft: -3, KeepaliveJiffies: 18750,
			},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.want.Kind = KindSocket
			got := leftover()
			if err := Sample(tt.event.bytes(), &got); err != nil || meaning(got) != tt.want {
				t.Errorf("got  %+v, %v\nwant %+v", meaning(got), err, tt.want)
			}
		})
	}
}

// A sample of kind cgroup becomes a path.
func TestSample_Cgroup(t *testing.T) {
	long := strings.Repeat("x", cgroupNameLen-1)
	deep := make([]string, cgroupLevels)
	for i := range deep {
		deep[i] = strings.Repeat(string(rune('a'+i)), cgroupNameLen-1)
	}
	deepest := slices.Clone(deep)
	slices.Reverse(deepest)
	for _, tt := range []struct {
		name  string
		event wirePath
		want  string
	}{
		{"from the root down", wirePath{7, 3, 0, []string{"c", "b.slice", "a"}, 0}, "/a/b.slice/c"},
		{"which is the root", wirePath{7, 0, 0, nil, 0}, "/"},
		{"as long as a name may be", wirePath{7, 1, 0, []string{long}, 0}, "/" + long},
		{"as deep and as long as it may be", wirePath{7, cgroupLevels, 0, deep, 0}, "/" + strings.Join(deepest, "/")},
		{"without names after its levels", wirePath{7, 1, 0, []string{"a", "beyond"}, 0}, "/a"},
		{"without bytes after the NUL of a name", wirePath{7, 1, 0, []string{"a\x00beyond"}, 0}, "/a"},
		{"of any bytes", wirePath{7, 1, 0, []string{"\x1b\xff\"\\"}, 0}, "/\x1b\xff\"\\"},
		{"whose name has no NUL", wirePath{7, 2, 0, []string{long + "y", "a"}, 0}, "/a/" + long + "y"},
		{"with two names that a user may have chosen", wirePath{7, 3, 0, []string{"c", "b", "a"}, 2}, "/a/b/c"},
		{"which is too long for an event", wirePath{7, 3, 1, []string{"c", "b", "a"}, 0}, ""},
		{"which is too long for an event, at the root", wirePath{7, 0, 1, nil, 0}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := leftover()
			want := Event{Kind: KindCgroup, CgroupID: tt.event.id, CgroupPath: tt.want, ClaimedNames: int(tt.event.claimed)}
			if err := Sample(tt.event.bytes(), &got); err != nil || meaning(got) != want {
				t.Errorf("got  %+v, %v\nwant %+v", meaning(got), err, want)
			}
		})
	}
}

var leftoverCgroup = &tcp.Cgroup{Path: "/left/over"}

// leftover is an Event as an earlier sample may have left it.
func leftover() Event {
	return Event{
		Kind: 99,
		Transition: tcp.Transition{
			Time: time.Unix(1, 2), Monotonic: 3, Cookie: 4, Local: endpoint("192.0.2.99", 5), Peer: endpoint("2001:db8::99", 6),
			Netns: 7, UID: 8, Owner: tcp.Owner{PID: 9, Comm: comm("left over"), Source: tcp.PIDTask}, CgroupID: 10,
			Cgroup: leftoverCgroup, Error: 11, Old: 12, New: 13, Role: tcp.RoleListener, Mapped: true, IPv6: true, InState: 14,
			Substate: 15, TimeWaitUnknown: true, Locked: true, PeerFIN: true, NoLinger2: true, Expired: true, NoProcess: true,
		},
		Connection: tcp.Connection{
			Opened: time.Unix(3, 4), OpenedAt: 16, EstablishedFor: 17, Sent: 18, Received: 19, Retransmits: 20, RTT: 21,
			ClosedBy: tcp.ClosedByAbort,
		},
		CgroupID: 22, CgroupPath: "/left/over", ClaimedNames: 27, JiffiesLeft: 23, KeepaliveJiffies: 24,
		LateReset: tcp.LateReset{Cookie: 25, Code: 26},
	}
}

// Every field is read from its offset in bpf/event.h.
func TestSample_FieldOffsets(t *testing.T) {
	for kind, size := range sizes {
		if kind == kindCgroup {
			continue // TestSample_Cgroup covers its fields
		}
		// All bytes differ, so a field that is read from a wrong offset shows.
		sample := make([]byte, size)
		for i := range sample {
			sample[i] = byte(i + 1)
		}
		sample[kindOffset(kind)], sample[familyOffset(kind)] = kind, 6
		if kind != kindReset {
			binary.NativeEndian.PutUint32(sample[offsetFlags:], flagMapped|flagTimed|flagLocked|flagRepair)
		}
		var got Event
		if err := Sample(sample, &got); err != nil {
			t.Fatalf("kind %d: error %v, want none", kind, err)
		}
		if want := independent(sample); meaning(got) != want {
			t.Errorf("kind %d:\ngot  %+v\nwant %+v", kind, meaning(got), want)
		}
	}
}

// Every flag sets exactly one field.
func TestSample_Flags(t *testing.T) {
	for bit := range 17 {
		sample := wireEvent{family: 4, old: 4, new: 5, inState: 1, flags: 1 << bit}.bytes()
		var got Event
		if err := Sample(sample, &got); err != nil {
			t.Fatal(err)
		}
		if want := independent(sample); meaning(got) != want {
			t.Errorf("bit %d:\ngot  %+v\nwant %+v", bit, meaning(got), want)
		}
	}
}

// A sample is decoded at any alignment.
func TestSample_Alignment(t *testing.T) {
	for _, sample := range oneOfEachKind() {
		for shift := range 8 {
			memory := append(make([]byte, shift), sample...)
			var got Event
			if err := Sample(memory[shift:], &got); err != nil || meaning(got) != independent(sample) {
				t.Errorf("at offset %d: got %+v, %v; want %+v", shift, meaning(got), err, independent(sample))
			}
		}
	}
}

func oneOfEachKind() map[string][]byte {
	return map[string][]byte{
		"transition": typical().bytes(),
		"end":        wireEndOf{typical(), 1, 2, 3, 4, 5, 6}.bytes(),
		"update":     wireUpdateOf{wireEndOf{typical(), 1, 2, 3, 4, 5, 6}, 7}.bytes(),
		"socket":     wireSocketOf{typical(), 7, 8, wireMeasures{}}.bytes(),
		"cgroup":     wirePath{9, 2, 0, []string{"ssh.service", "system.slice"}, 1}.bytes(),
		"reset":      wireResetOf{7, v4Local, v4Peer, 1, 80, 50000, 4, 9}.bytes(),
	}
}

// A sample of any other length is an error that names all lengths.
func TestSample_WrongLength(t *testing.T) {
	right := slices.Collect(maps.Values(sizes))
	for name, valid := range oneOfEachKind() {
		for length := range 2 * cgroupSize {
			if slices.Contains(right, length) {
				continue
			}
			sample := make([]byte, length)
			copy(sample, valid)
			checkRefused(t, name, sample, fmt.Sprintf("sample of %d bytes, want 112, 152, 168, 3088, 64 or 160", length))
		}
	}
	checkRefused(t, "nothing", nil, "sample of 0 bytes, want 112, 152, 168, 3088, 64 or 160")
}

// A sample whose kind does not match its length is an error.
func TestSample_WrongKind(t *testing.T) {
	offset := map[string]int{"cgroup": offsetCgroupKind, "reset": offsetResetKind}
	for name, valid := range oneOfEachKind() {
		at := offset[name]
		if at == 0 {
			at = offsetKind
		}
		for value := range 256 {
			if uint8(value) == valid[at] {
				continue
			}
			sample := slices.Clone(valid)
			sample[at] = uint8(value)
			checkRefused(t, name, sample, fmt.Sprintf("event of kind %d in a sample as long as kind %d", value, valid[at]))
		}
	}
}

// A sample of an address family other than 4 and 6 is an error.
func TestSample_WrongFamily(t *testing.T) {
	for name, valid := range oneOfEachKind() {
		for value := range 256 {
			if name == "cgroup" || value == 4 || value == 6 {
				continue
			}
			sample := slices.Clone(valid)
			sample[familyOffset(map[string]uint8{"reset": kindReset}[name])] = uint8(value)
			checkRefused(t, name, sample, fmt.Sprintf("family %d, want 4 or 6", value))
		}
	}
}

// A cgroup with more claimed names than names is an error.
func TestSample_TooManyClaimedNames(t *testing.T) {
	sample := wirePath{1, 2, 0, []string{"b", "a"}, 3}.bytes()
	checkRefused(t, "cgroup", sample, "cgroup with 3 claimed names of 2")
}

// A cgroup with more levels than an event has room for is an error.
func TestSample_TooManyCgroupLevels(t *testing.T) {
	for _, levels := range []uint32{cgroupLevels + 1, 255, 256, 1 << 31, 1<<32 - 1} {
		for _, truncated := range []uint8{0, 1} {
			sample := wirePath{1, levels, truncated, []string{"a"}, 0}.bytes()
			checkRefused(t, "cgroup", sample, fmt.Sprintf("cgroup of %d levels, at most 12 fit", levels))
		}
	}
}

// checkRefused checks that Sample returns an error with want and leaves the event unchanged.
func checkRefused(t *testing.T, name string, sample []byte, want string) {
	t.Helper()
	got := leftover()
	err := Sample(sample, &got)
	switch {
	case err == nil:
		t.Errorf("%s: no error, want one with %q", name, want)
	case !strings.Contains(err.Error(), want):
		t.Errorf("%s: the error is %q, want one with %q", name, err, want)
	case got != leftover():
		t.Errorf("%s: with the error %q the event becomes %+v, want it unchanged", name, err, got)
	}
}

// Decoding allocates only for a path.
func TestSample_Allocations(t *testing.T) {
	for name, sample := range oneOfEachKind() {
		var event Event
		allocs := testing.AllocsPerRun(1000, func() {
			if err := Sample(sample, &event); err != nil {
				t.Fatal(err)
			}
		})
		if allocs != 0 && name != "cgroup" {
			t.Errorf("decoding a %s makes %v allocations, want 0", name, allocs)
		}
	}
}

func BenchmarkSample(b *testing.B) {
	v6 := wireEvent{local: v6Local, peer: v6Peer, localPort: 1, peerPort: 2, family: 6, old: 1, new: 7}
	all := oneOfEachKind()
	all["transition/IPv6"] = v6.bytes()
	for _, name := range slices.Sorted(maps.Keys(all)) {
		b.Run(name, func(b *testing.B) {
			sample := all[name]
			var event Event
			b.ReportAllocs()
			for b.Loop() {
				if err := Sample(sample, &event); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func typical() wireEvent {
	return wireEvent{
		timestamp: 123456789, cookie: 8, cgroup: 9, inState: 10, local: v4Local, peer: v4Peer, comm: "curl", netns: 4026531840,
		uid: 1000, pid: 4242, localPort: 50388, peerPort: 443, family: 4, old: 1, new: 4, role: 1, pidSource: 1,
		flags: flagTimed | flagLocked,
	}
}
