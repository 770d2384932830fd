package main

import (
	"github.com/spf13/pflag"

	"github.com/tcpshift/tcpshift/internal/probe"
	"github.com/tcpshift/tcpshift/internal/selection"
)

// addSelectionFlags adds the flags that select among the records of all outputs.
func addSelectionFlags(flags *pflag.FlagSet, s *selection.Selection) {
	flags.Var(list(&s.ClosedBy, "WAY,...", selection.ParseClosedBy), "closed-by", "of connection records, write only those that ended so, such as timeout")
	flags.Var(single(&s.MinDuration, "D", parseDuration), "min-duration", "of connection records, write only those that lasted this long")
	flags.Var(single(&s.MinBytes, "SIZE", selection.ParseBytes), "min-bytes", "of connection records, write only those that sent and received this many bytes together")
	flags.Var(list(&s.Errors, "ERRNO,...", selection.ParseErrno), "error", "of transition and connection records, write only those with this error, such as ECONNREFUSED")
	flags.Var(single(&s.Sample, "1/N", selection.ParseSample), "sample", "of N connections, write the records of one; listeners and alerts are always written")
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
	const noEnds = " chooses among connection records, and no output has them: add connection to --only"
	switch {
	case len(s.ClosedBy) > 0 && !ends:
		return usagef("--closed-by:" + noEnds)
	case s.MinDuration > 0 && !ends:
		return usagef("--min-duration:" + noEnds)
	case s.MinBytes > 0 && !ends:
		return usagef("--min-bytes:" + noEnds)
	case s.Sample > 1 && !ends && !o.wants("transition"):
		return usagef("--sample: no output has transition or connection records: add one of them to --only")
	case len(s.Errors) > 0 && !ends && !o.wants("transition"):
		return usagef("--error: no output has transition or connection records: add one of them to --only")
	case !s.ByNames():
		return nil
	}
	name := "--pod"
	if len(s.Containers) > 0 {
		name = "--container"
	}
	switch {
	case !ends && !o.wants("transition") && !o.wants("alert"):
		return usagef("%s: no output has transition, connection or alert records: add one of them to --only", name)
	case o.sandbox && !o.wants("alert"):
		return usagef("%s: with --sandbox and without alerts no names are read: add alert to --only, or leave out --sandbox", name)
	}
	return nil
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
