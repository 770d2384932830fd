package trace

import (
	"github.com/tcpshift/tcpshift/internal/decode"
	"github.com/tcpshift/tcpshift/internal/record"
)

// sharedLines are the lines of one event, without numbers, for all outputs that have the same
// encoder. A line is encoded when the first of these outputs wants it.
type sharedLines struct {
	encoder                record.Encoder
	transition, connection []byte // empty: not encoded yet
}

// begin forgets the lines of the event before. It must be called for each event.
func (s *sharedLines) begin() { s.transition, s.connection = s.transition[:0], s.connection[:0] }

func (s *sharedLines) transitionOf(e *decode.Event) []byte {
	if len(s.transition) == 0 {
		s.encoder.SetSeq(0)
		s.transition = s.encoder.Transition(s.transition, &e.Transition)
	}
	return s.transition
}

func (s *sharedLines) connectionOf(e *decode.Event) []byte {
	if len(s.connection) == 0 {
		s.encoder.SetSeq(0)
		s.connection = s.encoder.Connection(s.connection, &e.Transition, &e.Connection)
	}
	return s.connection
}
