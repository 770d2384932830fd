package record

import (
	"strings"
	"time"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

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
	Claimed   bool    `json:"container_claimed,omitempty"`
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
		r.Claimed = t.Cgroup.ContainerClaimed
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
		duration, established := uint64(t.Monotonic-c.OpenedAt), uint64(c.EstablishedFor)
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
