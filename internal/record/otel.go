package record

import (
	"bytes"
	"time"

	"github.com/tcpshift/tcpshift/internal/detect"
)

// OTel encodes each record as one line of JSON in the shape of OpenTelemetry's log data model:
// timestamp, severity, event name, for an alert the body, and an object of attributes by the
// semantic conventions. What these have no attribute for has the native key after "tcpshift.".
// A value that is not known is left out. An OTel must be used by one goroutine at a time.
type OTel struct{ mappedEncoder }

// NewOTel returns an encoder that adds the labels, in their order, to the attributes of every
// record.
func NewOTel(labels []Label) *OTel { return &OTel{newMapped(labels)} }

// The severity and the event name of each type. The numbers are those of the log data model:
// 9 is INFO, 13 WARN, and 18, ERROR2, stands for the syslog severity "critical".
const (
	otelStart       = otelInfo + `start"`
	otelTransition  = otelInfo + `transition"`
	otelConnection  = otelInfo + `connection"`
	otelSocket      = otelInfo + `socket"`
	otelSummary     = otelInfo + `summary"`
	otelSocketCount = otelInfo + `socket_count"`
	otelStats       = otelInfo + `stats"`
	otelStop        = otelInfo + `stop"`
	otelLoss        = otelWarning + `loss"`
	otelProcess     = otelInfo + `process"`

	otelInfo     = `,"severity_number":9,"severity_text":"info","event_name":"tcpshift.`
	otelWarning  = `,"severity_number":13,"severity_text":"warning","event_name":"tcpshift.`
	otelCritical = `,"severity_number":18,"severity_text":"critical","event_name":"tcpshift.`

	otelAttributes = `,"attributes":`
)

// begin appends the members that every record begins with. The member attributes lacks its
// opening brace, which end writes.
func (e *OTel) begin(dst []byte, at time.Time, about string) object {
	return e.attributes(object{append(e.timestamp(dst, at), about...)})
}

func (e *OTel) timestamp(dst []byte, at time.Time) []byte {
	dst = append(dst, `{"timestamp":"`...)
	dst = e.times.append(dst, at)
	return append(dst, '"')
}

func (e *OTel) attributes(o object) object {
	o.line = append(o.line, otelAttributes...)
	if e.seq != 0 {
		o.line = appendOTelSequence(o.line, e.seq)
	}
	return o
}

// AddOrigin implements [OriginEncoder].
func (e *OTel) AddOrigin(host, bootID string) {
	e.origin = originMembers("host.name", host, "tcpshift.boot_id", bootID)
}

// end appends the origin, the labels and the closing braces. before is the length of dst, as for endStart.
func (e *OTel) end(o object, before int) []byte {
	o.line = append(o.line, e.origin...)
	return e.endStart(o, before)
}

// endStart is end for a record that has the members of the origin. before is the length of dst: the comma
// before the first attribute becomes the brace that opens the object.
func (e *OTel) endStart(o object, before int) []byte {
	o.line = append(o.line, e.labels...)
	o.line[before+attributesAt(o.line[before:])] = '{'
	return append(o.line, "}}\n"...)
}

// attributesAt returns where the value of attributes begins in the line. No string before it can
// contain the key, because quotes in a string are escaped.
func attributesAt(line []byte) int {
	return bytes.Index(line, []byte(otelAttributes)) + len(otelAttributes)
}

// WithSeq implements [Encoder]. The number is the first attribute.
func (e *OTel) WithSeq(dst, line []byte, seq uint64) []byte {
	at := attributesAt(line)
	dst = append(dst, line[:at]...)
	first := len(dst)
	dst = appendOTelSequence(dst, seq)
	dst[first] = '{'
	if line[at+1] != '}' { // another attribute
		dst = append(dst, ',')
	}
	return append(dst, line[at+1:]...)
}

func appendOTelSequence(dst []byte, seq uint64) []byte {
	return appendUint(append(dst, `,"tcpshift.seq":`...), seq)
}

// Start implements [Encoder].
func (e *OTel) Start(dst []byte, r *Start) []byte {
	o := e.begin(dst, r.Time, otelStart).
		literal("service.name", "tcpshift").
		string("service.version", r.Version).
		literal("tcpshift.schema", SchemaVersion).
		stringIfSet("host.name", r.Host).
		stringIfSet("tcpshift.boot_id", r.BootID).
		literal("os.type", "linux").
		stringIfSet("tcpshift.kernel", r.Kernel).
		literal("host.arch", r.Arch).
		uint("process.pid", uint64(r.PID)).
		ownFeatures(r.Features)
	return e.endStart(o, len(dst))
}

// Alert implements [Encoder].
func (e *OTel) Alert(dst []byte, a *detect.Alert) []byte {
	about := otelWarning
	if a.Severity == detect.Critical {
		about = otelCritical
	}
	o := object{append(e.timestamp(dst, a.Time), about...)}
	o.line = append(o.line, `alert"`...)
	o = e.attributes(o.string("body", clip(a.Cause, maxAlertCause))).
		literal("tcpshift.kind", a.Kind).
		literal("tcpshift.phase", string(a.Phase))
	if c := &a.Culprit; c.Known {
		o = o.string("tcpshift.service", c.Service)
		if c.PID != 0 {
			o = o.uint("process.pid", uint64(c.PID))
		}
		o = o.bytes("process.title", c.Comm.Bytes())
		var cut bool
		o, cut = o.otelProcess(c.Process)
		o = o.processUser(c.Process, "process.owner").
			otelCgroup(c.Cgroup).
			truncatedIf(cut, c.Cgroup)
	}
	o = o.otelEndpoints(a.Local, a.Peer).
		uint("tcpshift.lasted_ns", uint64(a.Lasted)).
		ownCulprit(&a.Culprit).
		ownFinding(a)
	return e.end(o, len(dst))
}

// Stats implements [Encoder].
func (e *OTel) Stats(dst []byte, r *Stats) []byte {
	return e.end(e.begin(dst, r.Time, otelStats).counts(ownPrefix, &r.Counts), len(dst))
}

// Loss implements [Encoder].
func (e *OTel) Loss(dst []byte, r *Loss) []byte {
	o := e.begin(dst, r.Time, otelLoss).
		literal("tcpshift.cause", string(r.Cause)).
		ownLoss(r)
	return e.end(o, len(dst))
}

// Stop implements [Encoder].
func (e *OTel) Stop(dst []byte, r *Stop) []byte {
	o := e.begin(dst, r.Time, otelStop).
		literal("tcpshift.reason", r.Reason).
		literalIfSet("tcpshift.signal", r.Signal).
		counts(ownPrefix, &r.Counts)
	return e.end(o, len(dst))
}
