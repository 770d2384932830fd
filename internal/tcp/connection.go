package tcp

import (
	"time"

	"golang.org/x/sys/unix"
)

// Connection sums up a connection: when its socket enters CLOSE in the kernel, or while it lives.
type Connection struct {
	Phase          Phase         // "" is PhaseEnd of a trace without updates
	Opened         time.Time     // wall clock; zero until the trace loop sets it
	OpenedAt       time.Duration // CLOCK_BOOTTIME; 0: not known, mostly because it opened before the tracer started
	EstablishedFor time.Duration // spent in Established; 0: never, or not known
	Sent           uint64        // bytes of payload, without retransmissions
	Received       uint64        // bytes of payload
	Retransmits    uint32        // segments
	RTT            time.Duration // smoothed; 0: never measured
	Cwnd           uint32        // of PhaseUpdate: the congestion window, in segments
	ClosedBy       ClosedBy      // of PhaseEnd
}

// Phase distinguishes what is said of a connection while it lives from what is said at its end.
type Phase string

// The phases.
const (
	PhaseUpdate Phase = "update" // it lives
	PhaseEnd    Phase = "end"    // its socket has entered CLOSE
)

// ClosedBy is how a connection ended; "" where the kernel does not distinguish that.
type ClosedBy string

// The ways in which a connection ends.
const (
	ClosedByLocal         ClosedBy = "local"          // this side closed first
	ClosedByPeer          ClosedBy = "peer"           // the peer closed first
	ClosedByResetSent     ClosedBy = "reset_sent"     // this side sent a reset
	ClosedByResetReceived ClosedBy = "reset_received" // the peer sent a reset
	ClosedByTimeout       ClosedBy = "timeout"        // the peer did not answer
	ClosedByAbort         ClosedBy = "abort"          // ss -K, or another use of SOCK_DESTROY
	ClosedByRefused       ClosedBy = "refused"        // a reset, or an ICMP "port unreachable", answered the SYN: ECONNREFUSED
	ClosedByNoPort        ClosedBy = "no_port"        // connect() found no free local port
	ClosedByAddressInUse  ClosedBy = "address_in_use" // connect() from a bound port: a connection with these addresses and ports exists
)

// WaysToClose returns all values of ClosedBy but "".
func WaysToClose() []ClosedBy {
	return []ClosedBy{
		ClosedByLocal, ClosedByPeer, ClosedByResetSent, ClosedByResetReceived, ClosedByTimeout, ClosedByAbort,
		ClosedByRefused, ClosedByNoPort, ClosedByAddressInUse,
	}
}

// ClosedByOf returns how a connection ended, from its transition to Close or TimeWait. The rules
// follow the code of the kernel (net/ipv4/tcp.c, tcp_input.c, tcp_timer.c).
func ClosedByOf(t *Transition) ClosedBy {
	switch {
	case t.Old == Listen:
		return endOfListener(t)
	case t.Repair:
		return ""
	case t.Old == SynSent && (t.PortUnknown || t.NoPort):
		return endWithoutPort(t)
	case t.New == TimeWait:
		return ClosedByLocal // an error that is set now has not ended the connection
	case t.Old == LastAck && t.Acked:
		return ClosedByPeer // the condition of tcp_rcv_state_process()
	case t.Old == Closing && t.Acked:
		return ClosedByLocal // the same condition; there was no room for a timewait socket
	}
	if by := endByReset(t); by != "" {
		return by
	}
	if t.Error != 0 {
		return endWithError(t)
	}
	return endWithoutError(t)
}

// endWithoutPort: inet_hash_connect() failed, or it is not known whether it did.
func endWithoutPort(t *Transition) ClosedBy {
	switch {
	case t.PortUnknown:
		return ""
	case t.Local.Port == 0:
		return ClosedByNoPort
	}
	return ClosedByAddressInUse
}

