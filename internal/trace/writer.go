package trace

import (
	"fmt"
	"slices"
	"time"

	"github.com/tcpshift/tcpshift/internal/decode"
	"github.com/tcpshift/tcpshift/internal/detect"
	"github.com/tcpshift/tcpshift/internal/output"
	"github.com/tcpshift/tcpshift/internal/record"
)

// recordWriter writes the records of one output: it has the output's choice of record
// types, its sequence numbers, its account and its stats interval.
type recordWriter struct {
	stream  *output.Stream
	encoder record.Encoder
	header  *record.Start
	seq     uint64 // of the last record
	account account
	kernel  *kernelLedger
	notify  func(message string)

	selected                 map[string]bool // record types; nil: all
	transitions, connections bool            // selected
	limit                    uint64          // transitions to write; 0: no limit

	interval  time.Duration // of stats; 0: none
	nextStats time.Time

	// See record.Counts.
	seededAfter      time.Duration
	alertsSuppressed uint64
	leftOut          uint64
	cgroupUnknown    uint64
	earlyEnds        uint64   // ends that did not wait for a reset, for lack of room: see LostResets
	leftOutOf        []string // the tables that the operator knows of
}

func newRecordWriter(cfg *Config, kernel *kernelLedger) *recordWriter {
	w := &recordWriter{encoder: cfg.Encoder, header: &cfg.Start, kernel: kernel, limit: cfg.Count, interval: cfg.StatsInterval, notify: cfg.Notify}
	if w.notify == nil {
		w.notify = func(string) {}
	}
	w.stream = output.NewStream(cfg.Sink, cfg.Source, w.losses)
	if cfg.Only != nil {
		w.selected = make(map[string]bool)
		for _, t := range cfg.Only {
			w.selected[t] = true
		}
	}
	w.transitions, w.connections = w.selects("transition"), w.selects("connection")
	return w
}

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

// event writes the records of one event, or counts them as lost or dropped. It returns
// errCountReached with the last transition of the limit.
func (w *recordWriter) event(e *decode.Event) error {
	done := w.limitReached()
	stalled := w.stream.Stalled()
	d := w.disposition(stalled)
	if d == written {
		w.stream.Lines = w.numbered().Transition(w.stream.Lines, &e.Transition)
	}
	w.account.record(&e.Transition, d)
	if e.Kind == decode.KindEnd && w.connections && !done {
		w.connection(e, stalled)
	}
	if err := w.stream.FlushBatch(); err != nil {
		return err
	}
	if w.limitReached() && !done {
		return errCountReached
	}
	return nil
}

// disposition decides about the next transition.
func (w *recordWriter) disposition(stalled bool) disposition {
	switch {
	case !w.transitions || w.limitReached():
		return dropped
	case stalled:
		return lostQueueFull
	}
	return written
}

func (w *recordWriter) connection(e *decode.Event, stalled bool) {
	if stalled {
		w.account.lostConnections++
		return
	}
	w.stream.Lines = w.numbered().Connection(w.stream.Lines, &e.Transition, &e.Connection)
	w.account.connections++
}

func (w *recordWriter) limitReached() bool {
	return w.limit > 0 && w.account.written == w.limit
}

// alert writes an alert even if the output has stalled, unless its reserve is used up. The
// operator is notified of the first alert that is lost then.
func (w *recordWriter) alert(a *detect.Alert) {
	if !w.stream.HasRoom() {
		if w.account.lostAlerts == w.account.reported.queueFullAlerts {
			w.notify("the reader of the output, or its disk, does not take records: alerts are lost from now on")
		}
		w.account.lostAlerts++
		return
	}
	w.stream.Lines = w.numbered().Alert(w.stream.Lines, a)
}

// losses writes what has been lost and not yet reported, one record per cause.
func (w *recordWriter) losses() {
	if lost := w.account.lostAlerts - w.account.reported.queueFullAlerts; lost > 0 {
		w.notify(fmt.Sprintf("alerts lost since then: %d", lost))
	}
	for _, loss := range w.account.unreported(w.kernel) {
		if w.selects("loss") {
			loss.Time = time.Now()
			w.stream.Lines = w.numbered().Loss(w.stream.Lines, &loss)
		}
	}
}

// detection takes the counts of detection. The operator gets one message for each table that is
// full for the first time.
func (w *recordWriter) detection(m Monitor) {
	w.alertsSuppressed = m.AlertsSuppressed()
	left := m.LeftOut()
	if w.leftOut == left.Total() {
		return
	}
	w.leftOut = left.Total()
	for _, table := range left.Tables() {
		if !slices.Contains(w.leftOutOf, table) {
			w.leftOutOf = append(w.leftOutOf, table)
			w.notify("detection has more " + table + " than it has room for: the busiest of each user stay; see detection_left_out in stats")
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
	c := w.account.counts(w.kernel)
	c.WrittenBytes = w.stream.Written()
	c.SeededAfter, c.AlertsSuppressed, c.DetectionLeftOut = w.seededAfter, w.alertsSuppressed, w.leftOut
	c.CgroupUnknown = w.cgroupUnknown
	c.LostResets += w.earlyEnds
	return c
}
