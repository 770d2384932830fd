package decode

import (
	"fmt"
	"net/netip"
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

func TestASampleBecomesATransition(t *testing.T) {
	for _, tt := range []struct {
		name  string
		event wireEvent
		want  tcp.Transition
	}{
		{
			"of IPv4, with its owner and its error",
			wireEvent{
				timestamp: 1_000_000_007, cookie: 0xfedcba9876543210, local: v4Local, peer: v4Peer, comm: "curl",
				netns: 4026531840, uid: 1000, pid: 4242, err: 104, localPort: 50388, peerPort: 443,
				kind: 1, family: 4, old: 1, new: 7, role: 1, flags: flagOwner,
			},
			tcp.Transition{
				Monotonic: time.Second + 7, Cookie: 0xfedcba9876543210, Local: endpoint("192.0.2.1", 50388),
				Peer: endpoint("198.51.100.7", 443), Netns: 4026531840, UID: 1000,
				Owner: tcp.Owner{PID: 4242, Comm: comm("curl"), Source: tcp.PIDTask},
				Error: 104, Old: tcp.Established, New: tcp.Close, Role: tcp.RoleClient,
			},
		},
		{
			"of IPv6",
			wireEvent{local: v6Local, peer: v6Peer, localPort: 8080, peerPort: 50000, kind: 1, family: 6, old: 3, new: 1, role: 2},
			tcp.Transition{
				Local: endpoint("2001:db8::1", 8080), Peer: endpoint("2001:db8::7", 50000),
				Old: tcp.SynRecv, New: tcp.Established, Role: tcp.RoleServer, IPv6: true,
			},
		},
		{
			"of IPv4 over an IPv6 socket, as IPv4 and marked",
			wireEvent{
				local: v4Local, peer: v4Peer, localPort: 8080, peerPort: 50000, kind: 1, family: 4, old: 1, new: 8,
				flags: flagMapped,
			},
			tcp.Transition{
				Local: endpoint("192.0.2.1", 8080), Peer: endpoint("198.51.100.7", 50000),
				Old: tcp.Established, New: tcp.CloseWait, Mapped: true,
			},
		},
		{
			"of a half-empty child, which lacks what up to 6.12 the kernel lacks",
			wireEvent{localPort: 8080, kind: 1, family: 4, old: 10, new: 3, role: 2},
			tcp.Transition{Local: tcp.Endpoint{Port: 8080}, Old: tcp.Listen, New: tcp.SynRecv, Role: tcp.RoleServer},
		},
		{
			"of a half-empty IPv6 child whose listener has an address of its own",
			wireEvent{local: v6Local, localPort: 8080, kind: 1, family: 6, old: 10, new: 3, role: 2},
			tcp.Transition{
				Local: endpoint("2001:db8::1", 8080), Old: tcp.Listen, New: tcp.SynRecv, Role: tcp.RoleServer, IPv6: true,
			},
		},
		{
			"of a listener that begins, whose wildcard address is its address",
			wireEvent{localPort: 80, kind: 1, family: 4, old: 7, new: 10, role: 3},
			tcp.Transition{Local: endpoint("0.0.0.0", 80), Old: tcp.Close, New: tcp.Listen, Role: tcp.RoleListener},
		},
		{
			"of an IPv6 listener that ends, whose wildcard address is its address",
			wireEvent{localPort: 80, kind: 1, family: 6, old: 10, new: 7, role: 3},
			tcp.Transition{Local: endpoint("::", 80), Old: tcp.Listen, New: tcp.Close, Role: tcp.RoleListener, IPv6: true},
		},
		{
			"of a listener that listens again",
			wireEvent{localPort: 80, kind: 1, family: 4, old: 10, new: 10, role: 3},
			tcp.Transition{Local: endpoint("0.0.0.0", 80), Old: tcp.Listen, New: tcp.Listen, Role: tcp.RoleListener},
		},
		{
			"of a connect() that has neither local address nor port yet",
			wireEvent{peer: v4Peer, peerPort: 443, kind: 1, family: 4, old: 7, new: 2, role: 1},
			tcp.Transition{Peer: endpoint("198.51.100.7", 443), Old: tcp.Close, New: tcp.SynSent, Role: tcp.RoleClient},
		},
		{
			"without an owner, whatever lies where one would be",
			wireEvent{local: v4Local, peer: v4Peer, comm: "swapper/1", pid: 17, kind: 1, family: 4, old: 4, new: 5},
			tcp.Transition{
				Local: endpoint("192.0.2.1", 0), Peer: endpoint("198.51.100.7", 0), Old: tcp.FinWait1, New: tcp.FinWait2,
			},
		},
		{
			"of states, a role and an error outside the tables, which survive",
			wireEvent{err: 4000, kind: 1, family: 4, old: 17, new: 255, role: 9},
			tcp.Transition{Error: 4000, Old: 17, New: 255, Role: 9},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := leftover()
			if err := Transition(tt.event.bytes(), &got); err != nil {
				t.Fatalf("it is refused: %v", err)
			}
			if got != tt.want {
				t.Errorf("got  %+v\nwant %+v", got, tt.want)
			}
		})
	}
}

