package tcp

import "time"

// Socket is a socket at one moment. Only some fields of its Transition are set: New, which
// is the socket's state, Substate, and what identifies the socket and its owner.
type Socket struct {
	Transition
	ExpiresIn time.Duration // until the timewait socket's timer expires; 0: not known
}

// CloseWaitSocket is a socket in CLOSE_WAIT at one moment.
type CloseWaitSocket struct {
	Cookie    uint64
	SinceSent time.Duration // since data were sent on it last, or since it was established
	Queued    bool          // some of its data are not acknowledged, or not sent yet
	Accepted  bool          // a process has it
}
