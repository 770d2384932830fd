package replay

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/netip"
	"strconv"
	"time"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// flagsOf returns the flags of a transition, in the order of the bits of the key flags, from the lowest on. A new flag
// comes last, so that older recordings keep their meaning.
func flagsOf(t *tcp.Transition) [19]*bool {
	return [...]*bool{
		&t.Mapped, &t.IPv6, &t.PeerTimestamp, &t.OwnPortRange, &t.TimeWaitUnknown, &t.Locked, &t.PeerFIN, &t.NoLinger2, &t.NoProcess,
		&t.NoPort, &t.PortUnknown, &t.ListenFailed, &t.Acked, &t.Repair, &t.Expired, &t.TCPReset, &t.ResetSentBefore, &t.ResetAwaited,
		&t.ResetSent,
	}
}

// transitionJSON is a transition without Time, which is for people, and ResetReason, which follows from ResetCode.
type transitionJSON struct {
	At        time.Duration `json:"at_ns"`
	Conn      string        `json:"conn"` // the cookie, in hex
	Old       tcp.State     `json:"old"`
	New       tcp.State     `json:"new"`
	Role      tcp.Role      `json:"role"`
	Local     netip.Addr    `json:"local"`
	LocalPort uint16        `json:"local_port"`
	Peer      netip.Addr    `json:"peer"`
	PeerPort  uint16        `json:"peer_port"`
	Netns     uint32        `json:"netns"`
	UID       uint32        `json:"uid"`
	PID       uint32        `json:"pid"`
	Comm      string        `json:"comm"`
	CommHex   string        `json:"comm_hex"` // instead of Comm, if the name is not printable ASCII without " and \
	Source    tcp.PIDSource `json:"pid_source"`
	CgroupID  uint64        `json:"cgroup_id"`
	Cgroup    int           `json:"cgroup"` // number of a cgroup; 0: not known
	Error     tcp.Errno     `json:"error"`
	InState   time.Duration `json:"in_state_ns"`
	Substate  tcp.State     `json:"substate"`
	Timeout   time.Duration `json:"fin_wait2_timeout_ns"`
	ResetCode tcp.ResetCode `json:"reset_code"`
	Flags     uint32        `json:"flags"`
}

// appendTransition appends the members of a transition that are not zero, each with its leading comma. It allocates
// nothing. cgroup is the number of its cgroup.
func appendTransition(b []byte, t *tcp.Transition, cgroup int) []byte {
	b = appendInt(b, "at_ns", int64(t.Monotonic))
	if t.Cookie != 0 {
		b = append(strconv.AppendUint(append(b, `,"conn":"`...), t.Cookie, 16), '"')
	}
	b = appendUint(b, "old", uint64(t.Old))
	b = appendUint(b, "new", uint64(t.New))
	b = appendUint(b, "role", uint64(t.Role))
	b = appendEndpoint(b, "local", t.Local)
	b = appendEndpoint(b, "peer", t.Peer)
	b = appendUint(b, "netns", uint64(t.Netns))
	b = appendUint(b, "uid", uint64(t.UID))
	b = appendUint(b, "pid", uint64(t.Owner.PID))
	b = appendComm(b, &t.Owner.Comm)
	b = appendUint(b, "pid_source", uint64(t.Owner.Source))
	b = appendUint(b, "cgroup_id", t.CgroupID)
	b = appendUint(b, "cgroup", uint64(cgroup))
	b = appendUint(b, "error", uint64(t.Error))
	b = appendInt(b, "in_state_ns", int64(t.InState))
	b = appendUint(b, "substate", uint64(t.Substate))
	b = appendInt(b, "fin_wait2_timeout_ns", int64(t.FinWait2Timeout))
	b = appendUint(b, "reset_code", uint64(t.ResetCode))
	flags := uint64(0)
	for i, flag := range flagsOf(t) {
		if *flag {
			flags |= 1 << i
		}
	}
	return appendUint(b, "flags", flags)
}

func appendKey(b []byte, key string) []byte {
	return append(append(append(b, `,"`...), key...), `":`...)
}

func appendUint(b []byte, key string, v uint64) []byte {
	if v == 0 {
		return b
	}
	return strconv.AppendUint(appendKey(b, key), v, 10)
}

