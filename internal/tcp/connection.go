package tcp

import (
	"time"

	"golang.org/x/sys/unix"
)

// Connection is what a socket was, told at its last transition.
type Connection struct {
	Opened      time.Time     // wall clock; set by whoever knows the clock's offset
	OpenedAt    time.Duration // CLOCK_MONOTONIC; 0: before the tracer
	Established time.Duration // spent in Established; 0: never, or not known
	Sent        uint64        // bytes of payload, each once
	Received    uint64        // bytes of payload
	Retransmits uint32        // segments
	RTT         time.Duration // smoothed; 0: never measured
	ClosedBy    ClosedBy
}

// ClosedBy is who or what ended a connection; "" where the kernel does not tell.
type ClosedBy string

// The ways in which a connection ends.
const (
	ClosedByLocal         ClosedBy = "local"
	ClosedByPeer          ClosedBy = "peer"
	ClosedByResetSent     ClosedBy = "reset_sent"
	ClosedByResetReceived ClosedBy = "reset_received"
	ClosedByTimeout       ClosedBy = "timeout"
	ClosedByAbort         ClosedBy = "abort" // ss -K, or another use of SOCK_DESTROY
	ClosedByRefused       ClosedBy = "refused"
	ClosedByNoPort        ClosedBy = "no_port"
)

// EndOf says how a connection ended whose last transition this is, by what the
// kernel does at each (net/ipv4/tcp.c, tcp_input.c, tcp_timer.c).
func EndOf(t *Transition) ClosedBy {
	switch {
	case t.Old == Listen:
		return endOfListener(t)
	case t.Repair:
		return ""
	case t.Old == SynSent && t.Unsent:
		// The error, if any, is of the socket's former life: tcp_connect_init() clears it.
		if t.Local.Port == 0 {
			return ClosedByNoPort
		}
		return ""
	case t.New == TimeWait:
		return ClosedByLocal // an error that is there now has not ended it
	case t.Old == LastAck && t.Acked:
		return ClosedByPeer // as tcp_rcv_state_process() wants it
	case t.Error != 0:
		return endWithError(t)
	}
	return endWithoutError(t)
}

func endWithoutError(t *Transition) ClosedBy {
	switch t.Old {
	case SynSent:
		if t.Locked {
			return ClosedByLocal
		}
	case Closing:
		return ClosedByLocal
	case Established, CloseWait, FinWait1:
		// Closing without a FIN: tcp_disconnect(), or __tcp_close() with data unread, both
		// under the lock, by who has the socket; or tcp_disconnect() of an unaccepted child.
		// Else a process has taken the error off the socket already.
		if t.Owner.Source == PIDTask || t.Orphan && !t.Locked && t.Old != FinWait1 {
			return ClosedByResetSent
		}
	case FinWait2:
		return endOfFinWait2(t)
	}
	return "" // tcp_out_of_resources(), or a child that could not be set up
}

// endOfListener: ss -K closes one without an error, as does the owner who shuts
// it down. Only a plain close shows its owner at work (bpf/owner.h).
func endOfListener(t *Transition) ClosedBy {
	if t.Owner.Source == PIDTask {
		return ClosedByLocal
	}
	return ""
}

// endOfFinWait2: without a timewait socket it may be that there was no room for
// one, which is an orderly end as well. But before the peer's FIN a socket that
// still has its process is cut off by tcp_disconnect(), and one with a negative
// TCP_LINGER2 by tcp_rcv_state_process() or __tcp_close(); both send a reset.
func endOfFinWait2(t *Transition) ClosedBy {
	if t.New != TimeWait && !t.PeerFIN && (t.NoLinger2 || !t.Orphan) {
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
		return ClosedByResetReceived // tcp_reset() says so in CLOSE_WAIT
	case err == unix.ECONNRESET:
		return endWithReset(t)
	case !opening && !t.Locked && t.Old != FinWait2:
		return ClosedByTimeout // tcp_write_err() gives the last ICMP error instead
	}
	return "" // an ICMP error that ended the attempt, or came long before
}

// endWithReset: data for a socket that is closed already goes through tcp_reset()
// too, and is answered with a reset (tcp_rcv_state_process).
func endWithReset(t *Transition) ClosedBy {
	if t.Old == FinWait1 || t.Old == FinWait2 {
		return ""
	}
	return ClosedByResetReceived
}
