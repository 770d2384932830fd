// Package trace is the loop that joins the stages: it reads events, decodes them,
// shows them to observers, encodes records, passes them to the output, and decides
// when to stop. It must not know how a stage does its work.
package trace

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tcpshift/tcpshift/internal/cgroup"
	"github.com/tcpshift/tcpshift/internal/decode"
	"github.com/tcpshift/tcpshift/internal/detect"
	"github.com/tcpshift/tcpshift/internal/output"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

const (
	// maxWait is the default of Config.MaxWait. The promise is 100 ms
	// from kernel to output. After an event that wakes the loop, the turn waits for more events as long.
	maxWait = 40 * time.Millisecond
)

// Interrupted is the cause of a context that was canceled by a signal.
type Interrupted struct {
	Signal string // such as SIGTERM
}

// Error is the name of the signal.
func (i Interrupted) Error() string {
	return i.Signal
}

// CommandEnded is the cause of a context that was canceled because the command that is traced has
// ended.
type CommandEnded struct{}

// Error says that the command ended; its status is not part of this error.
func (CommandEnded) Error() string { return "the command ended" }

// The values of stop.reason.
const (
	reasonCommand  = "command"
	reasonSignal   = "signal"
	reasonDuration = "duration"
	reasonCount    = "count"
	reasonCanceled = "canceled"
	reasonReload   = "reload" // of an output that the new configuration does not have
)

// errCountReached ends a ReadFor after the last transition of Config.Count.
var errCountReached = errors.New("count reached")

// Run writes a start record, then the records of all events until ctx is done or a limit of cfg is reached,
// then a stop record, to each output. It always detaches the source. It returns nil if nothing failed, or if
// the readers of all outputs went away. Otherwise it returns the errors of what failed, also those of single
// outputs, after it has written the records that were encoded before. The wait for a reader at the end has no
// limit: abandon the queues to end it.
func Run(ctx context.Context, cfg Config) error {
	l := newLoop(cfg)
	err := ignoreReaderGone(l.run(ctx))
	err = errors.Join(err, ignoreReaderGone(ignoreCount(l.writePending())))
	err = errors.Join(err, ignoreReaderGone(l.finishSummary()))
	l.outs.losses(true)
	l.closeAlerts()
	l.writeDumps(true)
	err = errors.Join(err, ignoreReaderGone(l.outs.drain(nil)))
	return errors.Join(err, errors.Join(l.outs.failures...), cfg.Source.Detach())
}

// ignoreReaderGone drops output.ErrReaderGone. Joined with another error it would make
// that error look like a normal end.
func ignoreReaderGone(err error) error {
	if errors.Is(err, output.ErrReaderGone) {
		return nil
	}
	return err
}

// ignoreCount drops the error that ends a ReadFor once Config.Count is reached.
func ignoreCount(err error) error {
	if errors.Is(err, errCountReached) {
		return nil
	}
	return err
}

type loop struct {
	Config
	outs      *outputs
	observers []Observer
	clock     clock
	cgroups   *cgroup.Cache
	owners    *owners // nil: no process records
	pending   pendingEnds
	event     decode.Event
	dumps     []dump
	started   time.Time
	began     time.Time // the beginning of this turn
	lastEvent time.Time // the beginning of the last turn with an event
	idle      int       // consecutive turns without an event
	rechecks  int       // turns that are to read the counters before the next sleep

	usageAt     time.Time // of the last reading for metrics
	quietSleeps int       // consecutive sleeps without a firing, at most 3

	endPhase tcp.Phase // of the records of ends
}

func newLoop(cfg Config) *loop {
	l := &loop{Config: cfg, cgroups: cgroup.NewCache(cgroup.DefaultLimit)}
	l.outs = newOutputs(&l.Config)
	l.addOwners()
	if cfg.Updates != nil {
		l.endPhase = tcp.PhaseEnd
	}
	if cfg.Monitor != nil {
		l.observers = append(l.observers, cfg.Monitor)
		cfg.Monitor.NotifyAnswers(cfg.Source.Wake)
	}
	if cfg.Metrics != nil {
		l.observers = append(l.observers, cfg.Metrics)
	}
	if cfg.Flight != nil {
		l.outs.totals.flight = cfg.Flight.Recorder
		cfg.Flight.NotifyAsked(cfg.Source.Wake)
	}
	if cfg.SocketCounts != nil {
		cfg.SocketCounts.NotifyAnswers(cfg.Source.Wake)
	}
	return l
}

