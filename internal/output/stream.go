package output

import "time"

const (
	// batchSlack is extra room in a batch's buffer, in bytes, so that it seldom grows:
	// [Stream.FlushBatch] follows all lines of an event, which are at most four of 4 KiB.
	batchSlack = 16 << 10
	// ringGrace is how long a full queue leaves events in the kernel's ring buffer, so
	// that a burst can use the room of both. It is short because it delays detection.
	ringGrace = 250 * time.Millisecond
	// gracePoll is the time between two checks of the queue and the ring during ringGrace.
	gracePoll = time.Millisecond
)

// Sink takes batches of whole lines and writes them in the background; [*Queue] is one.
type Sink interface {
	// BatchSize is the number of bytes that one Put should have under load.
	BatchSize() int
	// Put takes the lines and their buffer, and returns an empty buffer in exchange.
	Put(lines []byte) (empty []byte, err error)
	// Full reports whether only records that must not be lost may be put.
	Full() bool
	// Room is the number of bytes that may still be put, even of records that must not be lost.
	Room() int
	// Drain waits until all lines are written, to a spool or to the reader, or the sink is
	// abandoned. Only the stop record may follow.
	Drain() error
	// Err is the failure of a write.
	Err() error
	// Written is the number of bytes that have been written, to a spool or to the reader.
	Written() uint64
	// ReaderGone reports whether the reader has closed its end.
	ReaderGone() bool
}

// beginner is a Sink or an Output that begins new files or connections.
type beginner interface {
	// Begun is how many files or connections it has begun after the first.
	Begun() uint64
}

// Ring is the kernel's ring buffer, in which events wait until they are read.
type Ring interface {
	// Crowded reports whether the ring may soon be too full to take more events.
	Crowded() bool
}

// Stream is one output as the loop sees it. The loop appends lines to a batch and flushes it; Stream
// decides which records are written while the reader stalls (see the package comment). It must be
// used by one goroutine.
type Stream struct {
	// Lines is the batch that is being gathered. Append whole lines, then call
	// FlushBatch or Flush.
	Lines []byte

	sink      Sink
	ring      Ring
	resumed   func()
	size      int  // of a batch, in bytes
	full      bool // the sink was full at the last check
	graceOver bool // ringGrace has passed since the sink became full, or the ring is crowded
	failed    bool // a write has failed
}

// NewStream makes a stream that flushes to sink. While ring is not crowded, events may
// stay in it for a moment before the stream stalls; nil: no moment, because other streams would
// wait, too. The stream calls resumed when a stall is over, before any other line is appended:
// resumed should append what has been lost.
func NewStream(sink Sink, ring Ring, resumed func()) *Stream {
	size := sink.BatchSize()
	return &Stream{Lines: make([]byte, 0, size+batchSlack), sink: sink, ring: ring, resumed: resumed, size: size}
}

// SetRing replaces the ring of NewStream.
func (s *Stream) SetRing(ring Ring) { s.ring = ring }

// Stalled reports whether records that may be lost must be counted instead of
// encoded, and records that may be late must be deferred. It costs next to nothing
// while the reader keeps up; at the beginning of a stall it waits for up to 250 ms. If the queue has
// room again it ends the stall: it calls the function resumed of NewStream and returns false.
func (s *Stream) Stalled() bool {
	return s.full && s.stalled()
}

// stalled is Stalled for a sink that was full.
func (s *Stream) stalled() bool {
	if !s.graceOver {
		for began := time.Now(); s.ring != nil && s.sink.Full() && !s.ring.Crowded() && time.Since(began) < ringGrace; {
			time.Sleep(gracePoll)
		}
		s.graceOver = true
	}
	if !s.sink.Full() {
		s.full, s.graceOver = false, false
		s.resumed()
	}
	return s.full
}

// HasRoom reports whether a record that must not be lost may be appended: the reserve for
// these records is not used up.
func (s *Stream) HasRoom() bool { return len(s.Lines) < s.sink.Room() }

// FlushBatch flushes if the gathered lines make a whole batch.
func (s *Stream) FlushBatch() error {
	if len(s.Lines) < s.size {
		return nil
	}
	return s.Flush()
}

// Flush passes the gathered lines to the queue. It fails if writing has failed, and
// does so once: from then on all lines are discarded.
func (s *Stream) Flush() error {
	if s.failed {
		s.Lines = s.Lines[:0]
		return nil
	}
	if len(s.Lines) == 0 {
		err := s.sink.Err()
		s.failed = err != nil
		return err
	}
	var err error
	s.Lines, err = s.sink.Put(s.Lines)
	s.full = s.graceOver || s.sink.Full()
	s.failed = err != nil
	return err
}

// Drain waits until all flushed lines are written, or the sink is abandoned. Lines in a spool count as
// written: the reader may get them from a later run. Call Drain at the end only, because this wait for a
// reader has no time limit. It fails as Flush does.
func (s *Stream) Drain() error {
	if s.failed {
		return nil
	}
	err := s.sink.Drain()
	s.failed = err != nil
	return err
}

// Written is the number of bytes that have been written. What a spool has got counts, although its reader
// may not have got it.
func (s *Stream) Written() uint64 { return s.sink.Written() }

// Spooled is the number of bytes that the output keeps on disk. ok is false if it has no spool.
func (s *Stream) Spooled() (bytes uint64, ok bool) {
	if spooling, can := s.sink.(interface{ Spooled() (uint64, bool) }); can {
		return spooling.Spooled()
	}
	return 0, false
}

// Rejected is the number of lines that the reader has refused. They count as written.
func (s *Stream) Rejected() uint64 {
	if rejecting, can := s.sink.(interface{ Rejected() uint64 }); can {
		return rejecting.Rejected()
	}
	return 0
}

// Begun is how many files or connections the output has begun after the first: 0 while it writes to the
// first.
func (s *Stream) Begun() uint64 {
	if b, ok := s.sink.(beginner); ok {
		return b.Begun()
	}
	return 0
}

// ReaderGone reports whether the reader has closed its end.
func (s *Stream) ReaderGone() bool { return s.sink.ReaderGone() }
