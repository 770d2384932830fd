package trace

import (
	"context"
	"errors"
	"time"

	"github.com/tcpshift/tcpshift/internal/decode"
	"github.com/tcpshift/tcpshift/internal/detect"
	"github.com/tcpshift/tcpshift/internal/summary"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// reasonEnd is the value of stop.reason at the end of what is replayed.
const reasonEnd = "end"

// stallPoll is the time between two checks of an output that has stalled.
const stallPoll = time.Millisecond

// Replay writes the records of a run that is over to outputs, as Run does. If a reader stalls, it waits instead of losing
// records. Its methods are for one goroutine. If no output is left, they return the error of the last one:
// output.ErrReaderGone if its reader is gone.
type Replay struct {
	cfg  Config
	outs *outputs
	ctx  context.Context // ends each wait for a reader

	event  decode.Event
	passed uint64 // transitions that Transition has got, without the ends of TIME_WAITs
}

// NewReplay returns a replay to the outputs of cfg. It uses Start, Notify and Summary of cfg, and ignores Source, Count and
// StatsInterval. The end of ctx ends the waits for a reader.
func NewReplay(ctx context.Context, cfg Config) *Replay {
	cfg.Source, cfg.Count, cfg.StatsInterval = nil, 0, 0
	r := &Replay{cfg: cfg, ctx: ctx}
	r.outs = newOutputs(&r.cfg)
	return r
}

// Begin writes the start records. at is the time at which the replayed run began.
func (r *Replay) Begin(at time.Time) error { return r.outs.start(at) }

// Transition writes a transition, whose times are complete. It returns the cause of ctx if ctx ends its wait for a reader.
func (r *Replay) Transition(t *tcp.Transition) error {
	if err := r.wait(); err != nil {
		return err
	}
	if !t.IsTimeWaitEnd() {
		r.passed++
	}
	r.event.Kind, r.event.Transition = decode.KindTransition, *t
	return r.outs.event(&r.event)
}

// Connection writes a connection with its last transition, which Transition may have got before. It returns the cause of
// ctx as Transition does.
func (r *Replay) Connection(last *tcp.Transition, c *tcp.Connection) error {
	if err := r.wait(); err != nil {
		return err
	}
	r.event.Transition, r.event.Connection = *last, *c
	if c.Phase == tcp.PhaseUpdate {
		r.event.Kind = decode.KindUpdate
		return r.outs.update(&r.event)
	}
	r.event.Kind = decode.KindEnd
	return r.outs.connection(&r.event)
}

// Alerts writes alerts, which have their times, and passes on what is written so far. It returns the cause of ctx as
// Transition does.
func (r *Replay) Alerts(alerts []detect.Alert) error {
	for i := range alerts {
		if err := r.wait(); err != nil {
			return err
		}
		r.outs.alert(&alerts[i])
	}
	return r.outs.endTurn()
}

// Count sets the counts of the stop records: how many transitions the replayed run has, and how many of them a filter has
// left out. The rest that Transition has not got counts as dropped. It is called once, before End.
func (r *Replay) Count(seen, filtered uint64) {
	k := &r.outs.totals.kernel
	k.first.Entered, k.total.Filtered = seen, filtered
	rest := seen - filtered - r.passed
	for _, w := range r.outs.writers {
		w.account.read += rest
		w.account.dropped += rest
	}
}

// EndTurn writes the rows of the summary that are due at a time of the replayed run, and passes on what is written so far.
// It returns the cause of ctx as Transition does.
func (r *Replay) EndTurn(at time.Time) error {
	if r.cfg.Summary != nil {
		if err := r.summaries(r.cfg.Summary.Rows(at)); err != nil {
			return err
		}
	}
	return r.outs.endTurn()
}

// summaries writes the rows of a summary, and waits for the readers before each.
func (r *Replay) summaries(rows []summary.Row) error {
	for i := range rows {
		if err := r.wait(); err != nil {
			return err
		}
		if err := r.outs.summaries(rows[i : i+1]); err != nil {
			return err
		}
	}
	return nil
}

// wait waits until no output stalls. It returns the cause of ctx if ctx ends that wait.
func (r *Replay) wait() error {
	for r.outs.stalled() {
		select {
		case <-r.ctx.Done():
			return context.Cause(r.ctx)
		case <-time.After(stallPoll):
		}
	}
	return nil
}

// End writes the rest of the summary and the stop records, and waits until all is written. failure is the error that has
// ended the replay early, or nil. After a failure there are no stop records. [Interrupted] and a reader that is gone are
// no failures. End returns the errors of the outputs, joined with failure.
func (r *Replay) End(at time.Time, failure error) error {
	failure = ignoreReaderGone(failure)
	if r.cfg.Summary != nil {
		failure = errors.Join(failure, ignoreReaderGone(r.summaries(r.cfg.Summary.Finish(at))))
	}
	reason, signal := reasonEnd, ""
	var interrupted Interrupted
	if errors.As(context.Cause(r.ctx), &interrupted) {
		reason, signal = reasonSignal, interrupted.Signal
	}
	stop := func(w *recordWriter) { w.stop(reason, signal) }
	if failure != nil && !errors.As(failure, &interrupted) {
		stop = nil // the stream is not whole
	}
	err := r.outs.drain(stop)
	if stop != nil {
		err = errors.Join(err, r.outs.drain(nil))
	}
	if errors.As(failure, &interrupted) {
		failure = nil
	}
	return errors.Join(failure, ignoreReaderGone(err), errors.Join(r.outs.failures...))
}
