package record

import (
	"github.com/tcpshift/tcpshift/internal/detect"
	"github.com/tcpshift/tcpshift/internal/summary"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// MaxLine bounds a line of [Native], in bytes, its newline included.
const MaxLine = 4096

// ProcessType is the one type that a stream has only if it is selected.
const ProcessType = "process"

// SelectableTypes returns the types of record that --only can select. start, reload and stop are
// not among them: records of these types are always written.
func SelectableTypes() []string {
	return []string{"transition", "connection", "alert", "summary", ProcessType, "stats", "loss"}
}

// Encoder encodes records in one format. Each method that is named for a record appends that record to
// dst as whole lines and returns the extended slice.
//
// The sequence number of a record belongs to the output, not to the record. An output that has an
// encoder for itself calls SetSeq before it encodes a record. Outputs that share an encoder share the
// lines, encoded without a number; each output adds its own number with WithSeq. SetSeq and WithSeq
// produce equal lines for equal numbers. WithSeq copies the line, which costs about 23 ns per transition in
// BenchmarkTrace.
type Encoder interface {
	// SetSeq sets the number of the next record, from 1. It stays until it is set again.
	// With 0, the initial value, records are encoded without a number.
	SetSeq(seq uint64)
	// WithSeq appends line, which was encoded without a number, to dst and inserts seq
	// where the schema has it. line must not overlap the free capacity of dst.
	WithSeq(dst, line []byte, seq uint64) []byte

	Start(dst []byte, r *Start) []byte
	Transition(dst []byte, t *tcp.Transition) []byte
	// Connection takes the last transition of the socket as well.
	Connection(dst []byte, last *tcp.Transition, c *tcp.Connection) []byte
	Alert(dst []byte, a *detect.Alert) []byte
	Summary(dst []byte, r *summary.Row) []byte
	Process(dst []byte, r *Process) []byte
	Stats(dst []byte, r *Stats) []byte
	Loss(dst []byte, r *Loss) []byte
	Reload(dst []byte, r *Reload) []byte
	Stop(dst []byte, r *Stop) []byte
}
