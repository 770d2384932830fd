package tcplab

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// State is a TCP state, as numbered by the kernel.
type State uint8

// The kernel's numbers, include/net/tcp_states.h.
const (
	Established State = unix.BPF_TCP_ESTABLISHED
	SynSent     State = unix.BPF_TCP_SYN_SENT
	SynRecv     State = unix.BPF_TCP_SYN_RECV
	FinWait1    State = unix.BPF_TCP_FIN_WAIT1
	FinWait2    State = unix.BPF_TCP_FIN_WAIT2
	TimeWait    State = unix.BPF_TCP_TIME_WAIT
	Close       State = unix.BPF_TCP_CLOSE
	CloseWait   State = unix.BPF_TCP_CLOSE_WAIT
	LastAck     State = unix.BPF_TCP_LAST_ACK
	Listen      State = unix.BPF_TCP_LISTEN
	Closing     State = unix.BPF_TCP_CLOSING
)

var stateNames = map[State]string{
	Established: "ESTABLISHED",
	SynSent:     "SYN_SENT",
	SynRecv:     "SYN_RECV",
	FinWait1:    "FIN_WAIT1",
	FinWait2:    "FIN_WAIT2",
	TimeWait:    "TIME_WAIT",
	Close:       "CLOSE",
	CloseWait:   "CLOSE_WAIT",
	LastAck:     "LAST_ACK",
	Listen:      "LISTEN",
	Closing:     "CLOSING",
}

// String returns the kernel's name of the state, or STATE_n for an unknown number.
func (s State) String() string {
	if name, ok := stateNames[s]; ok {
		return name
	}
	return fmt.Sprintf("STATE_%d", uint8(s))
}

// Path is the states of a socket in order, as sock:inet_sock_set_state shows them: n
// states are n-1 events. TIME_WAIT is in no path, because the kernel shows CLOSE. A
// repeated state is an event too.
type Path []State

// Beginnings and ends of most paths.
var (
	connected = Path{Close, SynSent, Established}
	accepted  = Path{Listen, SynRecv, Established}
	listened  = Path{Close, Listen, Close}

	closesFirst = connected.Then(FinWait1, FinWait2, Close)
	closesLast  = accepted.Then(CloseWait, LastAck, Close)
)

// Then returns p with more states after it.
func (p Path) Then(more ...State) Path { return append(slices.Clone(p), more...) }

// String lists the states.
func (p Path) String() string {
	names := make([]string, len(p))
	for i, s := range p {
		names[i] = s.String()
	}
	return strings.Join(names, " ")
}
