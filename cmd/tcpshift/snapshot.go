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
	formatOptions
	output string
	netns  []uint32
}

func newSnapshot() *cobra.Command {
	o := snapshotOptions{output: "-"}
	cmd := &cobra.Command{
		Use:   "snapshot",
		Short: "List all TCP sockets with their owners, TIME_WAIT included, then exit",
		Args:  noArguments,
		RunE:  func(cmd *cobra.Command, _ []string) error { return runSnapshot(cmd.Context(), &o) },
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	addFormatFlags(flags, &o.formatOptions)
	addOutputFlag(flags, &o.output)
	addLabelFlag(flags, &o.formatOptions)
	flags.Var(list(&o.netns, "NETNS,...", filter.ParseNetns), "netns", "network namespace: inode, path or pid:N (default all)")
	return cmd
}

func runSnapshot(ctx context.Context, o *snapshotOptions) (err error) {
	if err := o.check(); err != nil {
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
	var enc snapshot.Encoder = record.NewNative(o.labels)
	if o.format == formatText {
		enc = textEncoder(o.color, o.output)
	}
	return snapshot.Take(namespaces, enc, out)
}
