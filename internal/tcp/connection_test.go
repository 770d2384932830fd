package tcp

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// ending is a last transition, with the fields that ClosedByOf uses.
type ending struct {
	name string
	t    Transition
	want ClosedBy
}

// last is a transition to CLOSE of a socket that has its ports.
func last(old State, change ...func(*Transition)) Transition {
	t := Transition{Old: old, New: Close, Local: Endpoint{netip.MustParseAddr("192.0.2.1"), 50388}}
	for _, f := range change {
		f(&t)
	}
	return t
}

func locked(t *Transition)          { t.Locked = true }
func unbound(t *Transition)         { t.Local.Port = 0 }
func toTimeWait(t *Transition)      { t.New, t.Substate = TimeWait, TimeWait }
func toFinWait2(t *Transition)      { t.New, t.Substate = TimeWait, FinWait2 }
func timeWaitUnknown(t *Transition) { t.TimeWaitUnknown = true }
func peerFIN(t *Transition)         { t.PeerFIN = true }
func noLinger2(t *Transition)       { t.NoLinger2 = true }
func orphan(t *Transition)          { t.NoProcess = true }
func noPort(t *Transition)          { t.NoPort = true }
func portUnknown(t *Transition)     { t.PortUnknown = true }
func listenFailed(t *Transition)    { t.ListenFailed = true }
func acked(t *Transition)           { t.Acked = true }
func repair(t *Transition)          { t.Repair = true }
func ownerAtWork(t *Transition)     { t.Owner = Owner{PID: 7, Source: PIDTask} }
func ownerStored(t *Transition)     { t.Owner = Owner{PID: 7, Source: PIDStored} }
func noBucketLeft(t *Transition)    { t.New, t.Substate = Close, 0 }

// The hooks of bpf/reset.h: received and sent are what they report.
func awaited(t *Transition)       { t.ResetAwaited = true }
func resetReceived(t *Transition) { t.ResetAwaited, t.TCPReset = true, true }
func resetSent(t *Transition)     { t.ResetAwaited, t.ResetSent = true, true }
func resetBefore(t *Transition)   { t.ResetAwaited, t.ResetSentBefore = true, true }

func with(err unix.Errno) func(*Transition) {
	return func(t *Transition) { t.Error = Errno(err) }
}

