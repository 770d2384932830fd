package main

import (
	"reflect"
	"runtime/debug"
	"time"

	"github.com/tcpshift/tcpshift/internal/monitor"
	"github.com/tcpshift/tcpshift/internal/probe"
	"github.com/tcpshift/tcpshift/internal/trace"
)

// mayReloadFilters reports whether a reload may change the filters of the kernel programs: there is a configuration
// file, and no option needs the filters of the start.
func (o *traceOptions) mayReloadFilters() bool { return o.path != "" && o.fixedFiltersReason() == "" }

// fixedFiltersReason returns which option keeps a reload from changing the filters, and why; "": none does.
func (o *traceOptions) fixedFiltersReason() string {
	switch {
	case o.sandbox:
		return "because the sandbox does not permit loading programs"
	case o.recording != "":
		return "because --recording contains what the filters of the start pass"
	case o.updates > 0:
		return "because --updates walks the namespaces that the filters of the start pass"
	}
	return ""
}

// hostReaders read the host for a trace, and use its filter.
type hostReaders struct {
	monitor *monitor.Monitor       // nil: no alerts
	counter *monitor.SocketCounter // nil: no metrics
}

func (h *hostReaders) close() {
	if h.monitor != nil {
		h.monitor.Close()
	}
	if h.counter != nil {
		h.counter.Close()
	}
}

// filterChange changes the filter or the sample at a reload. If it is nil, neither changes, and its methods do nothing.
type filterChange struct {
	r        *reloader
	options  *traceOptions
	programs *probe.Programs
	filters  bool // the filter changes, and not only the sample
	next     hostReaders
}

// prepareFilter loads the programs for the filter and the sample of the next configuration. It returns nil if neither
// changes. The caller must close the result.
func (r *reloader) prepareFilter(next *configured) (*filterChange, error) {
	o := next.options
	if before := r.current.options; reflect.DeepEqual(before.filter, o.filter) && before.kernelSample() == o.kernelSample() {
		return nil, nil
	}
	programs, err := r.probe.Prepare(o.kernelFilter(), o.kernelSample())
	if err != nil {
		return nil, err
	}
	c := &filterChange{r: r, options: o, programs: programs, filters: !reflect.DeepEqual(r.current.options.filter, o.filter)}
	if c.filters { // so most sockets that were out of scope have an owner before the new programs see them
		r.findOwners()
	}
	return c, nil
}

// findOwners finds the owners of the sockets that no filter in use has passed.
func (r *reloader) findOwners() {
	if err := r.probe.FindOwners(); err != nil {
		warn("reload: the owners of sockets that are open are not known: " + err.Error())
	}
}

// addTo adds the change to a reload of the loop: it replaces the programs, and the monitor and the counter, which use the
// filter.
func (c *filterChange) addTo(change *trace.Reload) {
	if c == nil {
		return
	}
	before := c.r.hostReaders
	change.Replace = func() error { return c.r.probe.Replace(c.programs) }
	if !c.filters {
		return
	}
	if before.monitor != nil {
		change.Apply = nil // the new monitor begins with the new thresholds
		change.Monitor = func() trace.Monitor {
			c.next.monitor = monitor.New(c.options.detection, c.options.filter, nil, c.r.probe.BoundPorts, warn)
			return c.next.monitor
		}
	}
	if before.counter != nil {
		change.SocketCounts = func() trace.SocketCounts {
			c.next.counter = monitor.NewSocketCounter(c.r.probe.CountSockets, c.options.filter, monitor.ForMetrics, warn)
			return c.next.counter
		}
	}
}

// finish ends what the change has replaced. The loop has made the change.
func (c *filterChange) finish() {
	if c == nil || !c.filters {
		return
	}
	c.r.hostReaders.close()
	c.r.hostReaders = c.next
	c.r.findOwners() // of the sockets that have been opened since prepareFilter
}

// close frees the programs that are not in use: the new ones, or, after the change, the old ones.
func (c *filterChange) close() {
	if c != nil {
		_ = c.programs.Close()
		time.AfterFunc(releaseAfter, debug.FreeOSMemory) // loading takes much memory, as at the start
	}
}
