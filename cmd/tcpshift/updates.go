package main

import (
	"github.com/spf13/pflag"

	"github.com/tcpshift/tcpshift/internal/live"
	"github.com/tcpshift/tcpshift/internal/probe"
	"github.com/tcpshift/tcpshift/internal/trace"
)

func addUpdatesFlag(flags *pflag.FlagSet, o *traceOptions) {
	flags.Var(single(&o.updates, "D", parseWindow), "updates", "also write a connection record of each connection that is open for longer than this, and again after each such time, such as 1m")
}

// checkUpdates rejects --updates if no output has its records.
func (o *traceOptions) checkUpdates() error {
	if o.updates > 0 && !o.wants("connection") {
		return usagef("--updates: no output has connection records: add connection to --only")
	}
	return nil
}

// checkLiveUpdates refuses updates where the kernel cannot show the connections that live.
func (o *traceOptions) checkLiveUpdates(features probe.Features) error {
	feature := features.Get(probe.LiveUpdates)
	if o.updates == 0 || feature.Err == nil {
		return nil
	}
	return &probe.HostError{
		Problem: "--updates: it needs to walk over the connections: " + feature.Err.Error(),
		Remedy:  feature.Remedy + ", or leave out --updates",
	}
}

// startUpdates starts the walks over the connections that live, if updates are wanted, and returns a function that
// ends them.
func (o *traceOptions) startUpdates(cfg *trace.Config, p *probe.Probe) (end func()) {
	if o.updates == 0 {
		return func() {}
	}
	walker := live.New(live.Config{Interval: o.updates, Open: p.OpenUpdates, Filter: &o.filter, Warn: warn})
	cfg.Updates = walker
	return walker.Stop
}
