package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/tcpshift/tcpshift/internal/record"
	"github.com/tcpshift/tcpshift/internal/replay"
	"github.com/tcpshift/tcpshift/internal/safeopen"
	"github.com/tcpshift/tcpshift/internal/trace"
)

// replayOptions are those of replay; trace has those that it shares.
type replayOptions struct {
	trace traceOptions
	path  string
	speed float64 // 0: as fast as possible
}

func newReplay(s *signals) *cobra.Command {
	o := replayOptions{trace: traceOptions{only: []string{"alert"}}}
	cmd := &cobra.Command{
		Use:   "replay [flags] FILE",
		Short: "Run a recording through detection again",
		Long: "Run the inputs of detection that trace or alerts has written with --recording through detection again. The alerts come\n" +
			"again as they were; with other thresholds, others come. FILE - is standard input. It needs no privileges.",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usagef("%d files: write '%s FILE', or - for standard input", len(args), cmd.CommandPath())
			}
			o.path = args[0]
			return nil
		},
		RunE: func(*cobra.Command, []string) error {
			if err := o.trace.check(); err != nil {
				return err
			}
			return runReplay(s, &o)
		},
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.Var(single(&o.speed, "N", parseSpeed), "speed", "replay N times as fast as it was: 1 in real time; 0, the default, as fast as possible")
	addFormatFlags(flags, &o.trace.formatOptions)
	addOutputFlags(flags, &o.trace.outputOptions)
	o.trace.queueSize = defaultQueueSize
	addLabelFlag(flags, &o.trace.formatOptions)
	addNameSelectionFlags(flags, &o.trace.selection)
	addDetectionFlags(flags, &o.trace.detection)
	return cmd
}

// parseSpeed parses a factor from 0 to 1000.
func parseSpeed(s string) (float64, error) {
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || !(f >= 0 && f <= 1000) {
		return 0, fmt.Errorf("%q is not a speed: use a number from 0 to 1000", s)
	}
	return f, nil
}

// runReplay replays a file. A line that is wrong ends it, after the records of the lines before.
func runReplay(s *signals, o *replayOptions) (err error) {
	defer s.handle(&running{})()
	in, name, err := openReplayed(o.path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	lines := replay.NewReader(in)
	p, err := replay.Open(lines, o.trace.detection)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	outs, err := o.trace.openAll(s.ctx)
	if err != nil {
		return err
	}
	live := &liveOutputs{all: outs}
	defer func() { err = errors.Join(err, live.close()) }()
	s.handle(live.running())
	p.Pace = pace(s.ctx, o.speed, p.Began)
	start := record.Start{Version: buildVersion(), Host: p.Host, BootID: p.BootID, Kernel: p.Kernel, Arch: p.Arch, PID: os.Getpid()}
	to := trace.NewReplay(s.ctx, trace.Config{Outputs: o.trace.traceOutputs(outs, &start), Start: start, Notify: warn})
	if err := to.Begin(time.Now()); err != nil {
		return err
	}
	err = p.Run(to.Alerts)
	if errors.As(err, new(*replay.LineError)) {
		err = fmt.Errorf("%s: %w", name, err)
	}
	if err == nil && lines.Cut() {
		warn(fmt.Sprintf("%s: line %d is cut: the replay ends before it", name, lines.Line()))
	}
	if gaps := p.Gaps(); gaps > 0 {
		warn(fmt.Sprintf("%s: the recording lacks %d lines, for which its disk had no room: alerts may differ from those of then", name, gaps))
	}
	return to.End(time.Now(), err)
}

// openReplayed opens the file at path, or standard input for -.
func openReplayed(path string) (in io.ReadCloser, name string, err error) {
	if path == "-" {
		return io.NopCloser(os.Stdin), "standard input", nil
	}
	in, err = safeopen.Read(path)
	if errors.Is(err, safeopen.ErrOtherKind) {
		err = fmt.Errorf("%w: name a file or a FIFO, or - for standard input", err)
	}
	return in, path, err
}

// pace waits until the time of a tick has come, at a speed; nil: nothing waits. began is the time of the first one.
func pace(ctx context.Context, speed float64, began time.Duration) func(at time.Duration) error {
	if speed == 0 {
		return func(time.Duration) error { return context.Cause(ctx) }
	}
	start := time.Now()
	return func(at time.Duration) error {
		due := start.Add(time.Duration(float64(at-began) / speed))
		select {
		case <-time.After(time.Until(due)):
			return context.Cause(ctx)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