// The rows of the table of the kernel's code paths that lead to CLOSE.
var endings = []ending{
	{"a listener that is closed", last(Listen, locked, ownerAtWork), ClosedByLocal},
	{"a listener that is closed, with an error of its previous connection", last(Listen, locked, ownerAtWork, with(unix.ECONNRESET)), ClosedByLocal},
	{"a listener ended by ss -K or shut down", last(Listen, locked, ownerStored), ""},
	{"a listener ended by ss -K or shut down, owner unknown", last(Listen, locked), ""},

	{"connect() that finds no port", last(SynSent, locked, unbound, noPort), ClosedByNoPort},
	{"connect() that finds no port, after a reset of the socket", last(SynSent, locked, unbound, noPort, with(unix.ECONNRESET)), ClosedByNoPort},
	{"connect() from a bound port that finds that connection there", last(SynSent, locked, noPort), ClosedByAddressInUse},
	{"connect() from a bound port that finds that connection there, after a timeout of the socket", last(SynSent, locked, noPort, with(unix.ETIMEDOUT)), ClosedByAddressInUse},
	{"connect() of which it is not known whether it found a port", last(SynSent, locked, unbound, portUnknown), ""},
	{"a fast open that was put off and closed, or a route refused", last(SynSent, locked), ClosedByLocal},
	{"listen() that failed", last(Listen, locked, ownerAtWork, listenFailed), ""},
	{"close() in repair mode", last(Established, locked, ownerAtWork, repair), ""},
	{"close() before an answer came", last(SynSent, locked), ClosedByLocal},
	{"connect() refused, in softirq", last(SynSent, with(unix.ECONNREFUSED)), ClosedByRefused},
	{"connect() refused, in the backlog", last(SynSent, locked, with(unix.ECONNREFUSED)), ClosedByRefused},
	{"connect() without an answer", last(SynSent, with(unix.ETIMEDOUT)), ClosedByTimeout},
	{"connect() ended by an ICMP error", last(SynSent, with(unix.EHOSTUNREACH)), ""},
	{"connect() aborted by ss -K", last(SynSent, locked, with(unix.ECONNABORTED)), ClosedByAbort},

	{"a child that could not be set up", last(SynRecv), ""},
	{"a TFO child unaccepted, its listener closed", last(SynRecv, locked), ""},
	{"an ICMP error in a simultaneous open", last(SynRecv, with(unix.EHOSTUNREACH)), ""},
	{"an ICMP refusal in a simultaneous open", last(SynRecv, with(unix.ECONNREFUSED)), ""},

	{"an unaccepted child, its listener closed", last(Established, orphan), ClosedByResetSent},
	{"an unaccepted child, its listener closed, after the peer's FIN", last(CloseWait, peerFIN, orphan), ClosedByResetSent},
	{"SO_LINGER 0 or AF_UNSPEC", last(Established, locked, ownerAtWork), ClosedByResetSent},
	{"an error that a process has read, in the backlog of a task that only reads", last(Established, locked, ownerStored), ""},
	{"an error that a process has read, in softirq", last(CloseWait, peerFIN, ownerStored), ""},
	{"SO_LINGER 0 or AF_UNSPEC in CLOSE_WAIT", last(CloseWait, locked, peerFIN, ownerAtWork), ClosedByResetSent},
	{"SO_LINGER 0, AF_UNSPEC or data unread in FIN_WAIT1", last(FinWait1, locked, ownerAtWork), ClosedByResetSent},

	{"the orphan limit or no memory in FIN_WAIT1", last(FinWait1), ""},
	{"retransmissions without an answer", last(Established, with(unix.ETIMEDOUT)), ClosedByTimeout},
	{"retransmissions whose last answer was an ICMP error", last(Established, with(unix.EHOSTUNREACH)), ClosedByTimeout},
	{"retransmissions whose last answer was an ICMP refusal", last(Established, with(unix.ECONNREFUSED)), ClosedByTimeout},
	{"an error that waits while its owner disconnects", last(Established, locked, with(unix.EHOSTUNREACH)), ""},
	{"a FIN without an answer", last(FinWait1, with(unix.ETIMEDOUT)), ClosedByTimeout},
	{"a last FIN without an answer", last(LastAck, peerFIN, with(unix.ETIMEDOUT)), ClosedByTimeout},

	{"the peer's FIN in FIN_WAIT2", last(FinWait2, toTimeWait, peerFIN), ClosedByLocal},
	{"an orphan left to a timewait socket before the peer's FIN", last(FinWait2, toFinWait2, orphan), ClosedByLocal},
	{"close() in FIN_WAIT2", last(FinWait2, toFinWait2, orphan, locked), ClosedByLocal},
	{"the peer's FIN in FIN_WAIT2, after an error that it survived", last(FinWait2, toTimeWait, peerFIN, with(unix.EHOSTUNREACH)), ClosedByLocal},
	{"the ACK of the FIN in CLOSING", last(Closing, toTimeWait, peerFIN), ClosedByLocal},
	{"TCP_LINGER2 negative, but the peer's FIN came", last(FinWait2, toTimeWait, peerFIN, noLinger2), ClosedByLocal},
	{"TCP_LINGER2 negative", last(FinWait2, noLinger2, orphan), ClosedByResetSent},
	{"TCP_LINGER2 negative at close()", last(FinWait2, noLinger2, orphan, locked), ClosedByResetSent},
	{"tcp_max_tw_buckets reached at the peer's FIN", last(FinWait2, noBucketLeft, peerFIN), ClosedByLocal},
	{"tcp_max_tw_buckets reached at the peer's FIN, TCP_LINGER2 negative", last(FinWait2, noBucketLeft, peerFIN, noLinger2), ClosedByLocal},
	{"tcp_max_tw_buckets reached in CLOSING", last(Closing, noBucketLeft, peerFIN), ClosedByLocal},
	{"tcp_max_tw_buckets reached before the peer's FIN", last(FinWait2, noBucketLeft, orphan), ClosedByLocal},
	{"tcp_max_tw_buckets reached at close()", last(FinWait2, noBucketLeft, orphan, locked), ClosedByLocal},
	{"SO_LINGER 0, AF_UNSPEC or data unread in FIN_WAIT2", last(FinWait2, locked), ClosedByResetSent},
	{"a search for the timewait socket that was not conclusive", last(FinWait2, timeWaitUnknown, orphan), ClosedByLocal},
	{"a search for the timewait socket that was not conclusive at the peer's FIN", last(FinWait2, timeWaitUnknown, peerFIN), ClosedByLocal},

	{"the ACK of the FIN in CLOSING, after an error that the connection survived", last(Closing, noBucketLeft, peerFIN, acked, with(unix.EHOSTUNREACH)), ClosedByLocal},
	{"the peer's FIN in FIN_WAIT2, no timewait socket, after an error that the connection survived", last(FinWait2, awaited, peerFIN, with(unix.EHOSTUNREACH)), ClosedByLocal},
	{"an unread fast open, closed by its owner", last(SynRecv, locked, ownerAtWork), ClosedByResetSent},

	{"a reset in SYN_RECV", last(SynRecv, resetReceived, with(unix.ECONNRESET)), ClosedByResetReceived},
	{"a reset in ESTABLISHED", last(Established, resetReceived, with(unix.ECONNRESET)), ClosedByResetReceived},
	{"a reset in CLOSE_WAIT", last(CloseWait, resetReceived, with(unix.EPIPE)), ClosedByResetReceived},
	{"a reset in FIN_WAIT1", last(FinWait1, resetReceived, with(unix.ECONNRESET)), ClosedByResetReceived},
	{"a reset in FIN_WAIT2", last(FinWait2, resetReceived, with(unix.ECONNRESET)), ClosedByResetReceived},
	{"a reset in CLOSING", last(Closing, resetReceived, with(unix.ECONNRESET)), ClosedByResetReceived},
	{"a reset in LAST_ACK", last(LastAck, resetReceived, with(unix.ECONNRESET)), ClosedByResetReceived},
	{"a reset inside the owner's system call", last(Established, resetReceived, locked, ownerAtWork, with(unix.ECONNRESET)), ClosedByResetReceived},
	{"a reset that a subflow of MPTCP has ignored, then close() with data unread", last(Established, resetReceived, locked, ownerAtWork), ClosedByResetSent},
	{"data after the peer's FIN in CLOSE_WAIT", last(CloseWait, resetReceived, resetSent, with(unix.EPIPE)), ClosedByResetSent},
	{"data after close() in FIN_WAIT1", last(FinWait1, resetReceived, resetSent, with(unix.ECONNRESET)), ClosedByResetSent},
	{"data after close() in FIN_WAIT2", last(FinWait2, resetReceived, resetSent, with(unix.ECONNRESET)), ClosedByResetSent},
	{"data after the peer's FIN in CLOSING", last(Closing, resetReceived, resetSent, with(unix.ECONNRESET)), ClosedByResetSent},
	{"data after the peer's FIN in LAST_ACK", last(LastAck, resetReceived, resetSent, with(unix.ECONNRESET)), ClosedByResetSent},
	{"SO_LINGER 0 after an error that the connection survived", last(Established, resetSent, locked, ownerStored, with(unix.EHOSTUNREACH)), ClosedByResetSent},
	{"an unaccepted fast open whose listener closes", last(SynRecv, resetSent, orphan), ClosedByResetSent},
	{"a fast open that could not be set up", last(SynRecv, awaited, orphan), ""},
	{"SO_LINGER 0 in LAST_ACK", last(LastAck, resetSent, peerFIN, locked), ClosedByResetSent},
	{"keepalive without an answer, which resets first", last(Established, resetBefore, with(unix.ETIMEDOUT)), ClosedByTimeout},
	{"keepalive in FIN_WAIT2 whose last answer was an ICMP error", last(FinWait2, resetBefore, with(unix.EHOSTUNREACH)), ClosedByTimeout},
	{"ss -K, which resets first", last(Established, resetBefore, locked, with(unix.ECONNABORTED)), ClosedByAbort},
	{"the orphan limit, which resets first", last(FinWait1, resetBefore, orphan), ClosedByResetSent},
	{"MPTCP drops a subflow, which resets first", last(Established, resetBefore, locked), ""},

	{"the ACK of the last FIN", last(LastAck, peerFIN, acked), ClosedByPeer},
	{"the ACK of the last FIN, after an error that the connection survived", last(LastAck, peerFIN, acked, with(unix.EHOSTUNREACH)), ClosedByPeer},
	{"SO_LINGER 0, AF_UNSPEC or the orphan limit in LAST_ACK", last(LastAck, peerFIN, locked), ""},
	{"the ACK of the last FIN inside close()", last(LastAck, peerFIN, locked, acked), ClosedByPeer},
	{"a state outside the table", last(17), ""},
}

