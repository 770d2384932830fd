package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/pflag"

	"github.com/tcpshift/tcpshift/internal/output"
	"github.com/tcpshift/tcpshift/internal/privilege"
	"github.com/tcpshift/tcpshift/internal/safeopen"
)

// outputOptions are the flags that say where records go.
type outputOptions struct {
	output string // path
	follow bool
}

func addOutputFlags(flags *pflag.FlagSet, o *outputOptions) {
	o.output = "-"
	flags.Var(single(&o.output, "PATH", parsePath), "output", "append to this file; - is standard output")
	flags.BoolVar(&o.follow, "output-follow", false, "with --output: also write to a symbolic link, a file with a hard link, or another user's file")
}

func (o *outputOptions) open(ctx context.Context) (output.Output, error) {
	out, err := output.Open(ctx, o.output, o.follow)
	switch {
	case err == nil:
		return out, nil
	case errors.Is(err, safeopen.ErrRefused):
		return nil, fmt.Errorf("--output: %w: name a file of your own, or add --output-follow if it is meant", err)
	case errors.Is(err, safeopen.ErrOtherKind):
		return nil, fmt.Errorf("--output: %w: name a file, a FIFO or a terminal, or redirect standard output", err)
	case o.output == "-":
		return nil, err
	}
	return nil, fmt.Errorf("--output: %w", privilege.ExplainLimit(err))
}
