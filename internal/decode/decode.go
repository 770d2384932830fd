// Package decode turns the bytes of one ring-buffer sample into values. It is
// pure: no I/O, no clock, no state; it must never panic, whatever the bytes.
package decode

import (
	"fmt"
	"net/netip"
	"time"
	"unsafe"

	"github.com/tcpshift/tcpshift/internal/bpfobj"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

type wireTransition = bpfobj.ProbeTransitionEvent

const transitionSize = int(unsafe.Sizeof(wireTransition{}))

// Transition decodes one sample into t, all of it, except t.Time. It fails for a
// sample that is not exactly as long as a struct transition_event (bpf/event.h),
// or of another kind or family; t is then unchanged.
func Transition(sample []byte, t *tcp.Transition) error {
	if len(sample) != transitionSize {
		return fmt.Errorf("decode transition: sample of %d bytes, want %d: programs and decoder are of different builds",
			len(sample), transitionSize)
	}
	// A copy, and so aligned: the sample may start anywhere.
	var e wireTransition
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&e)), transitionSize), sample)

	if kind := bpfobj.ProbeEventKind(e.Kind); kind != bpfobj.ProbeEventKindEVENT_TRANSITION {
		return fmt.Errorf("decode transition: event of kind %d, want %d", kind, bpfobj.ProbeEventKindEVENT_TRANSITION)
	}
	if e.Family != 4 && e.Family != 6 {
		return fmt.Errorf("decode transition: family %d, want 4 or 6", e.Family)
	}
	*t = tcp.Transition{
		Monotonic: time.Duration(e.TimestampNs),
		Cookie:    e.Cookie,
		Netns:     e.Netns,
		UID:       e.Uid,
		Error:     tcp.Errno(e.Error),
		Old:       tcp.State(e.OldState),
		New:       tcp.State(e.NewState),
		Role:      tcp.Role(e.Role),
		Mapped:    hasFlag(&e, bpfobj.ProbeEventFlagEVENT_MAPPED),
		IPv6:      e.Family == 6,
	}
	t.Local, t.Peer = endpoints(&e, t)
	if hasFlag(&e, bpfobj.ProbeEventFlagEVENT_OWNER) {
		t.Owner = tcp.Owner{PID: e.Pid, Comm: e.Comm, Source: tcp.PIDTask}
	}
	return nil
}

func hasFlag(e *wireTransition, flag bpfobj.ProbeEventFlag) bool {
	return bpfobj.ProbeEventFlag(e.Flags)&flag != 0
}

// endpoints leaves out what the kernel does not have yet. Only a listener really
// has the unspecified address: everywhere else it stands for "not chosen".
func endpoints(e *wireTransition, t *tcp.Transition) (local, peer tcp.Endpoint) {
	local = tcp.Endpoint{Addr: address(e.Family, &e.LocalAddr), Port: e.LocalPort}
	peer = tcp.Endpoint{Addr: address(e.Family, &e.PeerAddr), Port: e.PeerPort}
	listens := t.New == tcp.Listen || t.Old == tcp.Listen && t.New != tcp.SynRecv
	if local.Addr.IsUnspecified() && !listens {
		local.Addr = netip.Addr{}
	}
	if peer.Addr.IsUnspecified() {
		peer.Addr = netip.Addr{}
	}
	return local, peer
}

func address(family uint8, raw *[16]byte) netip.Addr {
	if family == 4 {
		return netip.AddrFrom4([4]byte(raw[:4]))
	}
	return netip.AddrFrom16(*raw)
}
