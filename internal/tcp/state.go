// Package tcp is the vocabulary of all other packages: states, endpoints, owners,
// transitions, connections, and the limits of a network namespace. It imports nothing
// of this module and does no I/O.
package tcp

import (
	"strconv"
	"strings"
)

// State is a TCP state as the kernel numbers it (include/net/tcp_states.h).
// A number outside the table is kept, and prints as STATE_17.
type State uint8

// The kernel's states. RFC 9293 section 3.3.2 describes the eleven from
// Established to Closing; the last two exist only inside Linux.
const (
	Established   State = 1
	SynSent       State = 2
	SynRecv       State = 3
	FinWait1      State = 4
	FinWait2      State = 5
	TimeWait      State = 6
	Close         State = 7
	CloseWait     State = 8
	LastAck       State = 9
	Listen        State = 10
	Closing       State = 11
	NewSynRecv    State = 12 // a pending request: a handshake that is not complete
	BoundInactive State = 13 // bound, and neither listens nor is connected; only sock_diag has it
)

var stateNames = [...]string{
	Established:   "ESTABLISHED",
	SynSent:       "SYN_SENT",
	SynRecv:       "SYN_RECV",
	FinWait1:      "FIN_WAIT1",
	FinWait2:      "FIN_WAIT2",
	TimeWait:      "TIME_WAIT",
	Close:         "CLOSE",
	CloseWait:     "CLOSE_WAIT",
	LastAck:       "LAST_ACK",
	Listen:        "LISTEN",
	Closing:       "CLOSING",
	NewSynRecv:    "NEW_SYN_RECV",
	BoundInactive: "BOUND_INACTIVE",
}

// String gives the kernel's name, or STATE_n for a number n outside the table.
func (s State) String() string {
	if int(s) < len(stateNames) && stateNames[s] != "" {
		return stateNames[s]
	}
	return "STATE_" + strconv.Itoa(int(s))
}

// otherNames are names that differ from the kernel's in more than case and separators: those of RFC 9293 section
// 3.3.2, and of ss(8) and netstat(8).
var otherNames = map[string]State{"CLOSED": Close, "UNCONN": Close, "LISTENING": Listen, "SYN_RECEIVED": SynRecv, "ESTAB": Established}

// ParseState finds a state by its name in the kernel, RFC 9293 or ss(8), such as FIN_WAIT1, FIN-WAIT-1 and
// fin-wait-1.
func ParseState(name string) (State, bool) {
	for s, n := range stateNames {
		if n != "" && SameName(n, name) {
			return State(s), true
		}
	}
	for n, s := range otherNames {
		if SameName(n, name) {
			return s, true
		}
	}
	return 0, false
}

// separators differ between RFC 9293 (FIN-WAIT-1), the kernel (FIN_WAIT1) and ss(8) (fin-wait-1).
var separators = strings.NewReplacer("-", "", "_", "", " ", "")

// SameName reports whether two names differ only in case, hyphens, underscores and spaces.
func SameName(a, b string) bool {
	return strings.EqualFold(separators.Replace(a), separators.Replace(b))
}

// States lists every state that has a name, by number. The caller may change the slice.
func States() []State {
	all := make([]State, 0, len(stateNames))
	for s := Established; int(s) < len(stateNames); s++ {
		all = append(all, s)
	}
	return all
}