// leftover is what an earlier sample may have left where the next one is decoded.
func leftover() tcp.Transition {
	return tcp.Transition{
		Time: time.Unix(1, 2), Monotonic: 3, Cookie: 4, Local: endpoint("192.0.2.99", 5), Peer: endpoint("2001:db8::99", 6),
		Netns: 7, UID: 8, Owner: tcp.Owner{PID: 9, Comm: comm("left over"), Source: tcp.PIDTask}, Error: 10,
		Old: 11, New: 12, Role: tcp.RoleListener, Mapped: true, IPv6: true,
	}
}

func TestEveryFieldComesFromTheOffsetThatTheHeaderGivesIt(t *testing.T) {
	// Bytes that all differ: a field read from its neighbour's place shows.
	sample := make([]byte, eventSize)
	for i := range sample {
		sample[i] = byte(i + 1)
	}
	sample[offsetKind], sample[offsetFamily], sample[offsetFlags] = 1, 6, flagOwner|flagMapped
	var got tcp.Transition
	if err := Transition(sample, &got); err != nil {
		t.Fatalf("it is refused: %v", err)
	}
	if want := independent(sample); got != want {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestASampleIsDecodedAtAnyAlignment(t *testing.T) {
	event := wireEvent{
		timestamp: 7, cookie: 8, local: v4Local, peer: v4Peer, comm: "curl", netns: 9, pid: 10, localPort: 11, peerPort: 12,
		kind: 1, family: 4, old: 1, new: 7, flags: flagOwner,
	}
	var want tcp.Transition
	if err := Transition(event.bytes(), &want); err != nil {
		t.Fatal(err)
	}
	for shift := range 8 {
		memory := append(make([]byte, shift), event.bytes()...)
		var got tcp.Transition
		if err := Transition(memory[shift:], &got); err != nil || got != want {
			t.Errorf("%d bytes on: got %+v, %v; want %+v", shift, got, err, want)
		}
	}
}

func TestASampleOfAnyOtherLengthIsRefusedWithBothSizes(t *testing.T) {
	valid := wireEvent{kind: 1, family: 4, old: 7, new: 10}.bytes()
	for length := range 4 * eventSize {
		if length == eventSize {
			continue
		}
		sample := make([]byte, length)
		copy(sample, valid)
		checkRefused(t, sample, fmt.Sprintf("sample of %d bytes, want 96", length))
	}
	checkRefused(t, nil, "sample of 0 bytes, want 96")
}

func TestASampleOfAnyOtherKindOrFamilyIsRefused(t *testing.T) {
	for value := range 256 {
		if value != 1 {
			sample := wireEvent{kind: uint8(value), family: 4}.bytes()
			checkRefused(t, sample, fmt.Sprintf("event of kind %d, want 1", value))
		}
		if value != 4 && value != 6 {
			sample := wireEvent{kind: 1, family: uint8(value)}.bytes()
			checkRefused(t, sample, fmt.Sprintf("family %d, want 4 or 6", value))
		}
	}
}

func checkRefused(t *testing.T, sample []byte, want string) {
	t.Helper()
	got := leftover()
	err := Transition(sample, &got)
	switch {
	case err == nil:
		t.Errorf("a sample is accepted, want an error with %q", want)
	case !strings.Contains(err.Error(), want):
		t.Errorf("the error is %q, want one with %q", err, want)
	case got != leftover():
		t.Errorf("with the error %q the transition becomes %+v, want it unchanged", err, got)
	}
}

func TestDecodingDoesNotAllocate(t *testing.T) {
	sample := typical().bytes()
	var event tcp.Transition
	allocs := testing.AllocsPerRun(1000, func() {
		if err := Transition(sample, &event); err != nil {
			t.Fatal(err)
		}
	})
	if allocs != 0 {
		t.Errorf("decoding a transition makes %v allocations, want 0", allocs)
	}
}

func BenchmarkTransition(b *testing.B) {
	for _, bench := range []struct {
		name  string
		event wireEvent
	}{
		{"IPv4", typical()},
		{"IPv6", wireEvent{local: v6Local, peer: v6Peer, localPort: 1, peerPort: 2, kind: 1, family: 6, old: 1, new: 7}},
	} {
		b.Run(bench.name, func(b *testing.B) {
			sample := bench.event.bytes()
			var event tcp.Transition
			b.ReportAllocs()
			for b.Loop() {
				if err := Transition(sample, &event); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func typical() wireEvent {
	return wireEvent{
		timestamp: 123456789, cookie: 8, local: v4Local, peer: v4Peer, comm: "curl", netns: 4026531840, uid: 1000, pid: 4242,
		localPort: 50388, peerPort: 443, kind: 1, family: 4, old: 1, new: 4, role: 1, flags: flagOwner,
	}
}
