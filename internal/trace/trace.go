// Package trace is the loop that joins the stages: it reads samples, decodes
// them, encodes records and writes them, keeps the accounts, and decides when to
// stop. It must not know how any stage does its work.
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
	"github.com/tcpshift/tcpshift/internal/probe"
	"github.com/tcpshift/tcpshift/internal/record"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

const (
	// tick is how long an event may lie in the ring of a quiet host. The promise is
	// 100 ms from kernel to output.
	tick = 40 * time.Millisecond
	// accountEvery is after how many turns without an event it is asked all the same
	// what has been lost: a second.
	accountEvery = 25
	// eventBytes is what one event may add to a batch.
	eventBytes = 4 * record.MaxLine
)

// Source is where samples come from; [*probe.Probe] is one.
type Source interface {
	Read(wait time.Duration, handle func(sample []byte) error) error
	Crowded() bool
	Counters() (probe.Counters, error)
	Detach() error
}

// Monitor sees every transition and raises alerts; [*monitor.Monitor] is one.
type Monitor interface {
	Observe(t *tcp.Transition)
	Lost(count uint64)
	// Alerts is called every round. Finish gives what is left, and closes what is open.
	Alerts() []detect.Alert
	Finish() []detect.Alert
}

// Config says what to do with what the source gives.
type Config struct {
	Source  Source
	Sink    Sink
	Encoder record.Encoder
	Monitor Monitor      // nil: no alerts
	Start   record.Start // its Time is set by Run

	Only          []string      // record types besides start and stop; nil: all
	Duration      time.Duration // 0: no limit
	Count         uint64        // transitions to write; 0: no limit
	StatsInterval time.Duration // 0: no stats records
}

// Interrupted is the cause with which a context ends when a signal came.
type Interrupted struct {
	Signal string // such as SIGTERM
}

func (i Interrupted) Error() string {
	return i.Signal
}

// The reasons in stop.reason.
const (
	reasonSignal   = "signal"
	reasonDuration = "duration"
	reasonCount    = "count"
	reasonCanceled = "canceled"
)

// errEnough ends reading when the last transition asked for is there.
var errEnough = errors.New("enough transitions")

// Run writes start, everything that the source gives until it is time to stop,
// and stop. It detaches the source. It returns nil when it ended as asked, or
// because the reader of the sink went away; otherwise what failed.
func Run(ctx context.Context, cfg Config) error {
	l := newLoop(cfg)
	err := unlessReaderGone(l.run(ctx))
	l.losses()
	l.closeAlerts()
	// What was encoded before a failure is true all the same.
	return errors.Join(err, unlessReaderGone(l.flush()), unlessReaderGone(l.drain()), cfg.Source.Detach())
}

// unlessReaderGone takes away what is no failure, before it hides one.
func unlessReaderGone(err error) error {
	if errors.Is(err, output.ErrReaderGone) {
		return nil
	}
	return err
}

type loop struct {
	Config
	clock  clock
	ledger ledger
	only   map[string]bool // nil: all

	transitions, connections bool // wanted

	buf     []byte
	batch   int  // bytes that are gathered before they are written under load
	full    bool // as the sink said last
	losing  bool // what finds it so
	broken  bool // writing has failed
	seq     uint64
	event   decode.Event
	cgroups *cgroup.Cache
	began   time.Time
	statsAt time.Time
	quiet   int // turns in a row in which nothing came
}

func newLoop(cfg Config) *loop {
	l := &loop{Config: cfg, cgroups: cgroup.NewCache(cgroup.DefaultLimit), batch: cfg.Sink.Batch()}
	l.buf = make([]byte, 0, l.batch+eventBytes)
	if cfg.Only != nil {
		l.only = make(map[string]bool)
		for _, t := range cfg.Only {
			l.only[t] = true
		}
	}
	l.transitions, l.connections = l.wants("transition"), l.wants("connection")
	return l
}

func (l *loop) wants(recordType string) bool {
	return l.only == nil || l.only[recordType]
}