func (l *loop) run(ctx context.Context) error {
	l.started = time.Now()
	l.clock.sync()
	if l.Recording != nil {
		l.Recording.Wall(l.clock.now.offset)
	}
	if err := l.outs.start(l.started); err != nil {
		return err
	}
	if l.Started != nil {
		if err := l.Started(); err != nil {
			return err
		}
	}
	if l.Metrics != nil {
		l.Metrics.Started()
		defer l.Metrics.Stopping()
	}
	defer l.wakeAtEnd(ctx)()
	for {
		reason := l.reasonToStop(ctx)
		if reason == "" {
			err := l.turn()
			if err == nil {
				continue
			}
			if !errors.Is(err, errCountReached) {
				return err
			}
			reason = reasonCount
		}
		return l.stop(ctx, reason)
	}
}

func (l *loop) reasonToStop(ctx context.Context) string {
	if ctx.Err() != nil {
		if errors.As(context.Cause(ctx), new(Interrupted)) {
			return reasonSignal
		}
		if errors.As(context.Cause(ctx), new(CommandEnded)) {
			return reasonCommand
		}
		return reasonCanceled
	}
	if l.Duration > 0 && time.Since(l.started) >= l.Duration {
		return reasonDuration
	}
	return ""
}

// turn sleeps if it may, handles what is in the ring, and then what was lost and what is due.
func (l *loop) turn() error {
	expired, err := l.sleep()
	if err != nil {
		return err
	}
	l.clock.sync() // before the event that has ended the sleep gets its time
	l.began = time.Now()
	l.idle++
	if l.Turned != nil {
		l.Turned()
	}
	l.takeNames()
	if err := l.takeReload(); err != nil {
		return err
	}
	if l.owners != nil {
		l.owners.beginTurn(time.Since(l.started))
	}
	readErr := l.Source.ReadFor(l.wait(expired), l.handle)
	if l.idle == 0 {
		l.lastEvent = l.began
	}
	if readErr == nil {
		readErr = l.pending.endTurn(l.writeEnd)
	}
	if readErr != nil && !errors.Is(readErr, errCountReached) {
		return readErr
	}
	if err := l.readCountersInTurn(expired); err != nil {
		return err
	}
	l.noteAsked()
	if l.Monitor != nil {
		l.writeAlerts(l.Monitor.Alerts())
		l.outs.detection(l.Monitor)
	}
	l.writeDumps(false)
	if err := l.writeSummary(); err != nil {
		return err
	}
	if err := l.outs.endTurn(); err != nil {
		return err
	}
	l.publishMetrics()
	return readErr
}

// handle takes one sample. It is the hot path.
func (l *loop) handle(sample []byte) error {
	e := &l.event
	if err := decode.Sample(sample, e); err != nil {
		return err
	}
	if e.Kind > decode.KindEnd {
		if l.Flight != nil && e.Kind == decode.KindLateReset {
			l.Flight.keep(sample, l.clock.now.offset, nil)
		}
		return l.handleOther(e)
	}
	l.idle = 0
	// The kernel knows neither the wall clock nor, in this event, the cgroup's path.
	t := &e.Transition
	if l.OwnSockets != nil && l.OwnSockets.Has(t.Cookie) {
		l.outs.drop(t)
		return nil
	}
	t.Time = l.clock.wall(t.Monotonic)
	if t.New == tcp.Listen && t.Local.Port == 0 && t.Cookie != 0 {
		t.Local.Port = l.Source.ListenPort(t.Cookie)
	}
	l.findCgroup(t)
	if l.Flight != nil {
		l.Flight.keep(sample, t.Time.Sub(time.Unix(0, int64(t.Monotonic))), t)
	}
	return l.take(e)
}

// take shows an event, which is complete but for what comes later, to the observers, and writes it.
func (l *loop) take(e *decode.Event) error {
	t := &e.Transition
	if e.Kind == decode.KindEnd && l.outs.connections {
		e.Connection.Opened, e.Connection.Phase = l.clock.wall(e.Connection.OpenedAt), l.endPhase
	}
	for _, o := range l.observers {
		o.Observe(t)
	}
	if t.ResetAwaited || l.pending.count > 0 {
		return l.writeInOrder(e)
	}
	return l.outs.event(e)
}

