package decode

import (
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

var transitions = []struct {
	name  string
	event wireEvent
	want  tcp.Transition
}{
	{
		"of IPv4, with its owner and its error",
		wireEvent{
			timestamp: 1_000_000_007, cookie: 0xfedcba9876543210, cgroup: 77, inState: 5, local: v4Local, peer: v4Peer, comm: "curl",
			netns: 4026531840, uid: 1000, pid: 4242, err: 104, localPort: 50388, peerPort: 443,
			family: 4, old: 1, new: 7, role: 1, pidSource: 1, flags: flagTimed | flagLocked,
		},
		tcp.Transition{
			Monotonic: time.Second + 7, Cookie: 0xfedcba9876543210, Local: endpoint("192.0.2.1", 50388),
			Peer: endpoint("198.51.100.7", 443), Netns: 4026531840, UID: 1000,
			Owner:    tcp.Owner{PID: 4242, Comm: comm("curl"), Source: tcp.PIDTask},
			CgroupID: 77, InState: 5, Locked: true, Error: 104, Old: tcp.Established, New: tcp.Close, Role: tcp.RoleClient,
		},
	},
	{
		"of IPv6",
		wireEvent{local: v6Local, peer: v6Peer, localPort: 8080, peerPort: 50000, family: 6, old: 3, new: 1, role: 2},
		tcp.Transition{
			Local: endpoint("2001:db8::1", 8080), Peer: endpoint("2001:db8::7", 50000),
			Old: tcp.SynRecv, New: tcp.Established, Role: tcp.RoleServer, IPv6: true,
		},
	},
	{
		"of IPv4 over an IPv6 socket, as IPv4 and mapped",
		wireEvent{
			local: v4Local, peer: v4Peer, localPort: 8080, peerPort: 50000, family: 4, old: 1, new: 8,
			flags: flagMapped,
		},
		tcp.Transition{
			Local: endpoint("192.0.2.1", 8080), Peer: endpoint("198.51.100.7", 50000),
			Old: tcp.Established, New: tcp.CloseWait, Mapped: true,
		},
	},
	{
		"of a new child without a peer, as up to 6.12",
		wireEvent{localPort: 8080, family: 4, old: 10, new: 3, role: 2},
		tcp.Transition{Local: tcp.Endpoint{Port: 8080}, Old: tcp.Listen, New: tcp.SynRecv, Role: tcp.RoleServer},
	},
	{
		"of a new IPv6 child without a peer, whose listener is bound to an address",
		wireEvent{local: v6Local, localPort: 8080, family: 6, old: 10, new: 3, role: 2},
		tcp.Transition{
			Local: endpoint("2001:db8::1", 8080), Old: tcp.Listen, New: tcp.SynRecv, Role: tcp.RoleServer, IPv6: true,
		},
	},
	{
		"of a new listener bound to the wildcard address",
		wireEvent{localPort: 80, family: 4, old: 7, new: 10, role: 3},
		tcp.Transition{Local: endpoint("0.0.0.0", 80), Old: tcp.Close, New: tcp.Listen, Role: tcp.RoleListener},
	},
	{
		"of a closing IPv6 listener bound to the wildcard address",
		wireEvent{localPort: 80, family: 6, old: 10, new: 7, role: 3},
		tcp.Transition{Local: endpoint("::", 80), Old: tcp.Listen, New: tcp.Close, Role: tcp.RoleListener, IPv6: true},
	},
	{
		"of a listener that listens again",
		wireEvent{localPort: 80, family: 4, old: 10, new: 10, role: 3},
		tcp.Transition{Local: endpoint("0.0.0.0", 80), Old: tcp.Listen, New: tcp.Listen, Role: tcp.RoleListener},
	},
	{
		"of a connect() that has no local address and port yet",
		wireEvent{peer: v4Peer, peerPort: 443, family: 4, old: 7, new: 2, role: 1},
		tcp.Transition{Peer: endpoint("198.51.100.7", 443), Old: tcp.Close, New: tcp.SynSent, Role: tcp.RoleClient},
	},
	{
		"without an owner, although the owner's fields are not zero",
		wireEvent{local: v4Local, peer: v4Peer, comm: "swapper/1", pid: 17, family: 4, old: 4, new: 5},
		tcp.Transition{
			Local: endpoint("192.0.2.1", 0), Peer: endpoint("198.51.100.7", 0), Old: tcp.FinWait1, New: tcp.FinWait2,
		},
	},
	{
		"of unknown states, role and error, which are kept as numbers",
		wireEvent{err: 4000, family: 4, old: 17, new: 255, role: 9},
		tcp.Transition{Error: 4000, Old: 17, New: 255, Role: 9},
	},
	{
		"of a close that left a timewait socket",
		wireEvent{localPort: 80, peerPort: 443, family: 4, old: 5, new: 7, substate: 6, flags: flagPeerFIN},
		tcp.Transition{
			Local: tcp.Endpoint{Port: 80}, Peer: tcp.Endpoint{Port: 443}, Old: tcp.FinWait2, New: tcp.TimeWait,
			Substate: tcp.TimeWait, PeerFIN: true,
		},
	},
	{
		"of a close that left a timewait socket which waits for the peer's FIN",
		wireEvent{family: 4, old: 5, new: 7, substate: 5, reason: 20},
		tcp.Transition{Old: tcp.FinWait2, New: tcp.TimeWait, Substate: tcp.FinWait2, FinWait2Timeout: 20 * time.Second},
	},
	{
		"of a close that perhaps left a timewait socket",
		wireEvent{family: 4, old: 5, new: 7, flags: flagTimeWaitUnknown | flagNoLinger2},
		tcp.Transition{Old: tcp.FinWait2, New: tcp.Close, TimeWaitUnknown: true, NoLinger2: true},
	},
	{
		"of a TIME_WAIT that its timer ended",
		wireEvent{inState: 7, family: 4, old: 6, new: 7, flags: flagTimed | flagExpired},
		tcp.Transition{Old: tcp.TimeWait, New: tcp.Close, InState: 7, Expired: true},
	},
	{
		"without a duration, although the duration's field is not zero",
		wireEvent{inState: 7, family: 4, old: 4, new: 5},
		tcp.Transition{Old: tcp.FinWait1, New: tcp.FinWait2},
	},
	{
		"with an owner whose source is unknown, which is kept as a number",
		wireEvent{comm: "0123456789abcdef", pid: 17, family: 4, old: 4, new: 5, pidSource: 77},
		tcp.Transition{
			Old: tcp.FinWait1, New: tcp.FinWait2, Owner: tcp.Owner{PID: 17, Comm: comm("0123456789abcdef"), Source: 77},
		},
	},
}

// A sample of kind transition becomes a tcp.Transition.
func TestSample_Transition(t *testing.T) {
	for _, tt := range transitions {
		t.Run(tt.name, func(t *testing.T) {
			got := leftover()
			if err := Sample(tt.event.bytes(), &got); err != nil {
				t.Fatalf("error %v, want none", err)
			}
			if got.Kind != KindTransition || got.Transition != tt.want {
				t.Errorf("got  kind %d %+v\nwant %+v", got.Kind, got.Transition, tt.want)
			}
		})
	}
}

// A sample of kind end becomes a transition and a tcp.Connection.
func TestSample_End(t *testing.T) {
	closed := wireEvent{
		timestamp: 9_000_000_000, cookie: 8, local: v4Local, peer: v4Peer, localPort: 50388, peerPort: 443, family: 4, old: 9,
		new: 7, role: 1, flags: flagPeerFIN | flagAcked,
	}
	reset := closed
	reset.old, reset.err, reset.flags = 1, 104, 0
	for _, tt := range []struct {
		name  string
		event wireEndOf
		want  tcp.Connection
	}{
		{
			"with all fields",
			wireEndOf{closed, 1_000_000_000, 7_000_000_000, 1 << 40, 1 << 41, 3, 250},
			tcp.Connection{
				OpenedAt: time.Second, EstablishedFor: 7 * time.Second, Sent: 1 << 40, Received: 1 << 41, Retransmits: 3,
				RTT: 250 * time.Microsecond, ClosedBy: tcp.ClosedByPeer,
			},
		},
		{
			"without a FIN",
			wireEndOf{wireEvent: reset, received: 5},
			tcp.Connection{Received: 5, ClosedBy: tcp.ClosedByResetReceived},
		},
		{
			"that received nothing",
			wireEndOf{wireEvent: closed},
			tcp.Connection{ClosedBy: tcp.ClosedByPeer},
		},
		{
			"with the largest numbers",
			wireEndOf{reset, 1<<63 - 1, 1<<63 - 1, 1<<64 - 1, 1<<64 - 1, 1<<32 - 1, 1<<32 - 1},
			tcp.Connection{
				OpenedAt: 1<<63 - 1, EstablishedFor: 1<<63 - 1, Sent: 1<<64 - 1, Received: 1<<64 - 1, Retransmits: 1<<32 - 1,
				RTT: (1<<32 - 1) * time.Microsecond, ClosedBy: tcp.ClosedByResetReceived,
			},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := leftover()
			if err := Sample(tt.event.bytes(), &got); err != nil {
				t.Fatalf("error %v, want none", err)
			}
			if got.Kind != KindEnd || got.Connection != tt.want {
				t.Errorf("got  kind %d %+v\nwant %+v", got.Kind, got.Connection, tt.want)
			}
			alone := leftover()
			if err := Sample(tt.event.wireEvent.bytes(), &alone); err != nil || got.Transition != alone.Transition {
				t.Errorf("its transition is  %+v\nwant as decoded alone: %+v, %v", got.Transition, alone.Transition, err)
			}
		})
	}
}