func (l *loop) run(ctx context.Context) error {
	l.began = time.Now()
	l.statsAt = l.began.Add(l.StatsInterval)
	l.clock.sync()
	l.Start.Time = l.began
	l.buf = l.numbered().Start(l.buf, &l.Start)
	if err := l.flush(); err != nil {
		return err
	}
	for {
		reason := l.reasonToStop(ctx)
		if reason == "" {
			err := l.turn()
			if err == nil {
				continue
			}
			if !errors.Is(err, errEnough) {
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
		return reasonCanceled
	}
	if l.Duration > 0 && time.Since(l.began) >= l.Duration {
		return reasonDuration
	}
	return ""
}

// turn is one round: what the ring holds, what was lost, what is due.
func (l *loop) turn() error {
	wait := tick
	if l.Duration > 0 {
		wait = max(0, min(wait, l.Duration-time.Since(l.began)))
	}
	l.clock.sync()
	l.quiet++
	readErr := l.Source.Read(wait, l.handle)
	if readErr != nil && !errors.Is(readErr, errEnough) {
		return readErr
	}
	if err := l.accountIfDue(); err != nil {
		return err
	}
	if l.Monitor != nil {
		l.alerts(l.Monitor.Alerts())
	}
	if l.statsDue() && !l.stalled() {
		l.nextStats()
	}
	if err := l.flush(); err != nil {
		return err
	}
	if l.Sink.ReaderGone() {
		return output.ErrReaderGone
	}
	return readErr
}

// handle takes one sample: the hot path.
func (l *loop) handle(sample []byte) error {
	if err := decode.Sample(sample, &l.event); err != nil {
		return err
	}
	if l.event.Kind == decode.Cgroup {
		if l.event.CgroupPath != "" {
			l.cgroups.Put(l.event.CgroupID, l.event.CgroupPath)
		}
		return nil
	}
	l.quiet = 0
	enough := l.enough()
	lost := l.stalled()
	l.transition(&l.event.Transition, lost)
	if l.event.Kind == decode.End && !enough {
		l.connection(&l.event.Transition, &l.event.Connection, lost)
	}
	if len(l.buf) >= l.batch {
		if err := l.flush(); err != nil {
			return err
		}
	}
	if l.enough() && !enough {
		return errEnough
	}
	return nil
}

func (l *loop) enough() bool {
	return l.Count > 0 && l.ledger.written == l.Count
}

func (l *loop) transition(t *tcp.Transition, lost bool) {
	t.Time = l.clock.wall(t.Monotonic)
	if info, known := l.cgroups.Get(t.CgroupID); known {
		t.Cgroup = (*tcp.Cgroup)(info)
	}
	if l.Monitor != nil {
		l.Monitor.Observe(t)
	}
	switch {
	case !l.transitions || l.enough():
		l.ledger.took(t, unwanted)
	case lost:
		l.ledger.took(t, queueFull)
	default:
		l.buf = l.numbered().Transition(l.buf, t)
		l.ledger.took(t, written)
	}
}

func (l *loop) connection(t *tcp.Transition, c *tcp.Connection, lost bool) {
	switch {
	case !l.connections:
		return
	case lost:
		l.ledger.lostConnections++
		return
	}
	c.Opened = l.clock.wall(c.OpenedAt)
	l.buf = l.numbered().Connection(l.buf, t, c)
	l.ledger.connections++
}

// numbered returns the encoder, set to the number of the next record.
func (l *loop) numbered() record.Encoder {
	l.seq++
	l.Encoder.SetSeq(l.seq)
	return l.Encoder
}

// accountIfDue spares an idle tracer what would be most of its work: what is lost is
// lost beside events that come, or at least fire. The ledger needs looks that are not far
// more apart than an event may be under way: other events would hide what is missing.
func (l *loop) accountIfDue() error {
	const looks = int(underWay/tick) + 1
	if l.quiet%accountEvery >= looks && !l.stalled() && !l.statsDue() {
		return nil
	}
	return l.account(false)
}

// account takes over what the kernel has counted and reports what has been lost.
func (l *loop) account(final bool) error {
	counters, err := l.Source.Counters()
	if err != nil {
		return err
	}
	if lost := l.ledger.update(&counters, time.Now(), final); lost > 0 && l.Monitor != nil {
		l.Monitor.Lost(lost)
	}
	if final || !l.stalled() {
		l.losses()
	}
	return nil
}

// stop detaches first, so that the ring, the counters and the last records agree.
// Where that fails they may not, but there is no better moment to come.
func (l *loop) stop(ctx context.Context, reason string) error {
	err := l.Source.Detach()
	if err != nil {
		err = fmt.Errorf("detach: %w", err)
	}
	return errors.Join(err, unlessReaderGone(l.finish(ctx, reason)))
}

// finish writes what is left, the final stats, and stop.
func (l *loop) finish(ctx context.Context, reason string) error {
	l.clock.sync()
	if err := l.readRest(); err != nil {
		return err
	}
	if err := l.account(true); err != nil {
		return err
	}
	l.closeAlerts()
	if l.StatsInterval > 0 {
		l.stats()
	}
	if err := l.flush(); err != nil {
		return err
	}
	if err := l.drain(); err != nil { // so that stop can say how much has been written
		return err
	}
	r := record.Stop{Time: time.Now(), Reason: reason, Counts: l.counts()}
	var interrupted Interrupted
	if errors.As(context.Cause(ctx), &interrupted) && reason == reasonSignal {
		r.Signal = interrupted.Signal
	}
	l.buf = l.numbered().Stop(l.buf, &r)
	if err := l.flush(); err != nil {
		return err
	}
	return l.drain()
}

// readRest reads until the ring is empty; the last transition that was asked for may
// be among what is left.
func (l *loop) readRest() error {
	for {
		err := l.Source.Read(0, l.handle)
		if !errors.Is(err, errEnough) {
			return err
		}
	}
}

// alerts are never dropped, whatever else is.
func (l *loop) alerts(alerts []detect.Alert) {
	for i := range alerts {
		a := &alerts[i]
		a.Time = l.clock.wall(a.Monotonic)
		l.buf = l.numbered().Alert(l.buf, a)
	}
}

// closeAlerts is done once, however the loop ends.
func (l *loop) closeAlerts() {
	if l.Monitor != nil {
		l.alerts(l.Monitor.Finish())
		l.Monitor = nil
	}
}
