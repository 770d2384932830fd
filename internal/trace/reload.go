package trace

import (
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/tcpshift/tcpshift/internal/output"
	"github.com/tcpshift/tcpshift/internal/record"
)

// Reload changes a run that goes on. It neither loses nor repeats an event.
type Reload struct {
	// Outputs are all outputs from now on. An output whose Sink had one before continues its stream: with a reload
	// record, the same sequence of numbers and the same account. The others begin with start. Outputs that were there
	// before and are not in the list end with stop; the caller drains their sinks once Done is closed.
	Outputs []Output
	// OwnSockets and StatsInterval are those of Config.
	OwnSockets    *output.OwnSockets
	StatsInterval time.Duration
	// Replace exchanges the kernel programs for those of another filter, as [probe.Probe.Replace] does; nil: they stay.
	// The loop calls it first. If it fails, nothing changes.
	Replace func() error
	// Monitor and SocketCounts return those for another filter, which replace those of Config; nil: those stay. The loop
	// calls them after Replace, and closes the open alerts of the replaced monitor. The caller closes the replaced
	// monitor and counts once Done is closed.
	Monitor      func() Monitor
	SocketCounts func() SocketCounts
	// Apply is called by the loop; nil: nothing to do.
	Apply func()
	// Changed are the keys of the configuration that have other values.
	Changed []string
	// Done is closed by the loop when the change is made, or has failed.
	Done chan struct{}
	// Err is the error of Replace, once Done is closed.
	Err error
}

// takeReload makes the change that waits, if any.
func (l *loop) takeReload() error {
	select {
	case r := <-l.Reloads:
		return l.reload(r)
	default:
		return nil
	}
}

func (l *loop) reload(r *Reload) error {
	defer close(r.Done)
	ended, err := l.replacePrograms(r)
	if err != nil || r.Err != nil {
		return err
	}
	if err := l.readCounters(false); err != nil { // the loop does not read them while all outputs stall
		return err
	}
	l.replaceReaders(r)
	if r.Apply != nil {
		r.Apply()
	}
	l.Outputs, l.OwnSockets, l.StatsInterval = r.Outputs, r.OwnSockets, r.StatsInterval
	err = l.outs.reload(&l.Config, strings.Join(r.Changed, ","))
	if l.owners != nil {
		serial := l.owners.serial // so that no later request takes the answer to an earlier one
		l.addOwners()
		l.owners.serial = serial
	}
	return errors.Join(err, ended)
}

// replacePrograms exchanges the kernel programs, and writes all that the old ones have emitted, so that their events
// come before the reload record. ended is errCountReached if the run has to end after the reload; err ends it at once.
func (l *loop) replacePrograms(r *Reload) (ended, err error) {
	if r.Replace == nil {
		return nil, nil
	}
	if r.Err = r.Replace(); r.Err != nil {
		return nil, nil
	}
	for _, write := range []func() error{func() error { return l.Source.ReadFor(0, l.handle) }, l.writePending} {
		err := write()
		if err != nil && !errors.Is(err, errCountReached) {
			return nil, err
		}
		ended = errors.Join(ended, err)
	}
	return ended, nil
}

// replaceReaders replaces the monitor and the counts of sockets, which read the host by the filter. It closes the open
// alerts, because their counts are of the old filter.
func (l *loop) replaceReaders(r *Reload) {
	if r.SocketCounts != nil {
		l.SocketCounts = r.SocketCounts()
		l.SocketCounts.NotifyAnswers(l.Source.Wake)
	}
	if r.Monitor == nil || l.Monitor == nil {
		return
	}
	before := l.Monitor
	l.writeAlerts(before.Finish())
	l.outs.detection(before)
	l.outs.totals.keepDetection()
	l.Monitor = r.Monitor()
	l.observers[slices.Index(l.observers, Observer(before))] = l.Monitor
	l.Monitor.NotifyAnswers(l.Source.Wake)
}

// reload replaces the outputs by those of cfg. It returns the error of the last output.
func (o *outputs) reload(cfg *Config, changed string) error {
	before, now := o.writers, time.Now()
	begins := make(map[*recordWriter]bool)
	o.assemble(cfg, func(out *Output) *recordWriter {
		at := slices.IndexFunc(before, func(w *recordWriter) bool { return w.sink == out.Sink })
		if at >= 0 {
			before[at].reconfigure(cfg, out, now, o.notify)
			return before[at]
		}
		w := newRecordWriter(cfg, out, &o.totals, o.notify)
		w.join(before[0])
		begins[w] = true
		return w
	})
	for _, w := range before {
		if !slices.Contains(o.writers, w) {
			w.losses()
			w.stop(reasonReload, "")
			_ = w.stream.Flush() // its failure ends nothing any more
		}
	}
	return o.each(func(w *recordWriter) error {
		if begins[w] {
			w.start(now)
		} else {
			w.stream.Lines = w.numbered().Reload(w.stream.Lines, &record.Reload{Time: now, Changed: changed})
		}
		return w.stream.Flush()
	})
}

// reconfigure changes what a running output writes.
func (w *recordWriter) reconfigure(cfg *Config, o *Output, now time.Time, notify func(message string)) {
	before := w.interval
	w.configure(cfg, o, notify)
	if w.interval != before {
		w.nextStats = now.Add(w.interval)
	}
	var ring output.Ring
	if len(cfg.Outputs) == 1 {
		ring = cfg.Source
	}
	w.stream.SetRing(ring)
}

// join makes the account of an output that begins late add up: what was read before counts as dropped, and what
// was lost before is not reported.
func (w *recordWriter) join(other *recordWriter) {
	w.account.read, w.account.dropped = other.account.read, other.account.read
	w.account.reported = w.account.losses(&w.totals.kernel)
}