// ClosedByOf returns how a connection ended on each of the kernel's code paths to CLOSE,
// or "" where the kernel does not distinguish them.
func TestClosedByOf_EveryPathToClose(t *testing.T) {
	for _, e := range endings {
		t.Run(e.name, func(t *testing.T) {
			if got := ClosedByOf(&e.t); got != e.want {
				t.Errorf("%v → %v, error %d: closed by %q, want %q", e.t.Old, e.t.New, e.t.Error, got, e.want)
			}
		})
	}
}

// A received reset is recognised in every state in which no other end looks like it.
func TestClosedByOf_ResetReceived(t *testing.T) {
	for old, want := range map[State]ClosedBy{
		SynRecv: ClosedByResetReceived, Established: ClosedByResetReceived, CloseWait: ClosedByResetReceived,
		LastAck: ClosedByResetReceived, Closing: ClosedByResetReceived,
		// Data that comes after close() gives ECONNRESET too, though it is this side that sends the reset.
		FinWait1: "", FinWait2: "",
	} {
		for _, context := range []func(*Transition){locked, func(*Transition) {}} {
			err := unix.ECONNRESET
			if old == CloseWait {
				err = unix.EPIPE
			}
			end := last(old, context, with(err))
			if got := ClosedByOf(&end); got != want {
				t.Errorf("%v with %v, locked %v: closed by %q, want %q", old, err, end.Locked, got, want)
			}
		}
	}
}

