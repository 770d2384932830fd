package trace

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tcpshift/tcpshift/internal/decode"
	"github.com/tcpshift/tcpshift/internal/detect"
	"github.com/tcpshift/tcpshift/internal/flight"
	"github.com/tcpshift/tcpshift/internal/output"
	"github.com/tcpshift/tcpshift/internal/record"
	"github.com/tcpshift/tcpshift/internal/selection"
	"github.com/tcpshift/tcpshift/internal/summary"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// Output is one output of a run.
type Output struct {
	// Name is what messages for the operator call the output; empty: it is the only one.
	Name string
	Sink output.Sink
	// MetricsName is the output's name in Config.Metrics.
	MetricsName string
	// Encoder is the output's own, or is shared: outputs with equal encoders have equal lines,
	// which are encoded once.
	Encoder record.Encoder
	Only    []string // record types besides start and stop; nil: all but record.ProcessType
	// Selection is what the output writes of these types; nil: everything.
	Selection *selection.Selection
}

// outputs are the outputs of a run that have not failed. An output that fails ends; the run ends
// with its last output. No output waits for another.
type outputs struct {
	writers []*recordWriter
	shared  []*sharedLines
	totals  totals

	failures []error // of outputs that have failed, without output.ErrReaderGone
	ending   bool    // drain has begun: the run returns the failures soon, so the operator gets no message
	notify   func(message string)

	owners         *owners // for the outputs whose schema describes the owner on every record; nil: there are none
	connections    bool    // an output has connection records
	summary        Summary // nil: none
	ends           []endObserver
	limit, counted uint64 // transitions after which the run ends, before any selection; 0: no limit
}

// totals are the counts of a run that are the same for all outputs.
type totals struct {
	kernel kernelLedger
	flight *flight.Recorder // nil: none

	// See record.Counts.
	seededAfter      time.Duration
	alertsSuppressed uint64
	leftOut          uint64
	earlier          struct{ alertsSuppressed, leftOut uint64 } // of monitors that reloads have replaced
	cgroupUnknown    uint64
	lateUpdates      uint64   // rounds of updates
	earlyEnds        uint64   // ends that did not wait for a reset, for lack of room: see LostResets
	leftOutOf        []string // the tables that the operator has been notified of
}

func newOutputs(cfg *Config) *outputs {
	o := &outputs{limit: cfg.Count, notify: cfg.Notify, summary: cfg.Summary, ends: cfg.endObservers()}
	if o.notify == nil {
		o.notify = func(string) {}
	}
	o.assemble(cfg, func(out *Output) *recordWriter { return newRecordWriter(cfg, out, &o.totals, o.notify) })
	return o
}

// assemble sets the writers of all outputs of cfg. writerOf returns that of one output.
func (o *outputs) assemble(cfg *Config, writerOf func(out *Output) *recordWriter) {
	o.writers, o.shared, o.connections = nil, nil, false
	uses := make(map[record.Encoder]int)
	for i := range cfg.Outputs {
		uses[cfg.Outputs[i].Encoder]++
	}
	byEncoder := make(map[record.Encoder]*sharedLines)
	for i := range cfg.Outputs {
		w := writerOf(&cfg.Outputs[i])
		if uses[w.encoder] > 1 {
			if byEncoder[w.encoder] == nil {
				byEncoder[w.encoder] = &sharedLines{encoder: w.encoder}
				o.shared = append(o.shared, byEncoder[w.encoder])
			}
			w.shared = byEncoder[w.encoder]
		}
		o.connections = o.connections || w.connections
		o.writers = append(o.writers, w)
	}
}

// event writes the records of one event to each output. It returns errCountReached with the last
// transition of the limit, or the error of the last output.
func (o *outputs) event(e *decode.Event) error {
	done, failed := o.countReached(), false
	if len(o.ends) > 0 && e.Kind == decode.KindEnd && !done {
		for _, observer := range o.ends {
			observer.Add(&e.Transition, &e.Connection)
		}
	}
	o.begin(e)
	for _, w := range o.writers {
		if err := w.event(e, done); err != nil {
			w.err, failed = err, true
		}
	}
	if failed {
		if err := o.each((*recordWriter).failure); err != nil {
			return err
		}
	}
	if o.limit == 0 || done || e.Transition.IsTimeWaitEnd() {
		return nil
	}
	if o.counted++; o.counted == o.limit {
		return errCountReached
	}
	return nil
}

// update writes the record of a connection that lives to each output. It returns the error of the last output.
func (o *outputs) update(e *decode.Event) error {
	if o.countReached() {
		return nil
	}
	o.begin(e)
	return o.each(func(w *recordWriter) error { return w.update(e) })
}

// begin prepares the records of an event.
func (o *outputs) begin(e *decode.Event) {
	for _, s := range o.shared {
		s.begin()
	}
	if o.owners != nil {
		o.owners.describeOwner(&e.Transition)
	}
}

// connection writes the record of a connection that has ended to each output, without its last transition. It returns
// the error of the last output.
func (o *outputs) connection(e *decode.Event) error {
	for _, observer := range o.ends {
		observer.Add(&e.Transition, &e.Connection)
	}
	o.begin(e)
	return o.each(func(w *recordWriter) error {
		if w.connections {
			w.connection(e, w.stream.Stalled())
		}
		return w.stream.FlushBatch()
	})
}

