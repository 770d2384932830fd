package decode

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"strings"
	"time"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// The layouts of the events, copied from bpf/event.h by hand and not taken from the
// generated types, so that the tests detect a wrong generated type.
const (
	transitionSize = 112
	endSize        = 152
	socketSize     = 168
	cgroupSize     = 3088
	resetSize      = 64
	updateSize     = 160

	offsetKind   = 100
	offsetFamily = 101
	offsetOld    = 102
	offsetNew    = 103
	offsetSub    = 104
	offsetRole   = 105
	offsetSource = 106
	offsetReason = 107
	offsetFlags  = 108

	cgroupLevels     = 12
	cgroupNameLen    = 256
	offsetLevels     = 8
	offsetTruncated  = 12
	offsetCgroupKind = 13
	offsetClaimed    = 14
	offsetNames      = 16

	offsetResetKind   = 56
	offsetResetFamily = 57
	offsetResetReason = 58

	flagMapped          = 1 << 0
	flagLocked          = 1 << 1
	flagTimed           = 1 << 2
	flagTimeWaitUnknown = 1 << 3
	flagPeerFIN         = 1 << 4
	flagNoLinger2       = 1 << 5
	flagExpired         = 1 << 6
	flagOrphan          = 1 << 7
	flagAcked           = 1 << 8
	flagRepair          = 1 << 9
	flagNoPort          = 1 << 10
	flagPortUnknown     = 1 << 11
	flagListenFailed    = 1 << 12
	flagResetReceived   = 1 << 13
	flagResetSent       = 1 << 14
	flagResetAwaited    = 1 << 15
	flagPeerTimestamp   = 1 << 16
	flagOwnPortRange    = 1 << 17

	kindTransition = 1
	kindEnd        = 2
	kindCgroup     = 3
	kindSocket     = 4
	kindReset      = 5
	kindUpdate     = 6
)

// sizes are the lengths of the samples, by kind.
var sizes = map[uint8]int{
	kindTransition: transitionSize, kindEnd: endSize, kindCgroup: cgroupSize, kindSocket: socketSize,
	kindReset: resetSize, kindUpdate: updateSize,
}

// kindOffset and familyOffset are the offsets of a sample's kind and family.
func kindOffset(kind uint8) int {
	switch kind {
	case kindCgroup:
		return offsetCgroupKind
	case kindReset:
		return offsetResetKind
	}
	return offsetKind
}

func familyOffset(kind uint8) int {
	if kind == kindReset {
		return offsetResetFamily
	}
	return offsetFamily
}

type wireEvent struct {
	timestamp, cookie, cgroup, inState          uint64
	local, peer                                 []byte
	comm                                        string
	netns, uid, pid, err                        uint32
	localPort, peerPort                         uint16
	family, old, new, substate, role, pidSource uint8
	reason                                      uint8
	flags                                       uint32
}

func (e wireEvent) bytes() []byte { return e.as(kindTransition) }

// as returns a sample of that kind; all bytes after the transition are zero.
func (e wireEvent) as(kind uint8) []byte {
	b := make([]byte, sizes[kind])
	order := binary.NativeEndian
	order.PutUint64(b[0:], e.timestamp)
	order.PutUint64(b[8:], e.cookie)
	order.PutUint64(b[16:], e.cgroup)
	order.PutUint64(b[24:], e.inState)
	copy(b[32:48], e.local)
	copy(b[48:64], e.peer)
	copy(b[64:80], e.comm)
	order.PutUint32(b[80:], e.netns)
	order.PutUint32(b[84:], e.uid)
	order.PutUint32(b[88:], e.pid)
	order.PutUint32(b[92:], e.err)
	order.PutUint16(b[96:], e.localPort)
	order.PutUint16(b[98:], e.peerPort)
	copy(b[100:], []byte{kind, e.family, e.old, e.new, e.substate, e.role, e.pidSource, e.reason})
	order.PutUint32(b[offsetFlags:], e.flags)
	return b
}

