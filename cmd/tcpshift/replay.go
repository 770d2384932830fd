package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tcpshift/tcpshift/internal/detect"
	"github.com/tcpshift/tcpshift/internal/record"
	recordread "github.com/tcpshift/tcpshift/internal/recording"
	"github.com/tcpshift/tcpshift/internal/replay"
	"github.com/tcpshift/tcpshift/internal/summary"
	"github.com/tcpshift/tcpshift/internal/tcp"
	"github.com/tcpshift/tcpshift/internal/trace"
)

// replayOptions are the options of replay. trace has the options that both commands have.
type replayOptions struct {
	trace traceOptions
	path  string
	speed float64  // 0: as fast as possible
	only  []string // nil: alerts, and summaries if they are wanted
}

// replayTypes are the types of records that a replay can write besides start and stop.
var replayTypes = []string{"transition", "connection", "alert", "summary"}

func newReplay(s *signals) *cobra.Command {
	var o replayOptions
	cmd := &cobra.Command{
		Use:   "replay [flags] FILE",
		Short: "Run a recording through detection, summary and text output again",
		Long: "Run a recording through detection again. With a file that trace or alerts has written with --recording, the alerts are\n" +
			"the same as in that run; with other thresholds they may differ. With a file of records that has transitions, all alerts\n" +
			"are unverified. FILE - is standard input. The command needs no privileges.",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usagef("%d files: write '%s FILE', or - for standard input", len(args), cmd.CommandPath())
			}
			o.path = args[0]
			return nil
		},
		RunE: func(*cobra.Command, []string) error {
			if err := o.check(); err != nil {
				return err
			}
			return runReplay(s, &o)
		},
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.Var(single(&o.speed, "N", parseSpeed), "speed", "replay N times as fast as the trace ran: 1 is real time; 0, the default, is as fast as possible")
	addFormatFlags(flags, &o.trace.formatOptions)
	flags.Var(list(&o.only, "TYPE,...", parseReplayType), "only", "write these record types, alert by default: "+strings.Join(replayTypes, ", ")+"; a file of --recording has no connections")
	flags.Var(single(&o.trace.summary, "D", parseWindow), "summary", "also write summary records of the connections that ended in each window of this length, such as 1m")
	addOutputFlags(flags, &o.trace.outputOptions)
	o.trace.queueSize = defaultQueueSize
	addLabelFlag(flags, &o.trace.formatOptions)
	addReplayFilterFlags(flags, &o.trace.filter)
	addSelectionFlags(flags, &o.trace.selection)
	addDetectionFlags(flags, &o.trace.detection)
	return cmd
}

func parseReplayType(s string) (string, error) {
	if slices.Contains(replayTypes, s) {
		return s, nil
	}
	if slices.Contains(record.SelectableTypes(), s) {
		return "", fmt.Errorf("a replay has no records of the type %s: use %s", s, strings.Join(replayTypes, ", "))
	}
	return parseRecordType(s)
}

// check completes the options, and rejects those that contradict each other.
func (o *replayOptions) check() error {
	o.trace.only = o.only
	if o.only == nil {
		o.trace.only = []string{"alert"}
		if o.trace.summary > 0 {
			o.trace.only = append(o.trace.only, "summary")
		}
	}
	if err := o.trace.check(); err != nil {
		return err
	}
	for _, v := range o.trace.outputs {
		for _, only := range v.only {
			if !slices.Contains(replayTypes, only) {
				return usagef("--output: %s: only: a replay has no records of the type %s: use %s", v.text, only, strings.Join(replayTypes, ", "))
			}
		}
	}
	return nil
}

// needsConnections names what only a stream of records has; empty: nothing of it is wanted.
func (o *replayOptions) needsConnections() string {
	switch {
	case o.trace.summary > 0:
		return "--summary"
	case o.trace.wants("connection"):
		return "--only: connection"
	}
	return ""
}

// parseSpeed parses a factor from 0 to 1000.
func parseSpeed(s string) (float64, error) {
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || !(f >= 0 && f <= 1000) {
		return 0, fmt.Errorf("%q is not a speed: use a number from 0 to 1000", s)
	}
	return f, nil
}

// replayed is the content of a file: recorded inputs of detection, or records.
type replayed struct {
	start record.Start
	began time.Duration // Unix time
	run   func(pace func(at time.Duration) error, to replayTarget) error
	// wall returns the wall-clock time at a time that is passed to pace.
	wall func(at time.Duration) time.Time
	// hasConnections means that there may be connection records.
	hasConnections bool
	// counts returns how many transitions the file has, and how many of them the filter has left out. It is called after run.
	counts func() (seen, filtered uint64)
	// remarks returns messages for the operator: in what the file is not one complete run of one host. It is called after run.
	remarks func() []string
}

// replayTarget takes what is replayed; [*trace.Replay] is one.
type replayTarget interface {
	Transition(t *tcp.Transition) error
	Connection(last *tcp.Transition, c *tcp.Connection) error
	Alerts(alerts []detect.Alert) error
	EndTurn(at time.Time) error
}