// drop counts a transition that no output gets.
func (o *outputs) drop(t *tcp.Transition) {
	for _, w := range o.writers {
		w.account.record(t, dropped)
	}
}

func (o *outputs) countReached() bool { return o.limit > 0 && o.counted == o.limit }

// each calls f for each output, and ends those for which it fails. It returns the error of the last
// output.
func (o *outputs) each(f func(w *recordWriter) error) error {
	for _, w := range slices.Clone(o.writers) {
		if err := f(w); err != nil {
			if err := o.end(w, err); err != nil {
				return err
			}
		}
	}
	return nil
}

// end ends an output that has failed with err. It returns the error if no output is left.
func (o *outputs) end(w *recordWriter, err error) error {
	o.writers = slices.DeleteFunc(o.writers, func(each *recordWriter) bool { return each == w })
	if w.name != "" {
		err = fmt.Errorf("%s: %w", w.name, err)
	}
	if len(o.writers) == 0 {
		return err
	}
	if !o.ending {
		o.notify(err.Error() + ": this output gets no more records")
	}
	if !errors.Is(err, output.ErrReaderGone) {
		o.failures = append(o.failures, err)
	}
	return nil
}

func (o *outputs) start(at time.Time) error {
	return o.each(func(w *recordWriter) error {
		w.start(at)
		return w.stream.Flush()
	})
}

// endTurn writes the stats that are due, passes on what the turn has written, and ends the outputs whose
// readers are gone.
func (o *outputs) endTurn() error {
	return o.each(func(w *recordWriter) error {
		if w.statsDue() && !w.stream.Stalled() {
			w.periodicStats()
		}
		if err := w.stream.Flush(); err != nil {
			return err
		}
		if w.stream.ReaderGone() {
			return output.ErrReaderGone
		}
		return nil
	})
}

// stalled reports whether the reader of an output has stalled.
func (o *outputs) stalled() bool {
	return slices.ContainsFunc(o.writers, func(w *recordWriter) bool { return w.stream.Stalled() })
}

// wantCounters reports whether an output can report the kernel's counters, or has to.
func (o *outputs) wantCounters() bool {
	return slices.ContainsFunc(o.writers, func(w *recordWriter) bool { return !w.stream.Stalled() || w.statsDue() })
}

// untilStats is the time until an output writes stats, at most limit; negative if they are late.
func (o *outputs) untilStats(limit time.Duration) time.Duration {
	for _, w := range o.writers {
		if w.interval > 0 {
			limit = min(limit, time.Until(w.nextStats))
		}
	}
	return limit
}

// losses writes what is lost and not yet reported. It leaves out outputs that have stalled, unless all is true.
func (o *outputs) losses(all bool) {
	for _, w := range o.writers {
		if all || !w.stream.Stalled() {
			w.losses()
		}
	}
}

func (o *outputs) alert(a *detect.Alert) {
	if o.owners != nil {
		o.owners.describeCulprit(a)
	}
	for _, w := range o.writers {
		w.alert(a)
	}
}

// summaries writes rows to the outputs that select them. It returns the error of the last output.
func (o *outputs) summaries(rows []summary.Row) error {
	for i := range rows {
		if err := o.each(func(w *recordWriter) error { return w.summary(&rows[i]) }); err != nil {
			return err
		}
	}
	return nil
}

// untilSummary is the time until rows of the summary are due, at most limit.
func (o *outputs) untilSummary(limit time.Duration) time.Duration {
	if o.summary == nil {
		return limit
	}
	return min(limit, time.Until(o.summary.Due()))
}

// keepDetection keeps the counts of detection as earlier ones, because the next monitor counts from 0.
func (t *totals) keepDetection() {
	t.earlier.alertsSuppressed, t.earlier.leftOut = t.alertsSuppressed, t.leftOut
}

// detection takes over the counts of detection. It notifies the operator once of each table that is full.
func (o *outputs) detection(m Monitor) {
	t := &o.totals
	t.seededAfter, t.alertsSuppressed = m.SeededAfter(), t.earlier.alertsSuppressed+m.AlertsSuppressed()
	left := m.LeftOut()
	if t.leftOut == t.earlier.leftOut+left.Total() {
		return
	}
	t.leftOut = t.earlier.leftOut + left.Total()
	for _, table := range left.Tables() {
		if !slices.Contains(t.leftOutOf, table) {
			t.leftOutOf = append(t.leftOutOf, table)
			o.notify("detection has more " + table + " than it has room for: the busiest of each user stay; see detection_left_out in stats")
		}
	}
}

// drain passes on all lines and waits until each output has written them, or is abandoned. It calls
// appendLast for each output as soon as that has written its lines; nil: there is nothing to append. It
// returns the error of the last output.
func (o *outputs) drain(appendLast func(w *recordWriter)) error {
	o.ending = true
	last := o.each(func(w *recordWriter) error { return w.stream.Flush() })
	drained := make(chan *recordWriter, len(o.writers))
	for _, w := range o.writers {
		go func() {
			w.err = w.stream.Drain()
			drained <- w
		}()
	}
	for range len(o.writers) {
		w := <-drained
		if w.err == nil && appendLast != nil {
			appendLast(w)
			w.err = w.stream.Flush()
		}
		if w.err != nil {
			if err := o.end(w, w.err); err != nil {
				last = err
			}
		}
	}
	return last
}
