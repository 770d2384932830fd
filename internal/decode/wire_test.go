package decode

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"time"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// The layout of struct transition_event, written down from bpf/event.h and not
// taken from the generated types, so that these cannot be wrong in silence.
const (
	eventSize    = 96
	offsetKind   = 84
	offsetFamily = 85
	offsetFlags  = 89

	flagMapped = 1
	flagOwner  = 2
)

type wireEvent struct {
	timestamp, cookie                   uint64
	local, peer                         []byte
	comm                                string
	netns, uid, pid, err                uint32
	localPort, peerPort                 uint16
	kind, family, old, new, role, flags uint8
}

func (e wireEvent) bytes() []byte {
	b := make([]byte, eventSize)
	order := binary.NativeEndian
	order.PutUint64(b[0:], e.timestamp)
	order.PutUint64(b[8:], e.cookie)
	copy(b[16:32], e.local)
	copy(b[32:48], e.peer)
	copy(b[48:64], e.comm)
	order.PutUint32(b[64:], e.netns)
	order.PutUint32(b[68:], e.uid)
	order.PutUint32(b[72:], e.pid)
	order.PutUint32(b[76:], e.err)
	order.PutUint16(b[80:], e.localPort)
	order.PutUint16(b[82:], e.peerPort)
	copy(b[84:90], []byte{e.kind, e.family, e.old, e.new, e.role, e.flags})
	return b
}

// independent is what a sample means, read without the code under test. The
// sample must be of the right length, kind and family.
func independent(b []byte) tcp.Transition {
	order := binary.NativeEndian
	t := tcp.Transition{
		Monotonic: time.Duration(order.Uint64(b[0:])),
		Cookie:    order.Uint64(b[8:]),
		Local:     tcp.Endpoint{Addr: independentAddr(b[85], b[16:32]), Port: order.Uint16(b[80:])},
		Peer:      tcp.Endpoint{Addr: independentAddr(b[85], b[32:48]), Port: order.Uint16(b[82:])},
		Netns:     order.Uint32(b[64:]),
		UID:       order.Uint32(b[68:]),
		Error:     tcp.Errno(order.Uint32(b[76:])),
		Old:       tcp.State(b[86]),
		New:       tcp.State(b[87]),
		Role:      tcp.Role(b[88]),
		Mapped:    b[89]&flagMapped != 0,
		IPv6:      b[85] == 6,
	}
	const listen, synRecv = 10, 3
	isListener := b[87] == listen || b[86] == listen && b[87] != synRecv
	if !t.Local.Addr.IsValid() && isListener {
		t.Local.Addr = netip.IPv4Unspecified()
		if t.IPv6 {
			t.Local.Addr = netip.IPv6Unspecified()
		}
	}
	if b[89]&flagOwner != 0 {
		t.Owner = tcp.Owner{PID: order.Uint32(b[72:]), Comm: tcp.Comm(b[48:64]), Source: tcp.PIDTask}
	}
	return t
}

// independentAddr gives no address for one of zeros only.
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