// wireEndOf is an end_event: a transition with a summary of the connection.
type wireEndOf struct {
	wireEvent
	opened, established, sent, received uint64
	retransmits, rttMicroseconds        uint32
}

func (e wireEndOf) bytes() []byte { return e.endAs(kindEnd) }

// endAs returns a sample of that kind, which begins as an end_event does.
func (e wireEndOf) endAs(kind uint8) []byte {
	b := e.as(kind)
	order := binary.NativeEndian
	order.PutUint64(b[112:], e.opened)
	order.PutUint64(b[120:], e.established)
	order.PutUint64(b[128:], e.sent)
	order.PutUint64(b[136:], e.received)
	order.PutUint32(b[144:], e.retransmits)
	order.PutUint32(b[148:], e.rttMicroseconds)
	return b
}

// wireUpdateOf is an update_event: an end_event of a connection that lives.
type wireUpdateOf struct {
	wireEndOf
	cwnd uint32
}

func (e wireUpdateOf) bytes() []byte {
	b := e.endAs(kindUpdate)
	binary.NativeEndian.PutUint32(b[152:], e.cwnd)
	return b
}

// wireSocketOf is a socket_event.
type wireSocketOf struct {
	wireEvent
	expires   uint64
	keepalive uint32
	measures  wireMeasures
}

// wireMeasures is what a socket_event has of a full socket.
type wireMeasures struct {
	retransmits                 uint32
	sent, received              uint64
	rtt, cwnd, receives, sendsQ uint32
}

func (e wireSocketOf) bytes() []byte {
	b := e.as(kindSocket)
	binary.NativeEndian.PutUint64(b[112:], e.expires)
	binary.NativeEndian.PutUint32(b[120:], e.keepalive)
	binary.NativeEndian.PutUint32(b[124:], e.measures.retransmits)
	binary.NativeEndian.PutUint64(b[128:], e.measures.sent)
	binary.NativeEndian.PutUint64(b[136:], e.measures.received)
	for i, v := range []uint32{e.measures.rtt, e.measures.cwnd, e.measures.receives, e.measures.sendsQ} {
		binary.NativeEndian.PutUint32(b[144+4*i:], v)
	}
	return b
}

// wireResetOf is a reset_event.
type wireResetOf struct {
	cookie              uint64
	local, peer         []byte
	netns               uint32
	localPort, peerPort uint16
	family, reason      uint8
}

func (e wireResetOf) bytes() []byte {
	b := make([]byte, resetSize)
	order := binary.NativeEndian
	order.PutUint64(b[8:], e.cookie)
	copy(b[16:32], e.local)
	copy(b[32:48], e.peer)
	order.PutUint32(b[48:], e.netns)
	order.PutUint16(b[52:], e.localPort)
	order.PutUint16(b[54:], e.peerPort)
	copy(b[56:], []byte{kindReset, e.family, e.reason})
	return b
}

func independentReset(b []byte) tcp.LateReset {
	order := binary.NativeEndian
	family := b[offsetResetFamily]
	return tcp.LateReset{
		Cookie: order.Uint64(b[8:]), Netns: order.Uint32(b[48:]), Code: tcp.ResetCode(b[offsetResetReason]),
		Local: tcp.Endpoint{Addr: independentAddr(family, b[16:32]), Port: order.Uint16(b[52:])},
		Peer:  tcp.Endpoint{Addr: independentAddr(family, b[32:48]), Port: order.Uint16(b[54:])},
	}
}

// wirePath is a cgroup_event; its names are in the order from the cgroup to the root.
type wirePath struct {
	id        uint64
	levels    uint32
	truncated uint8
	names     []string
	claimed   uint16
}

func (e wirePath) bytes() []byte {
	b := make([]byte, cgroupSize)
	binary.NativeEndian.PutUint64(b[0:], e.id)
	binary.NativeEndian.PutUint32(b[offsetLevels:], e.levels)
	b[offsetTruncated], b[offsetCgroupKind] = e.truncated, kindCgroup
	binary.NativeEndian.PutUint16(b[offsetClaimed:], e.claimed)
	for i, name := range e.names {
		copy(b[offsetNames+i*cgroupNameLen:][:cgroupNameLen], name)
	}
	return b
}

