package main

import (
	"reflect"
	"runtime/debug"
	"time"

	"github.com/tcpshift/tcpshift/internal/monitor"
	"github.com/tcpshift/tcpshift/internal/probe"
	"github.com/tcpshift/tcpshift/internal/trace"
)

// mayReloadFilters reports whether a reload may change the filters of the kernel programs: there is a file to read
// again, and nothing that is on depends on the filters of the start.
func (o *traceOptions) mayReloadFilters() bool { return o.path != "" && o.whyFixedFilters() == "" }

// whyFixedFilters says what keeps a reload from changing the filters; "": nothing that is on.
func (o *traceOptions) whyFixedFilters() string {
	switch {
	case o.sandbox:
		return "because the sandbox does not permit to load programs"
	case o.recording != "":
		return "because --recording has what the filters of the start pass"
	case o.updates > 0:
		return "because --updates walks the namespaces that the filters of the start pass"
	}
	return ""
}

// watched is what reads the host for a trace, and depends on its filter.
type watched struct {
	monitor *monitor.Monitor       // nil: no alerts
	counter *monitor.SocketCounter // nil: no metrics
}

func (w *watched) close() {
	if w.monitor != nil {
		w.monitor.Close()
	}
	if w.counter != nil {
		w.counter.Close()
	}
}

// filterChange is a change of the filter that a reload makes. A nil one changes nothing.
type filterChange struct {
	r        *reloader
	options  *traceOptions
	programs *probe.Programs
	next     watched
}

// programsFor loads the programs for the filter of the next configuration. It returns nil if the filter stays. The caller must
// close the result.
func (r *reloader) programsFor(next *configured) (*filterChange, error) {
	o := next.options
	if reflect.DeepEqual(r.current.options.filter, o.filter) {
		return nil, nil
	}
	programs, err := r.probe.Prepare(o.kernelFilter())
	if err != nil {
		return nil, err
	}
	// Most of the sockets that were out of scope have their owner before the programs look for it.
	r.findOwners()
	return &filterChange{r: r, options: o, programs: programs}, nil
}

// findOwners finds the owners of the sockets that no filter in use has passed.
func (r *reloader) findOwners() {
	if err := r.probe.FindOwners(); err != nil {
		warn("reload: the owners of sockets that are open are not known: " + err.Error())
	}
}

// addTo makes the loop change the filter. What depends on it begins anew.
func (c *filterChange) addTo(change *trace.Reload) {
	if c == nil {
		return
	}
	before := c.r.watched
	change.Replace = func() error { return c.r.probe.Replace(c.programs) }
	if before.monitor != nil {
		change.Apply = nil // the new one has the thresholds
		change.Monitor = func() trace.Monitor {
			c.next.monitor = monitor.New(c.options.detection, c.options.filter, nil, c.r.probe.BoundPorts, warn)
			return c.next.monitor
		}
	}
	if before.counter != nil {
		change.SocketCounts = func() trace.SocketCounts {
			c.next.counter = monitor.NewSocketCounter(c.r.probe.CountSockets, c.options.filter, monitor.CountInterval, warn)
			return c.next.counter
		}
	}
}

// taken ends what the loop does not use any more, once it has made the change.
func (c *filterChange) taken() {
	if c == nil {
		return
	}
	c.r.watched.close()
	c.r.watched = c.next
	c.r.findOwners() // of the sockets that have been opened since programsFor
}

// close frees the programs that are not in use: those of the change, or, once it is made, those of before.
func (c *filterChange) close() {
	if c != nil {
		_ = c.programs.Close()
		time.AfterFunc(releaseAfter, debug.FreeOSMemory) // as after the start
	}
}
