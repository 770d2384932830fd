package trace

import (
	"math"
	"time"

	"github.com/tcpshift/tcpshift/internal/boottime"
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

// keep adds an event to the flight recorder's ring. offset is wall-clock time − monotonic time. t is nil if the event is
// no transition.
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

// dump is a file that the flight recorder is to write.
type dump struct {
	at     time.Time
	reason string
	alerts []detect.Alert // that have opened
	noted  time.Time      // not before at
	before time.Duration  // what has happened before this belongs to it, by CLOCK_BOOTTIME
}

// dumpWait is how long a file waits, in the time of the events: what has happened before an alert may still be in the
// ring buffer when the alert opens, and so may the reset that belongs to an end.
const dumpWait = resetWait

// noteAsked notes that the flight recorder is to write a file if the operator has asked for one.
func (l *loop) noteAsked() {
	if l.Flight != nil && l.Flight.Asked() {
		l.noteDump(dump{at: time.Now(), reason: askedReason})
	}
}

// noteOpened notes that the flight recorder is to write one file if alerts have opened, unless each of their kinds had a
// file in the last minute.
func (l *loop) noteOpened(alerts []detect.Alert) {
	if l.Flight == nil {
		return
	}
	var d dump
	for i := range alerts {
		a := &alerts[i]
		if a.Phase != detect.Open {
			continue
		}
		d.alerts = append(d.alerts, *a)
		if l.Flight.Admit(a.Kind, a.Time) && d.reason == "" {
			d.at, d.reason = a.Time, a.Kind
		}
	}
	if d.reason != "" {
		l.noteDump(d)
	}
}

func (l *loop) noteDump(d dump) {
	d.noted, d.before = time.Now(), boottime.Now()
	l.dumps = append(l.dumps, d)
}

// writeDumps makes the flight recorder write the files whose events have been read. final means that there are no more
// events.
func (l *loop) writeDumps(final bool) {
	for len(l.dumps) > 0 && (final || l.hasRead(&l.dumps[0])) {
		d := &l.dumps[0]
		w := dumper{start: l.Start, reasons: l.ResetReasons, phase: l.endPhase, encoder: l.Flight.Encoder, alerts: d.alerts, at: d.at}
		l.Flight.Dump(d.at, d.reason, w.write)
		l.dumps = l.dumps[1:]
	}
}

// hasRead reports whether the events that belong to a file have been read: a later event has come, or a later turn has
// found none.
func (l *loop) hasRead(d *dump) bool {
	if l.idle > 0 {
		return l.began.Sub(d.noted) > dumpWait
	}
	return l.event.Transition.Monotonic-d.before > dumpWait
}

// resetWait is the least time between two ends of turns, in the time of the events: the end of a connection waits one or
// two turns for the event of its reset, see pendingEnds.
const resetWait = 100 * time.Millisecond

// dumper writes the events of a flight recorder as a run without a selection would have written them. It is for the
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

// write writes the start record, the records of all events, and the alerts.
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

// begin writes the start record with the time at, unless it is already written.
func (d *dumper) begin(at time.Time) error {
	if d.began {
		return nil
	}
	d.began = true
	return d.loop.outs.start(at)
}

// event decodes one event and writes its records; the end of a connection may wait for the event of its reset.
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

// fileSink writes to the file in Put, without a queue.
type fileSink struct {
	file    *flight.Writer
	written uint64
	err     error
}

var _ output.Sink = (*fileSink)(nil)

// BatchSize is 256 KiB, so that a file takes few calls of write(2).
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

// Drain has nothing to wait for. It returns the failure of a Put.
func (s *fileSink) Drain() error { return s.err }

// Err returns the failure of a Put.
func (s *fileSink) Err() error { return s.err }

// Written returns the number of bytes that were written.
func (s *fileSink) Written() uint64 { return s.written }

// ReaderGone is false for a file.
func (*fileSink) ReaderGone() bool { return false }
