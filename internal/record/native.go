package record

import (
	"bytes"
	"time"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// Native encodes each record as one line of JSON by the schema of docs/output.md. A
// value that is not known is left out. A Native must be used by one goroutine at a time.
type Native struct {
	seq    uint64
	labels []byte // encoded members, each with its leading comma
	origin []byte // the members host and boot_id, in the same way; empty: none
	sample uint64 // see [SamplingEncoder]; 0: none

	times  timeCache // of the member time
	opened timeCache // of the member opened, which mostly lies in an earlier second

	identities identityCache
	owners     ownerCache
	workloads  ownerCache // of connection and socket records, which have more of the owner
}

// NewNative returns an encoder that appends the labels, in their order, to every record.
func NewNative(labels []Label) *Native {
	var o object
	for _, l := range labels {
		o = o.string(l.Key, l.Value)
	}
	return &Native{labels: o.line}
}

// AddOrigin implements [OriginEncoder].
func (n *Native) AddOrigin(host, bootID string) {
	n.origin = originMembers("host", host, "boot_id", bootID)
}

// SetSample implements [SamplingEncoder].
func (n *Native) SetSample(oneIn uint64) { n.sample = oneIn }

// sampled appends the size of the sample that the socket is one of. Only an encoder with a sample
// calls it.
func (n *Native) sampled(o object, t *tcp.Transition) object {
	if t.SampleApplies() {
		return o.uint("sampled", n.sample)
	}
	return o
}

// begin appends the members that every record begins with: type, time and seq.
func (n *Native) begin(dst []byte, recordType string, at time.Time) object {
	dst = append(dst, `{"type":"`...)
	dst = append(dst, recordType...)
	dst = append(dst, `","time":"`...)
	dst = n.times.append(dst, at)
	dst = append(dst, '"')
	if n.seq != 0 {
		dst = appendSeq(dst, n.seq)
	}
	return object{dst}
}

// end appends the labels and returns the whole line.
func (n *Native) end(o object) []byte {
	o.line = append(o.line, n.origin...)
	return n.endStart(o)
}

// endStart is end for a record that has the members host and boot_id.
func (n *Native) endStart(o object) []byte {
	o.line = append(o.line, n.labels...)
	return append(o.line, "}\n"...)
}

// SetSeq implements [Encoder].
func (n *Native) SetSeq(seq uint64) { n.seq = seq }

// WithSeq implements [Encoder]. The member seq follows time. The first Z of a line ends
// the time, because no record type contains that letter.
func (n *Native) WithSeq(dst, line []byte, seq uint64) []byte {
	after := bytes.IndexByte(line, 'Z') + len(`Z"`)
	dst = append(dst, line[:after]...)
	dst = appendSeq(dst, seq)
	return append(dst, line[after:]...)
}

func appendSeq(dst []byte, seq uint64) []byte {
	return appendUint(append(dst, `,"seq":`...), seq)
}

// Start implements [Encoder].
func (n *Native) Start(dst []byte, r *Start) []byte {
	o := n.begin(dst, "start", r.Time).
		string("version", r.Version).
		literal("schema", SchemaVersion).
		stringIfSet("host", r.Host).
		stringIfSet("boot_id", r.BootID).
		stringIfSet("kernel", r.Kernel).
		literal("arch", r.Arch).
		uint("pid", uint64(r.PID)).
		features("features", r.Features)
	return n.endStart(o)
}

// features appends an object in which each feature is true, or the reason why it is off.
func (o object) features(key string, features []Feature) object {
	o.line = append(o.key(key), '{')
	for i, f := range features {
		if i > 0 {
			o.line = append(o.line, ',')
		}
		o.line = append(appendString(o.line, f.Name), ':')
		if f.OffReason == "" {
			o.line = append(o.line, "true"...)
		} else {
			o.line = appendString(o.line, f.OffReason)
		}
	}
	o.line = append(o.line, '}')
	return o
}

// Stats implements [Encoder].
func (n *Native) Stats(dst []byte, r *Stats) []byte {
	o := n.begin(dst, "stats", r.Time).
		counts("", &r.Counts)
	return n.end(o)
}

// counts appends prefix and name as the key of each count.
func (o object) counts(prefix string, c *Counts) object {
	for i, v := range c.values() {
		o = o.count(prefix, countNames[i], v)
	}
	if c.HasSelection {
		o = o.count(prefix, "dropped_connections", c.DroppedConnections)
	}
	if c.HasUpdates {
		o = o.count(prefix, "updates", c.Updates).
			count(prefix, "dropped_updates", c.DroppedUpdates).
			count(prefix, "lost_updates", c.LostUpdates).
			count(prefix, "missed_updates", c.MissedUpdates).
			count(prefix, "late_updates", c.LateUpdates)
	}
	if c.HasRecorder {
		o = o.count(prefix, "recorder_files", c.RecorderFiles).
			count(prefix, "lost_recorder", c.LostRecorder)
	}
	if c.HasSpool {
		o = o.count(prefix, "spooled_bytes", c.Spooled)
	}
	if c.SeededAfter != 0 {
		o = o.count(prefix, "seeded_after_ns", uint64(c.SeededAfter))
	}
	return o
}

// count appends prefix and name as the key of a count.
func (o object) count(prefix, name string, v uint64) object {
	o.line = append(append(o.line, `,"`...), prefix...)
	o.line = append(append(o.line, name...), `":`...)
	o.line = appendUint(o.line, v)
	return o
}

// countNames are the keys of [Counts.values].
var countNames = [...]string{
	"seen", "filtered", "lost_ring_full", "lost_ring_busy", "lost_reentry", "lost_queue_full", "deferred", "read", "dropped",
	"written", "written_bytes", "fired", "entered", "missed", "other_protocol", "connections", "lost_connections",
	"time_wait_unknown", "lost_resets", "cgroup_unknown", "time_wait_ends", "lost_time_wait_ends", "missed_time_wait_ends",
	"lost_alerts", "alerts_suppressed", "detection_left_out", "state_unavailable", "lost_summaries",
}

// values are the counts that are always written, in the order of countNames.
func (c *Counts) values() [len(countNames)]uint64 {
	return [...]uint64{
		c.Seen(), c.Filtered, c.LostRingFull, c.LostRingBusy, c.LostReentry, c.LostQueueFull, c.Deferred, c.Read, c.Dropped,
		c.Written, c.WrittenBytes, c.Fired, c.Entered, c.Missed, c.OtherProtocol, c.Connections, c.LostConnections,
		c.TimeWaitUnknown, c.LostResets, c.CgroupUnknown, c.TimeWaitEnds, c.TimeWaitEndsLostQueueFull, c.TimeWaitEndsLostKernel,
		c.LostAlerts, c.AlertsSuppressed, c.DetectionLeftOut, c.StateUnavailable, c.LostSummaries,
	}
}

// Loss implements [Encoder].
func (n *Native) Loss(dst []byte, r *Loss) []byte {
	o := n.begin(dst, "loss", r.Time).
		uint("lost", r.Lost).
		literal("cause", string(r.Cause)).
		literal("stage", r.Cause.stage())
	if r.Cause.atOutput() {
		o = o.uint("lost_connections", r.LostConnections).
			uint("lost_time_wait_ends", r.TimeWaitEndsLostQueueFull).
			uint("lost_alerts", r.LostAlerts).
			uint("lost_summaries", r.LostSummaries).
			uintIfSet("lost_updates", r.LostUpdates)
	}
	return n.end(o)
}

// Stop implements [Encoder].
func (n *Native) Stop(dst []byte, r *Stop) []byte {
	o := n.begin(dst, "stop", r.Time).
		literal("reason", r.Reason).
		literalIfSet("signal", r.Signal).
		counts("", &r.Counts)
	return n.end(o)
}
