package trace

import (
	"slices"
	"strings"
	"time"

	"github.com/tcpshift/tcpshift/internal/output"
	"github.com/tcpshift/tcpshift/internal/record"
)

// Reload changes a run while it goes on. No event is lost or comes twice by it.
type Reload struct {
	// Outputs are all outputs from now on. An output whose Sink had one before continues its stream: with a reload
	// record, the same sequence of numbers and the same account. The others begin with start. Those of before that
	// are not among them end with stop; their sinks are the caller's to drain, once Done is closed.
	Outputs []Output
	// OwnSockets and StatsInterval are those of Config.
	OwnSockets    *output.OwnSockets
	StatsInterval time.Duration
	// Apply is called by the loop; nil: nothing to do.
	Apply func()
	// Changed are the keys of the configuration that have other values.
	Changed []string
	// Done is closed by the loop when the change is made.
	Done chan struct{}
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
	if err := l.readCounters(false); err != nil { // while all outputs stall nothing reads them
		return err
	}
	if r.Apply != nil {
		r.Apply()
	}
	l.Outputs, l.OwnSockets, l.StatsInterval = r.Outputs, r.OwnSockets, r.StatsInterval
	err := l.outs.reload(&l.Config, strings.Join(r.Changed, ","))
	if l.owners != nil {
		serial := l.owners.serial // an answer to an earlier request is none to a later one
		l.addOwners()
		l.owners.serial = serial
	}
	return err
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