func appendInt(b []byte, key string, v int64) []byte {
	if v == 0 {
		return b
	}
	return strconv.AppendInt(appendKey(b, key), v, 10)
}

// appendEndpoint appends an address with the key, and its port with the key and _port. Addresses of events have no zones.
func appendEndpoint(b []byte, key string, e tcp.Endpoint) []byte {
	if e.Addr.IsValid() {
		b = append(e.Addr.AppendTo(append(appendKey(b, key), '"')), '"')
	}
	if e.Port != 0 {
		b = append(append(append(b, `,"`...), key...), `_port":`...)
		b = strconv.AppendUint(b, uint64(e.Port), 10)
	}
	return b
}

// appendComm appends a name up to its last byte that is not 0: as it is if it is plain text, and else in hex.
func appendComm(b []byte, c *tcp.Comm) []byte {
	end, plain := 0, true
	for i, char := range c {
		if char != 0 {
			plain = plain && i == end && char >= ' ' && char < 0x7f && char != '"' && char != '\\'
			end = i + 1
		}
	}
	switch {
	case end == 0:
		return b
	case plain:
		return append(append(append(b, `,"comm":"`...), c[:end]...), '"')
	}
	return append(hex.AppendEncode(append(b, `,"comm_hex":"`...), c[:end]), '"')
}

// errZone refuses an address with a zone, which no recording has: a zone may be any text, and encoders write addresses
// as they are.
var errZone = errors.New("an address has a zone")

// value returns the transition. cgroups has the cgroups by number. The error names the key.
func (j *transitionJSON) value(cgroups map[int]*tcp.Cgroup) (t tcp.Transition, err error) {
	t = tcp.Transition{
		Monotonic: j.At, Old: j.Old, New: j.New, Role: j.Role, Netns: j.Netns, UID: j.UID, CgroupID: j.CgroupID, Cgroup: cgroups[j.Cgroup],
		Error: j.Error, InState: j.InState, Substate: j.Substate, FinWait2Timeout: j.Timeout, ResetCode: j.ResetCode,
		Local: tcp.Endpoint{Addr: j.Local, Port: j.LocalPort}, Peer: tcp.Endpoint{Addr: j.Peer, Port: j.PeerPort},
	}
	if j.Local.Zone() != "" || j.Peer.Zone() != "" {
		return t, errZone
	}
	t.Owner.PID, t.Owner.Source = j.PID, j.Source
	if j.Cgroup != 0 && t.Cgroup == nil {
		return t, errors.New("cgroup: no line before has this number")
	}
	if j.Conn != "" {
		if t.Cookie, err = strconv.ParseUint(j.Conn, 16, 64); err != nil {
			return t, errors.New("conn: " + strconv.Quote(j.Conn) + " is not a cookie in hex")
		}
	}
	comm := []byte(j.Comm)
	if j.CommHex != "" {
		if comm, err = hex.DecodeString(j.CommHex); err != nil {
			return t, errors.New("comm_hex: " + strconv.Quote(j.CommHex) + " is not in hex")
		}
	}
	if len(comm) > len(t.Owner.Comm) {
		return t, errors.New("comm: the name is too long")
	}
	copy(t.Owner.Comm[:], comm)
	for i, flag := range flagsOf(&t) {
		*flag = j.Flags>>i&1 == 1
	}
	return t, nil
}

// socketJSON is a socket of the kernel's table, without the values that only a snapshot has.
type socketJSON struct {
	Transition json.RawMessage `json:"transition"`
	ExpiresIn  time.Duration   `json:"expires_in_ns,omitempty"`
}

func (r *Recorder) socket(s *tcp.Socket) socketJSON {
	members := appendTransition(nil, &s.Transition, r.number(s.Cgroup))
	members = append(members, '}')
	if members[0] == ',' {
		members[0] = '{'
	} else {
		members = append([]byte{'{'}, members...)
	}
	return socketJSON{members, s.ExpiresIn}
}

func (j *socketJSON) value(cgroups map[int]*tcp.Cgroup) (s tcp.Socket, err error) {
	var t transitionJSON
	if err := json.Unmarshal(j.Transition, &t); err != nil {
		return s, err
	}
	s.Transition, err = t.value(cgroups)
	s.ExpiresIn = j.ExpiresIn
	return s, err
}
