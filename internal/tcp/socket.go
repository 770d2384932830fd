package tcp

import "time"

// Socket is a socket at one moment. New is its state. Which other fields of the Transition
// are set depends on the source: internal/snapshot sets the Owner, UID, Error, Time and Cgroup
// too, internal/limits only what limits.EachConnectionOrTimeWait lists.
type Socket struct {
	Transition
	ExpiresIn time.Duration // until the timewait socket's timer expires; 0: not known, or overdue

	// Set by internal/snapshot only.
	Connection Connection // what it has done so far, of PhaseUpdate; the zero value: not known, or it listens
	Queues     Queues
}

// Queues are what waits in a socket, as ss shows it.
type Queues struct {
	Known bool // false for a TIME_WAIT and a request
	// Receive is bytes that the process has not read, and Send those that are not acknowledged or not sent; a SYN
	// or FIN counts as one. Of a listener, Receive is the connections that wait for accept(), and Send the limit
	// that listen() has set.
	Receive, Send uint32
}

// CloseWaitSocket is a socket in CLOSE_WAIT at one moment.
type CloseWaitSocket struct {
	Cookie     uint64
	SinceSent  time.Duration // since data were sent on it last, or since it was established
	SendQueued bool          // some of its data are not acknowledged, or not sent yet
	Accepted   bool          // a process has it
}

// Listener is a listening socket at one moment.
type Listener struct {
	Cookie uint64
	Local  Endpoint // as it is bound: the address may be unspecified
	// Queued is how many connections wait for accept() (sk_ack_backlog), Backlog the limit that
	// listen() has set (sk_max_ack_backlog).
	Queued, Backlog uint32
	// Drops is how many segments the socket has dropped (sk_drops), mostly SYNs and last ACKs of
	// handshakes for which there was no room.
	Drops uint32
	Inode uint32 // of the socket's file; 0: no process has it open
	UID   uint32 // of the socket's user
}

// IsFull reports whether the kernel adds no connection to the queue: sk_acceptq_is_full()
// (include/net/sock.h). The queue takes one more than Backlog.
func (l *Listener) IsFull() bool { return l.Queued > l.Backlog }

// UnacceptedSocket is a connection that waits for accept().
type UnacceptedSocket struct {
	Cookie uint64
	Local  Endpoint
}
