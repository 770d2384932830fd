package trace

import (
	"fmt"
	"time"

	"github.com/tcpshift/tcpshift/internal/decode"
	"github.com/tcpshift/tcpshift/internal/detect"
	"github.com/tcpshift/tcpshift/internal/output"
	"github.com/tcpshift/tcpshift/internal/record"
	"github.com/tcpshift/tcpshift/internal/selection"
	"github.com/tcpshift/tcpshift/internal/summary"
)

// recordWriter writes the records of one output: it has the output's choice of record
// types, its sequence numbers, its account and its stats interval.
type recordWriter struct {
	name        string // see Output
	metricsName string // see Output
	sink        output.Sink
	stream      *output.Stream
	encoder     record.Encoder
	shared      *sharedLines // nil: no other output has this encoder
	header      *record.Start
	seq         uint64 // of the last record
	account     account
	totals      *totals
	notify      func(message string)
	err         error // why the output ends; nil: it does not

	selected                 map[string]bool // record types; nil: all but process
	transitions, connections bool            // selected

	owners     *owners // nil: no process records
	ownerIndex int     // of the output, in owners
	epoch      uint64  // from 1; with each one processes are described again
	namesAll   bool    // process records are the only ones about connections: all events name owners

	interval  time.Duration // of stats; 0: none
	nextStats time.Time

	selection  *selection.Selection // of the records of the selected types; nil: all
	alerts     bool                 // selected
	summaries  bool                 // selected
	updates    bool                 // connections have them
	openAlerts map[string]bool      // written and not closed, by id; only if selection selects by names
}

func newRecordWriter(cfg *Config, o *Output, t *totals, notify func(message string)) *recordWriter {
	w := &recordWriter{sink: o.Sink, header: &cfg.Start, totals: t}
	var ring output.Ring // nil: waiting for this output would delay the others
	if len(cfg.Outputs) == 1 {
		ring = cfg.Source
	}
	w.stream = output.NewStream(o.Sink, ring, w.losses)
	if _, hasSpool := w.stream.Spooled(); hasSpool {
		w.account.fullCause = record.CauseSpoolFull
	}
	w.configure(cfg, o, notify)
	return w
}

// configure sets what the output writes, and how.
func (w *recordWriter) configure(cfg *Config, o *Output, notify func(message string)) {
	w.metricsName = o.MetricsName
	w.name, w.encoder, w.shared, w.interval, w.selection = o.Name, o.Encoder, nil, cfg.StatsInterval, o.Selection
	w.notify = notify
	if w.name != "" {
		w.notify = func(message string) { notify(o.Name + ": " + message) }
	}
	w.selected = nil
	if o.Only != nil {
		w.selected = make(map[string]bool)
		for _, t := range o.Only {
			w.selected[t] = true
		}
	}
	if !w.connections && w.selects("connection") {
		w.account.unsampledBefore = w.totals.kernel.total.UnsampledEnds
	}
	w.transitions, w.connections, w.alerts = w.selects("transition"), w.selects("connection"), w.selects("alert")
	if w.selection == nil || !w.selection.ByNames() {
		w.openAlerts = nil
	} else if w.openAlerts == nil {
		w.openAlerts = make(map[string]bool)
	}
	w.summaries = w.selects("summary")
	w.owners, w.namesAll = nil, false
	w.updates = cfg.Updates != nil && w.connections
}

func (w *recordWriter) failure() error { return w.err }

func (w *recordWriter) selects(recordType string) bool {
	return w.selected == nil || w.selected[recordType]
}

// numbered returns the encoder, set to the number of the next record.
func (w *recordWriter) numbered() record.Encoder {
	w.seq++
	w.encoder.SetSeq(w.seq)
	return w.encoder
}

func (w *recordWriter) start(at time.Time) {
	w.nextStats = at.Add(w.interval)
	w.header.Time = at
	w.stream.Lines = w.numbered().Start(w.stream.Lines, w.header)
}

// event writes the records of one event, or counts them as lost or dropped. done means that the
// last transition of the run's limit came before.
func (w *recordWriter) event(e *decode.Event, done bool) error {
	stalled := w.stream.Stalled()
	d := w.disposition(stalled, done)
	if w.selection != nil && !w.selection.Transition(&e.Transition) {
		d = dropped
	}
	if d == written {
		w.transition(e)
	}
	w.account.record(&e.Transition, d)
	named := d == written
	if e.Kind == decode.KindEnd && w.connections && !done {
		named = w.connection(e, stalled) || named
	}
	if w.owners != nil && (named || w.namesAll && !done) {
		w.nameOwner(&e.Transition)
	}
	return w.stream.FlushBatch()
}

// disposition decides what becomes of the next transition, if it is selected. done is that of event.
func (w *recordWriter) disposition(stalled, done bool) disposition {
	switch {
	case !w.transitions || done:
		return dropped
	case stalled:
		return lostQueueFull
	}
	return written
}

// selectsAlert follows an alert through its phases: a later one may name another service. What has
// been written of an alert is written to its close.
func (w *recordWriter) selectsAlert(a *detect.Alert) bool {
	if !w.alerts || w.openAlerts == nil {
		return w.alerts
	}
	if !w.openAlerts[a.ID] && !w.selection.Alert(a) {
		return false
	}
	if a.Phase == detect.Close {
		delete(w.openAlerts, a.ID)
	} else {
		w.openAlerts[a.ID] = true
	}
	return true
}