// runReplay replays a file. A bad line of recorded inputs ends the replay with an error, after the alerts of the lines
// before it are written.
func runReplay(s *signals, o *replayOptions) (err error) {
	defer s.handle(&running{})()
	in, name, err := openReplayed(s.ctx, o.path)
	if err != nil {
		return ignoreInterrupted(err)
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	r, err := readReplayed(in, &o.trace)
	if err != nil {
		return ignoreInterrupted(fmt.Errorf("%s: %w", name, err))
	}
	if needed := o.needsConnections(); needed != "" && !r.hasConnections {
		return usagef("%s: %s has inputs of detection, and no connections: replay records, such as the output of trace", needed, name)
	}
	if r.hasConnections {
		if err := checkRecordedComms(&o.trace.filter); err != nil {
			return err
		}
	}
	outs, err := o.trace.openAll(s.ctx)
	if err != nil {
		return err
	}
	live := &liveOutputs{all: outs}
	defer func() { err = errors.Join(err, live.close()) }()
	s.handle(live.running())
	r.start.Version, r.start.PID = buildVersion(), os.Getpid()
	cfg := trace.Config{Outputs: o.trace.traceOutputs(outs, &r.start), Start: r.start, Notify: warn}
	if o.trace.summary > 0 {
		cfg.Summary = summary.New(o.trace.summary, time.Unix(0, int64(r.began)))
	}
	to := trace.NewReplay(s.ctx, cfg)
	if err := to.Begin(time.Now()); err != nil {
		return err
	}
	last, paced := r.began, pace(s.ctx, o.speed, r.began)
	err = r.run(func(at time.Duration) error {
		last = at
		return paced(at)
	}, o.target(to))
	if errors.As(err, new(*replay.LineError)) {
		err = fmt.Errorf("%s: %w", name, err)
	}
	if err == nil {
		for _, remark := range r.remarks() {
			warn(name + ": " + remark)
		}
	}
	to.Count(r.counts())
	return to.End(r.wall(last), err)
}

// ignoreInterrupted returns err, or nil if a signal has caused it. It is for errors before the first record.
func ignoreInterrupted(err error) error {
	if errors.As(err, new(trace.Interrupted)) {
		return nil
	}
	return err
}

// target passes to to what the outputs want.
func (o *replayOptions) target(to *trace.Replay) replayTarget {
	if o.trace.wants("transition") || o.trace.wants("connection") || o.trace.summary > 0 {
		return to
	}
	return alertsOnly{to}
}

// alertsOnly takes alerts only.
type alertsOnly struct{ *trace.Replay }

func (alertsOnly) Transition(*tcp.Transition) error                  { return nil }
func (alertsOnly) Connection(*tcp.Transition, *tcp.Connection) error { return nil }

// readReplayed reads the first line, which shows whether the file, which may be compressed, has inputs of detection or records.
func readReplayed(file io.Reader, o *traceOptions) (*replayed, error) {
	in, err := recordread.Decompress(file, 64<<10)
	if err != nil {
		return nil, err
	}
	first, _ := in.Peek(replay.FirstBytes) // fewer are no recording
	if replay.IsRecording(first) {
		return recordingOf(in, o)
	}
	return recordsOf(in, o)
}

// recordingOf reads the header of recorded inputs.
func recordingOf(in io.Reader, o *traceOptions) (*replayed, error) {
	lines := replay.NewReader(in)
	p, err := replay.Open(lines, o.detection)
	if err != nil {
		return nil, err
	}
	p.Filter = &o.filter
	return &replayed{
		counts: p.Counts, wall: func(at time.Duration) time.Time { return time.Unix(0, int64(at)) },
		start: record.Start{Host: p.Host, BootID: p.BootID, Kernel: p.Kernel, Arch: p.Arch}, began: p.Began,
		run: func(pace func(at time.Duration) error, to replayTarget) error {
			p.Pace = pace
			if _, only := to.(alertsOnly); !only { // an older recording has no times of transitions
				p.Event = to.Transition
			}
			return p.Run(to.Alerts)
		},
		remarks: func() (list []string) {
			if lines.Cut() {
				list = append(list, fmt.Sprintf("line %d is not complete: the replay ends before it", lines.Line()))
			}
			if gaps := p.Gaps(); gaps > 0 {
				list = append(list, fmt.Sprintf("the recording lacks %d lines, because its disk did not take them: alerts may differ from those of the trace", gaps))
			}
			return list
		},
	}, nil
}

// recordsOf reads the first record.
func recordsOf(in io.Reader, o *traceOptions) (*replayed, error) {
	lines, err := recordread.NewReader(in)
	if err != nil {
		return nil, err
	}
	r, err := replay.OpenRecords(lines, o.detection)
	if err != nil {
		return nil, err
	}
	r.Filter = &o.filter
	return &replayed{
		counts: r.Counts, wall: r.Wall,
		start: record.Start{Host: r.First.Host, BootID: r.First.BootID, Kernel: r.First.Kernel, Arch: r.First.Arch}, began: time.Duration(r.First.Time),
		hasConnections: true,
		run: func(pace func(at time.Duration) error, to replayTarget) error {
			r.Pace = func(at time.Duration) error {
				if err := to.EndTurn(r.Wall(at)); err != nil {
					return err
				}
				return pace(at)
			}
			r.Event = func(t *tcp.Transition, c *tcp.Connection) error {
				if c == nil {
					return to.Transition(t)
				}
				return to.Connection(t, c)
			}
			return r.Run(to.Alerts)
		},
		remarks: func() (list []string) {
			all := lines.Summary()
			if len(all.Shown) > 0 {
				list = append(list, fmt.Sprintf("%d lines are no records; line %d: %s", all.Unreadable, all.Shown[0].Line, all.Shown[0].Why))
			}
			if n := r.SetBack(); n > 0 {
				list = append(list, fmt.Sprintf("the time goes back by more than 10 s, %d times: the clock was set back, or files are not in order", n))
			}
			if n := r.OfOtherHosts(); n > 0 {
				list = append(list, fmt.Sprintf("%d records are of other hosts than the first: they are in no alert", n))
			}
			if all.CutOff {
				list = append(list, "the end of the file is missing or damaged: the replay ends there")
			}
			return list
		},
	}, nil
}

// pace returns a function that waits until a tick is due, at a speed; at, and began, when
// the recording begins, are Unix times. With speed 0 the function does not wait. It returns the cause of ctx when that
// is done.
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
