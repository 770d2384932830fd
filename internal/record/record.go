// Package record encodes values as lines: NDJSON for programs, text for people. It is the
// only place that knows the schemas of docs/output.md and docs/schemas.md. It must not read
// clocks, write to files or talk to the kernel.
//
// record.go has the records that are made in user space, encoder.go the interface of a
// schema. Each schema is a set of files: native*.go is the schema of docs/output.md in
// NDJSON, ecs*.go Elastic Common Schema, otel*.go OpenTelemetry, mapped.go what these two have
// in common, and text*.go the columns for people. json.go appends members of a JSON object to
// a line. The files *_cache.go and digits.go are optimizations; each names the benchmark
// that shows what it is worth.
package record

import "time"

// SchemaVersion is the value of start.schema. An addition raises the second number, and a
// rename, a removal or a change of meaning the first.
const SchemaVersion = "1.0"

// Start is the first record of a stream. Every hook is attached when Start is
// written.
type Start struct {
	Time     time.Time
	Version  string // git describe
	Host     string // the host name; empty: not known
	BootID   string
	Kernel   string // uname -r
	Arch     string // GOARCH, such as amd64
	PID      int
	Features []Feature
}

// Feature is an optional ability of the tracer, which depends on the kernel.
type Feature struct {
	Name      string
	OffReason string // why the feature is off; empty: it is on
}

// Counts are the numbers of events since the start, by what became of them. In the stop
// record these equations hold exactly:
//
//	Fired    = Entered + Missed
//	Seen     = Fired − OtherProtocol
//	Seen     = Filtered + LostRingFull + LostRingBusy + LostReentry + Deferred + Read
//	Read     = Written + Dropped + LostQueueFull
//
// Until then they may differ by a few events, because some are still in flight and the
// counters are not read at one moment.
type Counts struct {
	Fired         uint64 // times that the tracepoint fired, for any protocol
	Entered       uint64 // firings that the primary program handled
	Missed        uint64 // firings that the primary program missed because it was running
	OtherProtocol uint64 // firings for a socket that is not TCP, such as MPTCP's own
	Filtered      uint64 // transitions that a filter excluded
	LostRingFull  uint64 // transitions for which the ring buffer had no room
	LostRingBusy  uint64 // transitions lost because another CPU held the ring buffer's lock
	LostReentry   uint64 // at most; see Lost
	LostQueueFull uint64 // transitions read and selected, but the output's queue, or its spool, was full
	Deferred      uint64 // transitions that wait now for their socket's next one (Linux up to 6.12)
	Read          uint64 // transitions that reached user space, or that the kernel programs left out because of --sample
	Dropped       uint64 // transitions that this output does not write: not selected, outside the sample, or beyond --count
	Written       uint64 // transition records written
	WrittenBytes  uint64 // bytes written, of all records

	Connections     uint64 // connection records written
	LostConnections uint64 // connection records not written because the queue was full
	TimeWaitUnknown uint64 // closes for which it is not known whether a timewait socket was created
	LostResets      uint64 // at most this many resets, sent or received, were missed by the programs or had no room
	// StateUnavailable is the number of transitions of sockets for which the kernel had no room to
	// keep a state: what is kept from one transition to the next, such as the owner, is not known.
	StateUnavailable uint64

	CgroupUnknown uint64 // transitions whose cgroup's path is not known

	// The end of a TIME_WAIT is not a firing of the tracepoint: no count of transitions
	// includes it.

	TimeWaitEnds              uint64 // ends written
	TimeWaitEndsLostQueueFull uint64 // lost in user space: ends read, but not written because the queue was full
	TimeWaitEndsLostKernel    uint64 // lost in the kernel: ends that the BPF programs did not emit, for lack of room or unseen

	LostSummaries    uint64 // summary records not written because the queue was full
	LostAlerts       uint64 // alert records not written because the queue and its reserve were full
	AlertsSuppressed uint64 // causes that had no alert because too many were open
	DetectionLeftOut uint64 // see detect.LeftOut

	// DroppedConnections is how many connections the output's selection left out. HasSelection is
	// false if it has none, or no connection records.
	DroppedConnections uint64
	HasSelection       bool

	// Of connection records of connections that live. HasUpdates is false if the output has none.

	Updates        uint64 // written
	DroppedUpdates uint64 // left out by the output's selection
	LostUpdates    uint64 // not written because the queue was full
	MissedUpdates  uint64 // not emitted in the kernel, because the ring buffer had little room
	LateUpdates    uint64 // rounds left out, because the one before took longer than the interval
	HasUpdates     bool

	// Of the flight recorder: files written, and events that were to be in a file and are in none. HasRecorder is
	// false if there is none.
	RecorderFiles, LostRecorder uint64
	HasRecorder                 bool

	// Spooled is how many bytes the output's spool has on disk. HasSpool is false if it has no spool.
	Spooled  uint64
	HasSpool bool

	// SeededAfter is how long after the start detection had read the sockets that existed
	// before; 0: it has not, or there is no detection.
	SeededAfter time.Duration
}

// Seen returns the number of TCP transitions that the kernel made. It returns 0 if
// OtherProtocol exceeds Fired, which is possible because the two are not read at once.
func (c *Counts) Seen() uint64 {
	return c.Fired - min(c.Fired, c.OtherProtocol)
}

// Lost returns the number of transitions that should have been written and were not. The
// true number is at most this: LostReentry counts firings while every program of the tracer was
// already running on that CPU. No program saw them, so it is unknown whether they were TCP or
// would have passed the filter.
func (c *Counts) Lost() uint64 {
	return c.LostRingFull + c.LostRingBusy + c.LostReentry + c.LostQueueFull
}

// Stats reports the counts so far.
type Stats struct {
	Time time.Time
	Counts
}

// LossCause is the reason why events were lost.
type LossCause string

// The causes, by the place of the loss: in the kernel, at the output, at the reader.
const (
	CauseRingFull LossCause = "ring_full" // tcpshift reads too slowly, or the ring buffer is too small
	CauseRingBusy LossCause = "ring_busy" // another CPU held the ring buffer's lock
	CauseReentry  LossCause = "reentry"   // the event came while every program of the tracer was already running on that CPU

	CauseQueueFull LossCause = "queue_full" // the reader of the output stalled, and the queue was full
	CauseSpoolFull LossCause = "spool_full" // the reader of the output stalled, and its spool was full or the disk did not take lines

	// CauseRejected means that the reader refused records of any type for good. Loss.Lost is the number of
	// these records, which also count as written.
	CauseRejected LossCause = "rejected"
)

// atOutput reports whether records are lost for this cause, not events in the kernel.
func (c LossCause) atOutput() bool { return c == CauseQueueFull || c == CauseSpoolFull }

// stage returns where events or records are lost for this cause: kernel, output or reader.
func (c LossCause) stage() string {
	if c == CauseRejected {
		return "reader"
	}
	if c.atOutput() {
		return "output"
	}
	return "kernel"
}

// Loss reports that records are missing from the stream near here.
type Loss struct {
	Time  time.Time
	Lost  uint64 // transitions; of CauseRejected, records
	Cause LossCause

	// Records of other types that are missing; known only for the causes at the output.
	LostConnections, TimeWaitEndsLostQueueFull, LostAlerts, LostSummaries, LostUpdates uint64
}

// Stop is the last record of a stream.
type Stop struct {
	Time   time.Time
	Reason string
	Signal string // set if Reason is "signal"
	Counts
}
