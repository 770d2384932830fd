package trace

import (
	"math"
	"slices"
	"time"

	"github.com/tcpshift/tcpshift/internal/decode"
	"github.com/tcpshift/tcpshift/internal/detect"
	"github.com/tcpshift/tcpshift/internal/flight"
	"github.com/tcpshift/tcpshift/internal/output"
	"github.com/tcpshift/tcpshift/internal/record"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// Flight is the flight recorder of a run.
type Flight struct {
	*flight.Recorder
	// Encoder returns a new encoder for a file. Any goroutine may call it.
	Encoder func() record.Encoder
}

// askedReason is the reason of a file that the operator has asked for.
const askedReason = "asked"

// keep passes an event to the flight recorder. t is nil if it is no transition.
func (f *Flight) keep(sample []byte, offset time.Duration, t *tcp.Transition) {
	e := flight.Event{Sample: sample, Offset: offset}
	if t != nil {
		e.Cgroup = t.Cgroup
		if t.New == tcp.Listen {
			e.Port = t.Local.Port
		}
	}
	f.Ring.Add(e)
}

// dumpAsked makes the flight recorder write a file if the operator has asked for one.
func (l *loop) dumpAsked() {
	if l.Flight != nil && l.Flight.Asked() {
		l.dump(time.Now(), []string{askedReason}, nil)
	}
}

// dumpOpened makes the flight recorder write a file if alerts have opened: one for each kind a minute.
func (l *loop) dumpOpened(alerts []detect.Alert) {
	if l.Flight == nil {
		return
	}
	var opened []detect.Alert
	var kinds []string
	for i := range alerts {
		a := &alerts[i]
		if a.Phase != detect.Open {
			continue
		}
		opened = append(opened, *a)
		if l.Flight.Due(a.Kind, a.Time) && !slices.Contains(kinds, a.Kind) {
			kinds = append(kinds, a.Kind)
		}
	}
	if len(kinds) > 0 {
		l.dump(opened[0].Time, kinds, opened)
	}
}

// dump makes the flight recorder write its events and alerts to a file.
func (l *loop) dump(at time.Time, reasons []string, alerts []detect.Alert) {
	d := dumper{start: l.Start, reasons: l.ResetReasons, phase: l.endPhase, encoder: l.Flight.Encoder, alerts: alerts, at: at}
	l.Flight.Dump(at, reasons, d.write)
}

// resetWait is how long an end waits for the event of its reset, in the time of the events: see pendingEnds.
const resetWait = 100 * time.Millisecond

// dumper writes the events of a flight recorder as the records of a run that had written all of them. It is for the
// recorder's goroutine.
type dumper struct {
	start   record.Start
	reasons map[tcp.ResetCode]string
	phase   tcp.Phase
	encoder func() record.Encoder
	alerts  []detect.Alert
	at      time.Time // when it was asked for

	loop  *loop
	began bool          // start is written
	turn  time.Duration // the time of the first event of this turn
}

func (d *dumper) write(s *flight.Snapshot, w *flight.Writer) error {
	cfg := Config{Outputs: []Output{{Sink: &fileSink{file: w}, Encoder: d.encoder()}}, Start: d.start, ResetReasons: d.reasons}
	d.loop = &loop{Config: cfg, endPhase: d.phase}
	d.loop.outs = newOutputs(&d.loop.Config)
	if err := s.Each(d.event); err != nil {
		return err
	}
	if err := d.begin(d.at); err != nil {
		return err
	}
	if err := d.loop.writePending(); err != nil {
		return err
	}
	for i := range d.alerts {
		d.loop.outs.alert(&d.alerts[i])
	}
	return d.loop.outs.endTurn()
}

// begin writes the start record, with the time of the first event.
func (d *dumper) begin(at time.Time) error {
	if d.began {
		return nil
	}
	d.began = true
	return d.loop.outs.start(at)
}

// event writes one event, once it is complete.
func (d *dumper) event(each flight.Event) error {
	l := d.loop
	e := &l.event
	if err := decode.Sample(each.Sample, e); err != nil {
		return err
	}
	if e.Kind == decode.KindLateReset {
		return l.handleReset(&e.LateReset)
	}
	l.clock.now = clockStep{from: math.MinInt64, offset: each.Offset}
	t := &e.Transition
	t.Time, t.Cgroup = l.clock.wall(t.Monotonic), each.Cgroup
	if each.Port != 0 {
		t.Local.Port = each.Port
	}
	if err := d.begin(t.Time); err != nil {
		return err
	}
	if t.Monotonic-d.turn > resetWait {
		d.turn = t.Monotonic
		if err := l.pending.endTurn(l.writeEnd); err != nil {
			return err
		}
	}
	return l.take(e)
}

// fileSink writes at once.
type fileSink struct {
	file    *flight.Writer
	written uint64
	err     error
}

var _ output.Sink = (*fileSink)(nil)

// BatchSize is a size that disks like.
func (*fileSink) BatchSize() int { return 256 << 10 }

// Put writes lines.
func (s *fileSink) Put(lines []byte) ([]byte, error) {
	n, err := s.file.Write(lines)
	s.written += uint64(n)
	if s.err == nil {
		s.err = err
	}
	return lines[:0], err
}

// Full is false: Put waits.
func (*fileSink) Full() bool { return false }

// Room has no bound.
func (*fileSink) Room() int { return math.MaxInt }

// Drain has nothing to wait for.
func (s *fileSink) Drain() error { return s.err }

// Err is the failure of a Put.
func (s *fileSink) Err() error { return s.err }

// Written is the number of bytes that were written.
func (s *fileSink) Written() uint64 { return s.written }

// ReaderGone is false for a file.
func (*fileSink) ReaderGone() bool { return false }
