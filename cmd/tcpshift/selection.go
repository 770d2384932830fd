package main

import (
	"github.com/spf13/pflag"

	"github.com/tcpshift/tcpshift/internal/probe"
	"github.com/tcpshift/tcpshift/internal/selection"
)

// addSelectionFlags adds the flags that select among the records of all outputs.
func addSelectionFlags(flags *pflag.FlagSet, s *selection.Selection) {
	flags.Var(list(&s.ClosedBy, "WAY,...", selection.ParseClosedBy), "closed-by", "of connection records, write only those of connections that ended in one of these ways, such as timeout")
	flags.Var(single(&s.MinDuration, "D", parseDuration), "min-duration", "of connection records, write only those of connections that lasted at least this long")
	flags.Var(single(&s.MinBytes, "SIZE", selection.ParseBytes), "min-bytes", "of connection records, write only those of connections that sent and received at least this many bytes together")
	flags.Var(list(&s.Errors, "ERRNO,...", selection.ParseErrno), "error", "of transition and connection records, write only those with one of these errors, such as ECONNREFUSED")
	flags.Var(single(&s.Sample, "1/N", selection.ParseSample), "sample", "write the records of one in N connections; listeners and alerts are always written")
	addNameSelectionFlags(flags, s)
}

// addNameSelectionFlags adds the selections that also apply to alerts.
func addNameSelectionFlags(flags *pflag.FlagSet, s *selection.Selection) {
	flags.Var(list(&s.Containers, "CONTAINER,...", selection.ParseName), "container", "write only records of this container: its name, or 12 digits or more of its id")
	flags.Var(list(&s.Pods, "POD,...", selection.ParseName), "pod", "write only records of this pod: its name, NAMESPACE/NAME or its uid")
}

// checkSelection rejects selections among records that no output has, and by names that are not read.
func (o *traceOptions) checkSelection() error {
	s, ends := &o.selection, o.wants("connection")
	events := ends || o.wants("transition")
	const (
		noEnds   = "--%s: chooses among connection records, and no output has them: add connection to --only"
		noEvents = "--%s: no output has transition or connection records: add one of them to --only"
		nothing  = "--%s: no output has transition, connection or alert records: add one of them to --only"
		noNames  = "--%s: with --sandbox and without alerts no names are read: add alert to --only, or leave out --sandbox"
	)
	unread := o.sandbox && !o.wants("alert")
	for _, c := range []struct {
		flag    string
		given   bool
		useful  bool
		problem string
	}{
		{"closed-by", len(s.ClosedBy) > 0, ends, noEnds},
		{"min-duration", s.MinDuration > 0, ends, noEnds},
		{"min-bytes", s.MinBytes > 0, ends, noEnds},
		{"sample", s.Sample > 1, events, noEvents},
		{"error", len(s.Errors) > 0, events, noEvents},
		{"container", len(s.Containers) > 0, events || o.wants("alert"), nothing},
		{"pod", len(s.Pods) > 0, events || o.wants("alert"), nothing},
		{"container", len(s.Containers) > 0, !unread, noNames},
		{"pod", len(s.Pods) > 0, !unread, noNames},
	} {
		if c.given && !c.useful {
			return usagef(c.problem, c.flag)
		}
	}
	return nil
}

// kernelSample returns N if the kernel programs apply the sample of 1/N. 0 means that they emit the events of all sockets,
// because something besides the outputs' records needs them, or because a reload could not change the sample.
func (o *traceOptions) kernelSample() uint64 {
	others := o.wants("alert") || o.summary > 0 || o.countsSockets() || o.recorder.wanted() || o.recording != "" ||
		o.count > 0 || o.wantsAllOwners()
	if o.selection.Sample <= 1 || others || o.path != "" && !o.mayReloadFilters() {
		return 0
	}
	return o.selection.Sample
}

// checkSampling refuses a sample where sockets have no cookies, by which they are chosen.
func (o *traceOptions) checkSampling(features probe.Features) error {
	cookie := features.Get(probe.SocketCookie)
	if o.selection.Sample <= 1 || cookie.Err == nil {
		return nil
	}
	return &probe.HostError{
		Problem: "--sample: it needs the cookies of sockets: " + cookie.Err.Error(),
		Remedy:  cookie.Remedy + ", or leave out --sample",
	}
}
