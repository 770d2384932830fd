package tcp

import "time"

// Socket is a socket at one moment. Only some fields of its Transition are set: New, which
// is the socket's state, Substate, and what identifies the socket and its owner.
type Socket struct {
	Transition
	ExpiresIn time.Duration // until the timewait socket's timer expires; 0: not known
}
