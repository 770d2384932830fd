package tcp

import "time"

// Socket is one as it is now: of its Transition only New, its state, and what says
// which and whose it is.
type Socket struct {
	Transition
	ExpiresIn time.Duration // left to a TIME_WAIT; 0: not known
}