// findCgroup sets the cgroup of an event.
func (l *loop) findCgroup(t *tcp.Transition) {
	if info, known := l.cgroups.Get(t.CgroupID); known {
		t.Cgroup = (*tcp.Cgroup)(info)
	} else if t.CgroupID != 0 {
		l.outs.totals.cgroupUnknown++
	}
}

// handleOther takes an event that is not a transition.
func (l *loop) handleOther(e *decode.Event) error {
	switch e.Kind {
	case decode.KindUpdate:
		return l.handleUpdate(e)
	case decode.KindLateReset:
		return l.handleReset(&e.LateReset)
	case decode.KindCgroup:
		if e.CgroupPath != "" {
			info := l.cgroups.Put(e.CgroupID, e.CgroupPath, e.ClaimedNames)
			if info != nil && l.Names != nil {
				l.Names.Request(e.CgroupID, info)
			}
		}
	}
	return nil
}

// readCounters takes over the kernel's counters and reports what has been lost. final
// means that the programs are detached.
func (l *loop) readCounters(final bool) error {
	counters, err := l.Source.Counters()
	if err != nil {
		return err
	}
	if lost := l.outs.totals.kernel.update(&counters, time.Now(), final); lost > 0 {
		for _, o := range l.observers {
			o.AddLost(lost)
		}
	}
	if l.Updates != nil {
		l.outs.totals.lateUpdates = l.Updates.Late()
	}
	l.outs.losses(final)
	return nil
}

// stop detaches first, so that the ring, the counters and the last records agree. If
// that fails they may not, but waiting longer would not help.
func (l *loop) stop(ctx context.Context, reason string) error {
	if l.Updates != nil {
		l.Updates.Stop() // what it has emitted is in the ring now
	}
	err := l.Source.Detach()
	if err != nil {
		err = fmt.Errorf("detach: %w", err)
	}
	return errors.Join(err, ignoreReaderGone(l.finish(ctx, reason)))
}

// finish writes the remaining events, the last losses and alerts, the final stats, and stop.
func (l *loop) finish(ctx context.Context, reason string) error {
	l.clock.sync()
	if err := l.readRest(); err != nil {
		return err
	}
	if err := ignoreCount(l.writePending()); err != nil {
		return err
	}
	if err := l.readCounters(true); err != nil {
		return err
	}
	if err := l.finishSummary(); err != nil {
		return err
	}
	l.closeAlerts()
	if l.owners != nil {
		l.owners.finish()
	}
	l.outs.losses(true) // of alerts and summaries
	if l.Metrics != nil {
		l.publishCounts(time.Now()) // for the last request to an OpenTelemetry receiver
	}
	if l.StatsInterval > 0 {
		for _, w := range l.outs.writers {
			w.stats()
		}
	}
	var interrupted Interrupted
	if reason == reasonSignal {
		errors.As(context.Cause(ctx), &interrupted)
	}
	// The output has written the rest by then, so that stop has the final written_bytes.
	stop := func(w *recordWriter) { w.stop(reason, interrupted.Signal) }
	if err := l.outs.drain(stop); err != nil {
		return err
	}
	return l.outs.drain(nil)
}

// writeSummary writes the rows of the windows that are over.
func (l *loop) writeSummary() error {
	if l.Summary == nil {
		return nil
	}
	return l.outs.summaries(l.Summary.Rows(time.Now()))
}

// finishSummary writes the rows of the windows that are open. It does its work once, as closeAlerts does.
func (l *loop) finishSummary() error {
	s := l.Summary
	if s == nil {
		return nil
	}
	l.Summary = nil
	return l.outs.summaries(s.Finish(time.Now()))
}

// readRest reads until the ring is empty. The last transition of Config.Count may be
// among these events.
func (l *loop) readRest() error {
	for {
		err := l.Source.ReadFor(0, l.handle)
		if !errors.Is(err, errCountReached) {
			return err
		}
	}
}

func (l *loop) writeAlerts(alerts []detect.Alert) {
	l.recordAlerts(alerts)
	for i := range alerts {
		a := &alerts[i]
		a.Time = l.clock.wall(a.Monotonic)
		l.renameCulprit(a)
		if l.Metrics != nil {
			l.Metrics.Alert(a)
		}
		l.outs.alert(a)
	}
	l.noteOpened(alerts)
}

// closeAlerts does its work once: a failure may call it after finish has.
func (l *loop) closeAlerts() {
	if l.Monitor != nil {
		l.writeAlerts(l.Monitor.Finish())
		l.outs.detection(l.Monitor)
		l.Monitor = nil
	}
}