// ss -K is an abort in every state of a connection.
func TestClosedByOf_Abort(t *testing.T) {
	for _, old := range []State{SynSent, SynRecv, Established, FinWait1, FinWait2, CloseWait, LastAck, Closing} {
		end := last(old, locked, with(unix.ECONNABORTED))
		if got := ClosedByOf(&end); got != ClosedByAbort {
			t.Errorf("%v: closed by %q, want %q", old, got, ClosedByAbort)
		}
	}
}

// A timeout is recognised in every state that waits.
func TestClosedByOf_Timeout(t *testing.T) {
	for _, old := range []State{SynSent, SynRecv, Established, FinWait1, FinWait2, CloseWait, LastAck, Closing} {
		for _, context := range []func(*Transition){locked, func(*Transition) {}} { // locked: put off until release_sock()
			end := last(old, context, with(unix.ETIMEDOUT))
			if got := ClosedByOf(&end); got != ClosedByTimeout {
				t.Errorf("%v, locked %v: closed by %q, want %q", old, end.Locked, got, ClosedByTimeout)
			}
		}
	}
}

// KernelNew never gives TIME_WAIT: the tracepoint reports CLOSE instead.
func TestTransition_KernelNew(t *testing.T) {
	for _, s := range States() {
		want := s
		if s == TimeWait {
			want = Close
		}
		if got := (&Transition{New: s}).KernelNew(); got != want {
			t.Errorf("%v is %v to the kernel, want %v", s, got, want)
		}
	}
	if got := (&Transition{New: 17}).KernelNew(); got != 17 {
		t.Errorf("STATE_17 is %v to the kernel", got)
	}
}

// A transition is to itself where the old and the new state of the tracepoint are equal.
func TestTransition_Self(t *testing.T) {
	for _, old := range append(States(), 0, 17, 255) {
		for _, next := range append(States(), 0, 17, 255) {
			kernelNext := next
			if next == TimeWait {
				kernelNext = Close
			}
			if got, want := (&Transition{Old: old, New: next}).IsSelfTransition(), old == kernelNext; got != want {
				t.Errorf("%v → %v is to itself: %v, want %v", old, next, got, want)
			}
		}
	}
}
