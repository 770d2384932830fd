package tcp

import "time"

// Socket is a socket at one moment. Of its Transition only New, the state, Substate, and
// the fields that identify the socket and its owner are set.
type Socket struct {
	Transition
	ExpiresIn time.Duration // time left to a timewait socket; 0: not known
}
