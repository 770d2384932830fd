package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"github.com/tcpshift/tcpshift/internal/filter"
	"github.com/tcpshift/tcpshift/internal/netns"
	"github.com/tcpshift/tcpshift/internal/output"
	"github.com/tcpshift/tcpshift/internal/record"
	"github.com/tcpshift/tcpshift/internal/snapshot"
)

type snapshotOptions struct {
	format string
	output string
	netns  []uint32
	labels []record.Label
}

func newSnapshot() *cobra.Command {
	o := snapshotOptions{format: formatNDJSON, output: "-"}
	cmd := &cobra.Command{
		Use:   "snapshot",
		Short: "List the TCP sockets of this moment, with owners, TIME_WAIT included, then exit",
		Args:  noArguments,
		RunE:  func(cmd *cobra.Command, _ []string) error { return runSnapshot(cmd.Context(), &o) },
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.Var(word(&o.format, "FORMAT", parseFormat), "format", "ndjson or text")
	flags.Var(word(&o.output, "PATH", parsePath), "output", "append to this file; - is standard output")
	flags.Var(&labelsValue{labels: &o.labels}, "label", "add this member to every record; may be repeated")
	flags.Var(list(&o.netns, "NETNS,...", filter.ParseNetns), "netns", "network namespace: inode, path or pid:N; without it all")
	return cmd
}

func runSnapshot(ctx context.Context, o *snapshotOptions) (err error) {
	if err := checkLabels(o.labels, o.format); err != nil {
		return err
	}
	out, err := output.Open(ctx, o.output)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	namespaces, err := netns.Find(o.netns)
	if err != nil {
		return err
	}
	defer netns.CloseAll(namespaces)
	var enc snapshot.Encoder = record.NewNative(o.labels)
	if o.format == formatText {
		enc = record.Text{}
	}
	return snapshot.Take(namespaces, enc, out)
}