func (w *recordWriter) transition(e *decode.Event) {
	if w.shared != nil {
		w.seq++
		w.stream.Lines = w.encoder.WithSeq(w.stream.Lines, w.shared.transitionOf(e), w.seq)
		return
	}
	w.stream.Lines = w.numbered().Transition(w.stream.Lines, &e.Transition)
}

// update writes the connection record of a connection that lives, or counts it as lost or dropped.
func (w *recordWriter) update(e *decode.Event) error {
	switch {
	case !w.connections:
		return nil
	case w.selection != nil && !w.selection.Connection(&e.Transition, &e.Connection):
		w.account.droppedUpdates++
		return nil
	case w.stream.Stalled():
		w.account.lostUpdates++
		return nil
	}
	w.account.updates++
	w.writeConnection(e)
	if w.owners != nil {
		w.nameOwner(&e.Transition)
	}
	return w.stream.FlushBatch()
}

// connection writes the connection record of an end, unless the selection leaves it out or the output has stalled.
func (w *recordWriter) connection(e *decode.Event, stalled bool) (isWritten bool) {
	if w.selection != nil && !w.selection.Connection(&e.Transition, &e.Connection) {
		w.account.droppedConnections++
		return false
	}
	if stalled {
		w.account.lostConnections++
		return false
	}
	w.account.connections++
	w.writeConnection(e)
	return true
}

func (w *recordWriter) writeConnection(e *decode.Event) {
	if w.shared != nil {
		w.seq++
		w.stream.Lines = w.encoder.WithSeq(w.stream.Lines, w.shared.connectionOf(e), w.seq)
		return
	}
	w.stream.Lines = w.numbered().Connection(w.stream.Lines, &e.Transition, &e.Connection)
}

// alert writes an alert even if the output has stalled, unless its reserve is used up. The
// operator is notified of the first alert that is lost then.
func (w *recordWriter) alert(a *detect.Alert) {
	if !w.selectsAlert(a) {
		return
	}
	if !w.stream.HasRoom() {
		if w.account.lostAlerts == w.account.reported.queueFullAlerts {
			w.notify("the reader of the output, or its disk, does not take records: alerts are lost from now on")
		}
		w.account.lostAlerts++
		return
	}
	w.stream.Lines = w.numbered().Alert(w.stream.Lines, a)
	if w.owners != nil {
		w.nameCulprit(a)
	}
}

// summary writes a row, or counts it as lost.
func (w *recordWriter) summary(r *summary.Row) error {
	switch {
	case !w.summaries:
		return nil
	case w.stream.Stalled():
		w.account.lostSummaries++
		return nil
	}
	w.stream.Lines = w.numbered().Summary(w.stream.Lines, r)
	return w.stream.FlushBatch()
}

// losses writes what has been lost and not yet reported, one record per cause. It notifies the operator of the
// number of lost alerts.
func (w *recordWriter) losses() {
	if lost := w.account.lostAlerts - w.account.reported.queueFullAlerts; lost > 0 {
		w.notify(fmt.Sprintf("alerts lost since then: %d", lost))
	}
	w.account.rejected = w.stream.Rejected()
	for _, loss := range w.account.unreported(&w.totals.kernel) {
		if w.selects("loss") {
			loss.Time = time.Now()
			w.stream.Lines = w.numbered().Loss(w.stream.Lines, &loss)
		}
	}
}

func (w *recordWriter) statsDue() bool {
	return w.interval > 0 && !time.Now().Before(w.nextStats)
}

// periodicStats writes one stats record, however many were due during a stall.
func (w *recordWriter) periodicStats() {
	now := time.Now()
	w.nextStats = w.nextStats.Add(w.interval)
	if !w.nextStats.After(now) {
		w.nextStats = now.Add(w.interval)
	}
	w.stats()
}

func (w *recordWriter) stats() {
	if w.selects("stats") {
		r := record.Stats{Time: time.Now(), Counts: w.counts()}
		w.stream.Lines = w.numbered().Stats(w.stream.Lines, &r)
	}
}

// stop writes the last record. signal is empty unless a signal was the reason.
func (w *recordWriter) stop(reason, signal string) {
	r := record.Stop{Time: time.Now(), Reason: reason, Signal: signal, Counts: w.counts()}
	w.stream.Lines = w.numbered().Stop(w.stream.Lines, &r)
}

func (w *recordWriter) counts() record.Counts {
	t := w.totals
	c := w.account.counts(&t.kernel)
	c.WrittenBytes = w.stream.Written()
	unsampled := t.kernel.total.UnsampledEnds - w.account.unsampledBefore
	c.DroppedConnections, c.HasSelection = w.account.droppedConnections+unsampled, w.selection != nil && w.connections
	c.Spooled, c.HasSpool = w.stream.Spooled()
	c.SeededAfter, c.AlertsSuppressed, c.DetectionLeftOut = t.seededAfter, t.alertsSuppressed, t.leftOut
	c.CgroupUnknown = t.cgroupUnknown
	if c.HasRecorder = t.flight != nil; c.HasRecorder {
		c.RecorderFiles, c.LostRecorder = t.flight.Files(), t.flight.Lost()
	}
	c.LateUpdates, c.HasUpdates = t.lateUpdates, w.updates
	c.LostResets += t.earlyEnds
	return c
}