// acceptable reports whether Sample must accept b, and the kind that it then has.
func acceptable(b []byte) (kind uint8, ok bool) {
	for kind, size := range sizes {
		if len(b) != size {
			continue
		}
		if kind == kindCgroup {
			levels := binary.NativeEndian.Uint32(b[offsetLevels:])
			claimed := uint32(binary.NativeEndian.Uint16(b[offsetClaimed:]))
			return kind, b[offsetCgroupKind] == kindCgroup && levels <= cgroupLevels && claimed <= levels
		}
		family := b[familyOffset(kind)]
		return kind, b[kindOffset(kind)] == kind && (family == 4 || family == 6)
	}
	return 0, false
}

// meaning returns e with only the fields of its kind, so that two events can be compared.
func meaning(e Event) Event {
	m := Event{Kind: e.Kind}
	switch e.Kind {
	case KindCgroup:
		m.CgroupID, m.CgroupPath, m.ClaimedNames = e.CgroupID, e.CgroupPath, e.ClaimedNames
	case KindLateReset:
		m.LateReset = e.LateReset
	case KindSocket:
		m.Transition, m.JiffiesLeft, m.KeepaliveJiffies = e.Transition, e.JiffiesLeft, e.KeepaliveJiffies
		m.Connection, m.Queues = e.Connection, e.Queues
	case KindEnd, KindUpdate:
		m.Transition, m.Connection = e.Transition, e.Connection
	default:
		m.Transition = e.Transition
	}
	return m
}

// independent decodes an acceptable sample without the code under test.
func independent(b []byte) Event {
	order := binary.NativeEndian
	kind, _ := acceptable(b)
	e := Event{Kind: Kind(kind)}
	if kind == kindCgroup {
		e.CgroupID, e.CgroupPath = order.Uint64(b[0:]), independentPath(b)
		e.ClaimedNames = int(order.Uint16(b[offsetClaimed:]))
		return e
	}
	if kind == kindReset {
		e.LateReset = independentReset(b)
		return e
	}
	e.Transition = independentTransition(b)
	switch kind {
	case kindEnd, kindUpdate:
		e.Connection = tcp.Connection{
			OpenedAt:       time.Duration(order.Uint64(b[112:])),
			EstablishedFor: time.Duration(order.Uint64(b[120:])),
			Sent:           order.Uint64(b[128:]),
			Received:       order.Uint64(b[136:]),
			Retransmits:    order.Uint32(b[144:]),
			RTT:            time.Duration(order.Uint32(b[148:])) * time.Microsecond,
		}
		if kind == kindUpdate {
			e.Connection.Phase, e.Connection.Cwnd = tcp.PhaseUpdate, order.Uint32(b[152:])
		} else {
			e.Connection.ClosedBy = tcp.ClosedByOf(&e.Transition)
		}
	case kindSocket:
		e.JiffiesLeft, e.KeepaliveJiffies = int64(order.Uint64(b[112:])), uint64(order.Uint32(b[120:]))
		const timeWait, listen, request = 6, 10, 12
		state := e.Transition.New
		if state != timeWait && state != request {
			e.Queues = tcp.Queues{Known: true, Receive: order.Uint32(b[152:]), Send: order.Uint32(b[156:])}
		}
		if e.Queues.Known && state != listen {
			e.Connection = tcp.Connection{
				Phase: tcp.PhaseUpdate, Retransmits: order.Uint32(b[124:]), Sent: order.Uint64(b[128:]), Received: order.Uint64(b[136:]),
				RTT: time.Duration(order.Uint32(b[144:])) * time.Microsecond, Cwnd: order.Uint32(b[148:]),
			}
		}
	}
	return e
}

