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

// outputOptions are the flags that select where records go.
type outputOptions struct {
	outputs    []*outputValue // none: standard output
	follow     bool
	spool      spoolOptions
	ownSockets *output.OwnSockets // of outputs over TCP, to leave them out; nil: none
}

func addOutputFlags(flags *pflag.FlagSet, o *outputOptions) {
	flags.Var(verbatim(&o.outputs, "TARGET", parseOutput), "output", "append to this file; - is standard output; may be repeated, each with options: TARGET?format=text&only=alert")
	addFollowFlag(flags, &o.follow)
	addSpoolFlags(flags, &o.spool)
}

func addFollowFlag(flags *pflag.FlagSet, follow *bool) {
	flags.BoolVar(follow, "output-follow", false, "with --output: also write to a symbolic link, a file with a hard link, or another user's file")
}

// warnReplaceable warns if another user can make SIGHUP open v in another directory.
func warnReplaceable(v *outputValue, out output.Output) {
	if !out.Reopens() {
		return
	}
	if why := safeopen.ReplaceableParent(v.path); why != "" {
		warn("--output: " + why + ", so that SIGHUP opens another file: use a directory below those that only root can change")
	}
}

// openOutput opens the target of v.
func openOutput(ctx context.Context, v *outputValue, follow bool) (output.Output, error) {
	out, err := output.OpenFile(ctx, v.path, output.FileOptions{Follow: follow, Mode: v.mode})
	switch {
	case err == nil:
		return out, nil
	case errors.Is(err, safeopen.ErrRefused):
		return nil, fmt.Errorf("--output: %w: name a file of your own, or add --output-follow if it is meant", err)
	case errors.Is(err, safeopen.ErrOtherKind):
		return nil, fmt.Errorf("--output: %w: name a file, a FIFO or a terminal, or redirect standard output", err)
	case v.path == "-":
		return nil, err
	}
	return nil, fmt.Errorf("--output: %w", privilege.ExplainLimit(err))
}