// endByReset returns the side that reset the connection, by the kernel's tracepoints of
// resets, or "" if they show none.
func endByReset(t *Transition) ClosedBy {
	switch {
	case t.ResetSent, t.ResetSentBefore && t.Error == 0 && !t.Locked:
		// Under the lock it may be ss -K, with its error read (SO_ERROR) meanwhile.
		return ClosedByResetSent
	case t.TCPReset && t.ResetAwaited && setByReset(t.Error):
		// Data after close() or after the peer's FIN also runs tcp_reset(), but this side
		// answers it with a reset, so ResetSent would be set.
		return ClosedByResetReceived
	}
	return ""
}

func endWithoutError(t *Transition) ClosedBy {
	switch t.Old {
	case SynSent:
		if t.Locked {
			return ClosedByLocal
		}
	case Closing:
		return ClosedByLocal
	case SynRecv:
		// As below, by the owner of an accepted fast-open socket. Where the socket is not
		// accepted, the kernel may have failed to set it up instead.
		if t.Owner.Source == PIDTask {
			return ClosedByResetSent
		}
	case Established, CloseWait, FinWait1:
		// No FIN was sent: tcp_disconnect(), or __tcp_close() with data unread, both by the
		// owner under the socket's lock; or tcp_disconnect() of a child that was not accepted.
		// In other cases a process has read the error already (SO_ERROR), which clears it.
		if t.Owner.Source == PIDTask || t.NoProcess && !t.Locked && t.Old != FinWait1 {
			return ClosedByResetSent
		}
	case FinWait2:
		return endOfFinWait2(t)
	}
	return "" // tcp_out_of_resources(), or a child that could not be set up
}

// endOfListener recognises close(): the current task is the owner then (bpf/owner.h).
// close(), shutdown() and ss -K by the owner look alike, because none sets an error; ss -K by
// another process gives "".
func endOfListener(t *Transition) ClosedBy {
	if t.Owner.Source == PIDTask && !t.ListenFailed {
		return ClosedByLocal
	}
	return ""
}

// endOfFinWait2 distinguishes an orderly end from a reset. Without a timewait socket the
// end may be orderly as well: there was no room for one. But before the peer's FIN, a
// socket that a process still has is ended by tcp_disconnect(), and one with a negative
// TCP_LINGER2 by tcp_rcv_state_process() or __tcp_close(): all of them send a reset.
func endOfFinWait2(t *Transition) ClosedBy {
	if t.New != TimeWait && !t.PeerFIN && (t.NoLinger2 || !t.NoProcess) {
		return ClosedByResetSent
	}
	return ClosedByLocal
}

func endWithError(t *Transition) ClosedBy {
	opening := t.Old == SynSent || t.Old == SynRecv
	switch err := unix.Errno(t.Error); {
	case err == unix.ECONNABORTED:
		return ClosedByAbort
	case err == unix.ETIMEDOUT:
		return ClosedByTimeout
	case err == unix.ECONNREFUSED && t.Old == SynSent:
		return ClosedByRefused
	case err == unix.EPIPE:
		return ClosedByResetReceived // tcp_reset() sets EPIPE in CLOSE_WAIT
	case err == unix.ECONNRESET:
		return endWithReset(t)
	case t.Old == FinWait2 && t.ResetAwaited && !t.ResetSentBefore:
		return ClosedByLocal // neither a reset nor a timer: the error was received long before
	case !opening && !t.Locked && (t.Old != FinWait2 || t.ResetSentBefore):
		return ClosedByTimeout // tcp_write_err() reports the last ICMP error instead of ETIMEDOUT
	}
	return "" // an ICMP error that ended the attempt, or was received long before
}

// setByReset reports whether the error is one that tcp_reset() sets. A socket of MPTCP, and
// no other, may go on after tcp_reset(), so TCPReset alone does not prove that the reset
// ended it.
func setByReset(e Errno) bool {
	err := unix.Errno(e)
	return err == unix.ECONNRESET || err == unix.EPIPE
}

// endWithReset returns "" in FIN_WAIT1 and FIN_WAIT2: data for a socket that is closed
// already goes through tcp_reset() as well, and this side answers it with a reset
// (tcp_rcv_state_process).
func endWithReset(t *Transition) ClosedBy {
	if t.Old == FinWait1 || t.Old == FinWait2 {
		return ""
	}
	return ClosedByResetReceived
}
