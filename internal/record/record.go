// Package record turns values into lines: NDJSON for programs, text for people.
// It is the only home of the schema of docs/output.md. It must not read clocks,
// write anywhere or talk to the kernel.
package record

import (
	"time"

	"github.com/tcpshift/tcpshift/internal/detect"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// SchemaVersion is what start.schema says: additions raise the second number; a
// rename, a removal or a change of meaning the first.
const SchemaVersion = "1.0"

// MaxLine is the most that a line may have, in bytes, its newline included.
const MaxLine = 4096

// Types are the types of record that come and go as asked; start and stop always come.
func Types() []string {
	return []string{"transition", "connection", "alert", "stats", "loss"}
}

// Encoder appends one record as one whole line to dst and returns the longer
// slice. seq is the record's number in the stream, from 1.
type Encoder interface {
	Start(dst []byte, seq uint64, r *Start) []byte
	Transition(dst []byte, seq uint64, r *tcp.Transition) []byte
	// Connection is told at a socket's last transition, last.
	Connection(dst []byte, seq uint64, last *tcp.Transition, c *tcp.Connection) []byte
	Alert(dst []byte, seq uint64, a *detect.Alert) []byte
	Stats(dst []byte, seq uint64, r *Stats) []byte
	Loss(dst []byte, seq uint64, r *Loss) []byte
	Stop(dst []byte, seq uint64, r *Stop) []byte
}

// Start is the first record: every hook is attached.
type Start struct {
	Time     time.Time
	Version  string
	Host     string
	BootID   string
	Kernel   string
	Arch     string
	PID      int
	Features []Feature
}

// Feature is something that this kernel gives, or the reason why it does not.
type Feature struct {
	Name string
	Off  string // empty: it is there
}

// Counts says how many events took which way since the start. At the end
//
//	Fired    = Entered + Missed
//	Seen     = Fired − OtherProtocol
//	Seen     = Filtered + LostRingFull + LostRingBusy + LostReentry + Deferred + Read
//	Read     = Written + Dropped + LostQueueFull
//
// hold exactly. While events are under way Seen may be ahead of the sum.
type Counts struct {
	Fired         uint64 // firings of the tracepoint, any protocol
	Entered       uint64 // those that the first program handled
	Missed        uint64 // those that it missed because it was running
	OtherProtocol uint64 // not TCP, such as MPTCP's own socket
	Filtered      uint64
	LostRingFull  uint64
	LostRingBusy  uint64
	LostReentry   uint64 // both programs were busy
	LostQueueFull uint64 // read and wanted, but the reader of the output had stalled
	Deferred      uint64 // waiting for their socket's next transition (Linux up to 6.12)
	Read          uint64
	Dropped       uint64 // read, but not written
	Written       uint64 // transition records
	WrittenBytes  uint64 // of all records

	Connections     uint64 // connection records written
	LostConnections uint64 // those for which the queue was full
	TimeWaitUnknown uint64 // closes of which it was not found out whether they left a timewait socket

	TimeWaitEnds     uint64 // ends of TIME_WAITs written, which are not among Written
	LostTimeWaitEnds uint64 // those for which the queue was full
	TimeWaitEndsLost uint64 // those for which there was no room in the kernel
}

// Seen is the number of TCP transitions that the kernel went through. The two
// counts it is made of may be of different moments, and the second ahead.
func (c *Counts) Seen() uint64 {
	return c.Fired - min(c.Fired, c.OtherProtocol)
}

// Lost is the number of them that should have been written and were not.
func (c *Counts) Lost() uint64 {
	return c.LostRingFull + c.LostRingBusy + c.LostReentry + c.LostQueueFull
}

// Stats is a report of the counts so far.
type Stats struct {
	Time time.Time
	Counts
}

// LossCause is why events were lost.
type LossCause string

// The causes, all but the last of them in the kernel.
const (
	CauseRingFull LossCause = "ring_full" // the reader was too slow, or the buffer too small
	CauseRingBusy LossCause = "ring_busy" // the ring's lock was not to be had
	CauseReentry  LossCause = "reentry"   // an event interrupted both programs

	CauseQueueFull LossCause = "queue_full" // the reader of the output had stalled
)

func (c LossCause) stage() string {
	if c == CauseQueueFull {
		return "output"
	}
	return "kernel"
}

// Loss says that events are missing from the stream about here.
type Loss struct {
	Time  time.Time
	Lost  uint64 // transitions
	Cause LossCause

	LostConnections, LostTimeWaitEnds uint64 // records of these; known for CauseQueueFull only
}

// Stop is the last record.
type Stop struct {
	Time   time.Time
	Reason string
	Signal string // for the reason "signal"
	Counts
}
