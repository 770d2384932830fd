package tcp

import "time"

// Socket is a socket at one moment. New is its state. Which other fields of the Transition
// are set depends on the source: internal/snapshot sets the Owner, UID, Error, Time and Cgroup
// too, internal/limits only what limits.EachConnectionOrTimeWait lists.
type Socket struct {
	Transition
	ExpiresIn time.Duration // until the timewait socket's timer expires; 0: not known, or overdue
}

// CloseWaitSocket is a socket in CLOSE_WAIT at one moment.
type CloseWaitSocket struct {
	Cookie     uint64
	SinceSent  time.Duration // since data were sent on it last, or since it was established
	SendQueued bool          // some of its data are not acknowledged, or not sent yet
	Accepted   bool          // a process has it
}
