// Package decode turns the bytes of one sample, an event of bpf/event.h, into values. It
// is pure: no I/O, no clock, no state. It must not panic for any input.
package decode

import (
	"bytes"
	"fmt"
	"net/netip"
	"time"
	"unsafe"

	"github.com/tcpshift/tcpshift/internal/bpfobj"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// Kind is the kind of an event; enum event_kind of bpf/event.h.
type Kind uint8

// The kinds of event.
const (
	KindTransition = Kind(bpfobj.ProbeEventKindEVENT_TRANSITION)
	KindEnd        = Kind(bpfobj.ProbeEventKindEVENT_END)    // a socket enters CLOSE or TIME_WAIT, with the numbers of its connection
	KindCgroup     = Kind(bpfobj.ProbeEventKindEVENT_CGROUP) // the path of a cgroup
	KindSocket     = Kind(bpfobj.ProbeEventKindEVENT_SOCKET) // a socket of a snapshot
	KindLateReset  = Kind(bpfobj.ProbeEventKindEVENT_RESET)  // a reset that this side has sent after the transition to CLOSE
	KindUpdate     = Kind(bpfobj.ProbeEventKindEVENT_UPDATE) // the numbers of a connection that lives: New is its state, Old is 0
)

// Event is one decoded sample. Only the fields of its Kind are valid.
type Event struct {
	Kind       Kind
	Transition tcp.Transition // of KindTransition, KindEnd, KindUpdate and KindSocket; its Time is not set
	Connection tcp.Connection // of KindEnd, KindUpdate and KindSocket; its Opened is not set

	CgroupID   uint64 // of KindCgroup
	CgroupPath string // of KindCgroup; "" if the path is too long for an event
	// ClaimedNames is how many of the last names in CgroupPath a user other than root may have
	// chosen.
	ClaimedNames int

	// Of KindSocket: the time left to a TIME_WAIT and net.ipv4.tcp_keepalive_intvl, both in
	// jiffies. The sysctl is known in seconds as well, so it shows how long a jiffy is.
	JiffiesLeft      int64 // negative: the timer is late
	KeepaliveJiffies uint64

	Queues tcp.Queues // of KindSocket

	LateReset tcp.LateReset // of KindLateReset
}

type (
	wireTransition = bpfobj.ProbeTransitionEvent
	wireEnd        = bpfobj.ProbeEndEvent
	wireCgroup     = bpfobj.ProbeCgroupEvent
	wireSocket     = bpfobj.ProbeSocketEvent
	wireReset      = bpfobj.ProbeResetEvent
	wireUpdate     = bpfobj.ProbeUpdateEvent
)

// Sample decodes one sample into e. It returns an error and leaves e unchanged if no kind
// of event has the sample's length, or if the sample's kind, family or number of cgroup
// levels is not valid. It allocates only for a cgroup's path, and for a sample that is not
// aligned as its type requires.
func Sample(sample []byte, e *Event) error {
	switch uintptr(len(sample)) {
	case unsafe.Sizeof(wireTransition{}):
		w := view[wireTransition](sample)
		return decodeTransition(w, KindTransition, e)
	case unsafe.Sizeof(wireEnd{}):
		w := view[wireEnd](sample)
		if err := decodeTransition(&w.Transition, KindEnd, e); err != nil {
			return err
		}
		decodeConnection(w, e)
		return nil
	case unsafe.Sizeof(wireSocket{}):
		w := view[wireSocket](sample)
		if err := decodeTransition(&w.Socket, KindSocket, e); err != nil {
			return err
		}
		decodeSocket(w, e)
		return nil
	case unsafe.Sizeof(wireCgroup{}):
		w := view[wireCgroup](sample)
		return decodeCgroup(w, e)
	case unsafe.Sizeof(wireReset{}):
		return decodeReset(view[wireReset](sample), e)
	case unsafe.Sizeof(wireUpdate{}):
		return decodeUpdate(view[wireUpdate](sample), e)
	}
	return fmt.Errorf("decode: sample of %d bytes, want %d, %d, %d, %d, %d or %d: programs and decoder are of different builds",
		len(sample), unsafe.Sizeof(wireTransition{}), unsafe.Sizeof(wireEnd{}),
		unsafe.Sizeof(wireSocket{}), unsafe.Sizeof(wireCgroup{}), unsafe.Sizeof(wireReset{}), unsafe.Sizeof(wireUpdate{}))
}

// view returns the sample as a T: in place if it is aligned, as all samples in a ring
// buffer are, or else a copy. The caller has checked the length.
func view[T any](sample []byte) *T {
	start := unsafe.Pointer(unsafe.SliceData(sample))
	if uintptr(start)%unsafe.Alignof(*new(T)) == 0 {
		return (*T)(start)
	}
	v := new(T)
	copy(unsafe.Slice((*byte)(unsafe.Pointer(v)), unsafe.Sizeof(*v)), sample)
	return v
}

func checkKind(got uint8, want Kind) error {
	if Kind(got) != want {
		return wrongKind(got, want)
	}
	return nil
}

func wrongKind(got uint8, want Kind) error {
	return fmt.Errorf("decode: event of kind %d in a sample as long as kind %d", got, want)
}

func decodeTransition(w *wireTransition, kind Kind, e *Event) error {
	if err := checkKind(w.Kind, kind); err != nil {
		return err
	}
	if w.Family != 4 && w.Family != 6 {
		return fmt.Errorf("decode: family %d, want 4 or 6", w.Family)
	}
	e.Kind = kind
	t := &e.Transition
	// Field by field: Go builds a composite literal elsewhere and copies it in large words,
	// and the processor stalls on words that were just stored in small fields.
	*t = tcp.Transition{}
	t.Monotonic = time.Duration(w.TimestampNs)
	t.Cookie = w.Cookie
	t.Netns = w.Netns
	t.UID = w.Uid
	t.CgroupID = w.CgroupId
	t.Error = tcp.Errno(w.Error)
	t.Old = tcp.State(w.OldState)
	t.New = tcp.State(w.NewState)
	t.Role = tcp.Role(w.Role)
	t.IPv6 = w.Family == 6
	if w.TimeWaitSubstate != 0 {
		t.New, t.Substate = tcp.TimeWait, tcp.State(w.TimeWaitSubstate)
	}
	if t.Substate == tcp.FinWait2 {
		t.FinWait2Timeout = time.Duration(w.TimeoutOrReason) * time.Second
	} else {
		t.ResetCode = tcp.ResetCode(w.TimeoutOrReason)
	}
	if w.PidSource != 0 {
		t.Owner.PID, t.Owner.Comm, t.Owner.Source = w.Pid, w.Comm, tcp.PIDSource(w.PidSource)
	}
	decodeFlags(w, t)
	decodeEndpoints(w, t)
	return nil
}

func decodeFlags(w *wireTransition, t *tcp.Transition) {
	t.Mapped = hasFlag(w, bpfobj.ProbeEventFlagEVENT_MAPPED)
	t.TimeWaitUnknown = hasFlag(w, bpfobj.ProbeEventFlagEVENT_TIMEWAIT_UNKNOWN)
	t.Locked = hasFlag(w, bpfobj.ProbeEventFlagEVENT_LOCKED)
	t.PeerFIN = hasFlag(w, bpfobj.ProbeEventFlagEVENT_PEER_FIN)
	t.NoProcess = hasFlag(w, bpfobj.ProbeEventFlagEVENT_NO_SOCKET)
	t.Expired = hasFlag(w, bpfobj.ProbeEventFlagEVENT_EXPIRED)
	t.NoLinger2 = hasFlag(w, bpfobj.ProbeEventFlagEVENT_NO_LINGER2)
	t.NoPort = hasFlag(w, bpfobj.ProbeEventFlagEVENT_NO_PORT)
	t.PortUnknown = hasFlag(w, bpfobj.ProbeEventFlagEVENT_PORT_UNKNOWN)
	t.ListenFailed = hasFlag(w, bpfobj.ProbeEventFlagEVENT_LISTEN_FAILED)
	t.Acked = hasFlag(w, bpfobj.ProbeEventFlagEVENT_ALL_ACKED)
	t.Repair = hasFlag(w, bpfobj.ProbeEventFlagEVENT_REPAIR)
	t.TCPReset = hasFlag(w, bpfobj.ProbeEventFlagEVENT_TCP_RESET)
	t.ResetSentBefore = hasFlag(w, bpfobj.ProbeEventFlagEVENT_RESET_SENT)
	t.ResetAwaited = hasFlag(w, bpfobj.ProbeEventFlagEVENT_RESET_AWAITED)
	t.PeerTimestamp = hasFlag(w, bpfobj.ProbeEventFlagEVENT_TIMEWAIT_TIMESTAMP)
	t.OwnPortRange = hasFlag(w, bpfobj.ProbeEventFlagEVENT_OWN_PORT_RANGE)
	if hasFlag(w, bpfobj.ProbeEventFlagEVENT_TIMED) {
		t.InState = time.Duration(w.InStateNs)
	}
}

func hasFlag(w *wireTransition, flag bpfobj.ProbeEventFlag) bool {
	return bpfobj.ProbeEventFlag(w.Flags)&flag != 0
}

// decodeEndpoints leaves out addresses that the kernel has not chosen yet. In a sample
// these are unspecified (0.0.0.0 or ::). Only a listener can really have that address.
func decodeEndpoints(w *wireTransition, t *tcp.Transition) {
	listens := t.New == tcp.Listen || t.Old == tcp.Listen && t.New != tcp.SynRecv
	if listens || !unspecified(w.Family, &w.LocalAddr) {
		t.Local.Addr = address(w.Family, &w.LocalAddr)
	}
	if !unspecified(w.Family, &w.PeerAddr) {
		t.Peer.Addr = address(w.Family, &w.PeerAddr)
	}
	t.Local.Port, t.Peer.Port = w.LocalPort, w.PeerPort
}

func unspecified(family uint8, raw *[16]byte) bool {
	if family == 4 {
		return [4]byte(raw[:4]) == [4]byte{}
	}
	return *raw == [16]byte{}
}

func address(family uint8, raw *[16]byte) netip.Addr {
	if family == 4 {
		return netip.AddrFrom4([4]byte(raw[:4]))
	}
	return netip.AddrFrom16(*raw)
}

func decodeConnection(w *wireEnd, e *Event) {
	decodeMeasures(w, &e.Connection)
	e.Connection.ClosedBy = tcp.ClosedByOf(&e.Transition)
}

// decodeMeasures decodes what ends and updates have in common.
func decodeMeasures(w *wireEnd, c *tcp.Connection) {
	*c = tcp.Connection{}
	c.OpenedAt = time.Duration(w.OpenedNs)
	c.EstablishedFor = time.Duration(w.InEstablishedNs)
	c.Sent = w.SentBytes
	c.Received = w.ReceivedBytes
	c.Retransmits = w.Retransmits
	c.RTT = time.Duration(w.RttUs) * time.Microsecond
}

func decodeUpdate(w *wireUpdate, e *Event) error {
	if err := decodeTransition(&w.End.Transition, KindUpdate, e); err != nil {
		return err
	}
	c := &e.Connection
	decodeMeasures(&w.End, c)
	c.Phase, c.Cwnd = tcp.PhaseUpdate, w.SndCwnd
	return nil
}

// decodeSocket decodes what a socket of a snapshot has besides its transition.
func decodeSocket(w *wireSocket, e *Event) {
	e.JiffiesLeft, e.KeepaliveJiffies = w.JiffiesLeft, uint64(w.KeepaliveIntvlJiffies)
	e.Connection, e.Queues = tcp.Connection{}, tcp.Queues{}
	switch e.Transition.New {
	case tcp.TimeWait, tcp.NewSynRecv:
		return
	case tcp.Listen:
	default:
		e.Connection = tcp.Connection{
			Phase: tcp.PhaseUpdate, Sent: w.SentBytes, Received: w.ReceivedBytes, Retransmits: w.Retransmits,
			RTT: time.Duration(w.RttUs) * time.Microsecond, Cwnd: w.SndCwnd,
		}
	}
	e.Queues = tcp.Queues{Known: true, Receive: w.ReceiveQueue, Send: w.SendQueue}
}

func decodeReset(w *wireReset, e *Event) error {
	if err := checkKind(w.Kind, KindLateReset); err != nil {
		return err
	}
	if w.Family != 4 && w.Family != 6 {
		return fmt.Errorf("decode: family %d, want 4 or 6", w.Family)
	}
	e.Kind = KindLateReset
	r := &e.LateReset
	*r = tcp.LateReset{Cookie: w.Cookie, Netns: w.Netns, Code: tcp.ResetCode(w.Reason)}
	r.Local, r.Peer = endpointOf(w.Family, &w.LocalAddr, w.LocalPort), endpointOf(w.Family, &w.PeerAddr, w.PeerPort)
	return nil
}

// endpointOf leaves out an address that is not chosen, as decodeEndpoints does.
func endpointOf(family uint8, raw *[16]byte, port uint16) tcp.Endpoint {
	e := tcp.Endpoint{Port: port}
	if !unspecified(family, raw) {
		e.Addr = address(family, raw)
	}
	return e
}

func decodeCgroup(w *wireCgroup, e *Event) error {
	if err := checkKind(w.Kind, KindCgroup); err != nil {
		return err
	}
	if int(w.Levels) > len(w.Names) {
		return fmt.Errorf("decode: cgroup of %d levels, at most %d fit", w.Levels, len(w.Names))
	}
	if uint32(w.Claimed) > w.Levels {
		return fmt.Errorf("decode: cgroup with %d claimed names of %d", w.Claimed, w.Levels)
	}
	e.Kind, e.CgroupID, e.CgroupPath, e.ClaimedNames = KindCgroup, w.Id, cgroupPath(w), int(w.Claimed)
	return nil
}

// cgroupPath joins the names, which are in the order from the cgroup to the root.
func cgroupPath(w *wireCgroup) string {
	if w.Truncated != 0 {
		return ""
	}
	if w.Levels == 0 {
		return "/"
	}
	var path []byte
	for i := int(w.Levels) - 1; i >= 0; i-- {
		name, _, _ := bytes.Cut(w.Names[i][:], []byte{0})
		path = append(append(path, '/'), name...)
	}
	return string(path)
}