func independentTransition(b []byte) tcp.Transition {
	order := binary.NativeEndian
	old, next, flags := b[offsetOld], b[offsetNew], order.Uint32(b[offsetFlags:])
	const listen, synRecv, timeWait, finWait2 = 10, 3, 6, 5
	if b[offsetSub] != 0 {
		next = timeWait
	}
	t := tcp.Transition{
		Monotonic:       time.Duration(order.Uint64(b[0:])),
		Cookie:          order.Uint64(b[8:]),
		CgroupID:        order.Uint64(b[16:]),
		Local:           tcp.Endpoint{Addr: independentAddr(b[offsetFamily], b[32:48]), Port: order.Uint16(b[96:])},
		Peer:            tcp.Endpoint{Addr: independentAddr(b[offsetFamily], b[48:64]), Port: order.Uint16(b[98:])},
		Netns:           order.Uint32(b[80:]),
		UID:             order.Uint32(b[84:]),
		Error:           tcp.Errno(order.Uint32(b[92:])),
		Old:             tcp.State(old),
		New:             tcp.State(next),
		Substate:        tcp.State(b[offsetSub]),
		Role:            tcp.Role(b[offsetRole]),
		Mapped:          flags&flagMapped != 0,
		Locked:          flags&flagLocked != 0,
		TimeWaitUnknown: flags&flagTimeWaitUnknown != 0,
		PeerFIN:         flags&flagPeerFIN != 0,
		NoLinger2:       flags&flagNoLinger2 != 0,
		Expired:         flags&flagExpired != 0,
		NoProcess:       flags&flagOrphan != 0,
		Acked:           flags&flagAcked != 0,
		Repair:          flags&flagRepair != 0,
		NoPort:          flags&flagNoPort != 0,
		PortUnknown:     flags&flagPortUnknown != 0,
		ListenFailed:    flags&flagListenFailed != 0,
		PeerTimestamp:   flags&flagPeerTimestamp != 0,
		OwnPortRange:    flags&flagOwnPortRange != 0,
		IPv6:            b[offsetFamily] == 6,

		TCPReset:        flags&flagResetReceived != 0,
		ResetSentBefore: flags&flagResetSent != 0,
		ResetAwaited:    flags&flagResetAwaited != 0,
		ResetCode:       tcp.ResetCode(b[offsetReason]),
	}
	if b[offsetSub] == finWait2 {
		t.ResetCode, t.FinWait2Timeout = 0, time.Duration(b[offsetReason])*time.Second
	}
	if flags&flagTimed != 0 {
		t.InState = time.Duration(order.Uint64(b[24:]))
	}
	if isListener := next == listen || old == listen && next != synRecv; !t.Local.Addr.IsValid() && isListener {
		t.Local.Addr = netip.IPv4Unspecified()
		if t.IPv6 {
			t.Local.Addr = netip.IPv6Unspecified()
		}
	}
	if source := b[offsetSource]; source != 0 {
		t.Owner = tcp.Owner{PID: order.Uint32(b[88:]), Comm: tcp.Comm(b[64:80]), Source: tcp.PIDSource(source)}
	}
	return t
}

// independentAddr returns the zero Addr if all bytes are zero.
func independentAddr(family byte, raw []byte) netip.Addr {
	if family == 4 {
		raw = raw[:4]
	}
	addr, _ := netip.AddrFromSlice(raw)
	if bytes.Count(raw, []byte{0}) == len(raw) {
		return netip.Addr{}
	}
	return addr
}

func independentPath(b []byte) string {
	if b[offsetTruncated] != 0 {
		return ""
	}
	var names []string
	for i := range int(binary.NativeEndian.Uint32(b[offsetLevels:])) {
		name := string(b[offsetNames+i*cgroupNameLen:][:cgroupNameLen])
		if end := strings.IndexByte(name, 0); end >= 0 {
			name = name[:end]
		}
		names = append([]string{name}, names...)
	}
	return "/" + strings.Join(names, "/")
}
