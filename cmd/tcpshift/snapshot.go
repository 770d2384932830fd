package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/spf13/cobra"

	"github.com/tcpshift/tcpshift/internal/filter"
	"github.com/tcpshift/tcpshift/internal/netns"
	"github.com/tcpshift/tcpshift/internal/output"
	"github.com/tcpshift/tcpshift/internal/record"
	"github.com/tcpshift/tcpshift/internal/selection"
	"github.com/tcpshift/tcpshift/internal/snapshot"
	"github.com/tcpshift/tcpshift/internal/tcp"
	"github.com/tcpshift/tcpshift/internal/workload"
)

type snapshotOptions struct {
	formatOptions
	output    string // path
	follow    bool
	filter    filter.Filter // its NewStates are those of the sockets
	selection selection.Selection
	count     []tcp.SocketKey // none: the sockets are listed
}

func newSnapshot(s *signals) *cobra.Command {
	var o snapshotOptions
	cmd := &cobra.Command{
		Use:   "snapshot",
		Short: "List all TCP sockets with their owners, TIME_WAIT included, then exit",
		Args:  noArguments,
		RunE:  func(*cobra.Command, []string) error { return runSnapshot(s, &o) },
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	addFormatFlags(flags, &o.formatOptions)
	o.output = "-"
	flags.Var(single(&o.output, "PATH", parsePath), "output", "append to this file; - is standard output")
	addFollowFlag(flags, &o.follow)
	addLabelFlag(flags, &o.formatOptions)
	addFilterFlags(flags, &o.filter, hostNames)
	addNameSelectionFlags(flags, &o.selection)
	flags.Var(list(&o.filter.NewStates, "STATE,...", filter.ParseState), "state", "state that the socket has, such as TIME_WAIT")
	flags.Var(list(&o.count, "KEY,...", parseSocketKey), "count-by", "instead of the sockets, write how many have the same values of these keys, most first: "+strings.Join(socketKeyNames(), ", "))
	return cmd
}

func runSnapshot(s *signals, o *snapshotOptions) error {
	if err := o.check(o.format == formatNDJSON, o.format == formatText); err != nil {
		return err
	}
	o.schema = cmp.Or(o.schema, record.SchemaNative)
	if err := checkFields("--fields", o.schema, o.labels, o.fields); err != nil {
		return err
	}
	w := &signalWriter{ctx: s.ctx, abandoned: make(chan struct{})}
	defer s.handle(&running{abandon: sync.OnceFunc(func() { close(w.abandoned) })})()
	out, err := openOutput(s.ctx, &outputValue{path: o.output}, o.follow)
	if err != nil {
		return err
	}
	w.out = out
	done := make(chan error, 1)
	go func() { done <- o.take(w) }()
	select {
	case err := <-done:
		return errors.Join(err, out.Close())
	case <-w.abandoned: // the goroutine still uses the output
		return w.stopped()
	}
}

func (o *snapshotOptions) take(w snapshot.Writer) error {
	namespaces, err := netns.Find(o.filter.Netns)
	if err != nil {
		return err
	}
	namespaces = slices.DeleteFunc(namespaces, func(n netns.Namespace) bool { return !o.filter.MatchesNetns(n.Inode) })
	enc := newEncoder(o.format, o.schema, o.labels, o.fields, textEncoder(o.color, o.output))
	which := snapshot.Sockets{Namespaces: namespaces, Filter: &o.filter, Selection: o.selection.OrNil()}
	if o.wantsNames() {
		which.Names = workload.NewOnce()
	}
	if len(o.count) > 0 {
		return snapshot.Count(&which, o.count, enc, w)
	}
	return snapshot.Take(&which, enc, w)
}

// wantsNames reports whether records have the names of containers and pods, or sockets are selected by them. In
// text the list of sockets has none.
func (o *snapshotOptions) wantsNames() bool {
	if len(o.count) > 0 {
		return o.selection.ByNames() || slices.ContainsFunc(o.count, tcp.SocketKey.NeedsNames)
	}
	return o.selection.ByNames() || o.format != formatText
}

func socketKeyNames() (names []string) {
	for _, key := range tcp.SocketKeys() {
		names = append(names, key.String())
	}
	return names
}

func parseSocketKey(s string) (tcp.SocketKey, error) {
	for _, key := range tcp.SocketKeys() {
		if s == key.String() {
			return key, nil
		}
	}
	return 0, fmt.Errorf("%q is not a key: use %s", s, strings.Join(socketKeyNames(), ", "))
}

// signalWriter writes until a signal comes.
type signalWriter struct {
	ctx       context.Context
	out       output.Output
	written   atomic.Uint64
	abandoned chan struct{}
}

// Write writes all lines and counts the bytes. After the signal it writes nothing and fails.
func (w *signalWriter) Write(lines []byte) (int, error) {
	if w.ctx.Err() != nil {
		return 0, w.stopped()
	}
	return output.WriteCounted(w.out, lines, func(n int) { w.written.Add(uint64(n)) })
}

func (w *signalWriter) stopped() error {
	return fmt.Errorf("stopped by %w: the list of sockets ends after %d bytes and is not complete", context.Cause(w.ctx), w.written.Load())
}
