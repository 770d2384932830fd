package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/internal/activity"
	"github.com/tcpshift/tcpshift/internal/detect"
	"github.com/tcpshift/tcpshift/internal/metrics"
	"github.com/tcpshift/tcpshift/internal/monitor"
	"github.com/tcpshift/tcpshift/internal/probe"
	"github.com/tcpshift/tcpshift/internal/top"
	"github.com/tcpshift/tcpshift/internal/trace"
)

// screenWait is the longest time that an event waits for the loop. The screen is drawn once a second.
const screenWait = 100 * time.Millisecond

func newTop(s *signals) *cobra.Command {
	o := traceOptions{only: []string{"alert"}, screen: new(screen)}
	var path string
	var speed float64
	cmd := &cobra.Command{
		Use:   "top [flags] [FILE]",
		Short: "Show services, destinations, states and alerts live in the terminal",
		Long: "Show what happens now, live in the terminal: services by connections, failures, CLOSE_WAITs and retransmits,\n" +
			"destinations by the ports that they use and the time that is left, sockets by state, open alerts. Press ? for the keys.\n" +
			"With a FILE of records, show the same of this recording. That needs no privileges.",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usagef("%d files: write '%s FILE', or no file to watch this host", len(args), cmd.CommandPath())
			}
			path = strings.Join(args, "")
			return checkFileFlags(cmd.Flags(), path)
		},
		DisableFlagsInUseLine: true,
		RunE: func(*cobra.Command, []string) error {
			if err := checkTerminal(); err != nil {
				return err
			}
			if path != "" {
				return runTopOfFile(s, &o, path, speed)
			}
			o.outputs = []*outputValue{{text: os.DevNull, name: os.DevNull, scheme: schemeFile, path: os.DevNull}}
			if err := o.check(); err != nil {
				return err
			}
			return runTrace(s, &o, nil)
		},
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	o.format, o.color = formatNDJSON, colorAuto
	flags.Var(single(&o.color, "WHEN", parseColor), "color", "auto, always or never; auto heeds NO_COLOR and TERM")
	flags.Var(single(&speed, "N", parseSpeed), "speed", "of a recording: show it N times as fast as it was, 1 in real time; 0, the default, shows its end")
	addDurationFlag(flags, &o)
	addSizeFlags(flags, &o)
	addExcludeSelfFlag(flags, &o)
	addOwnerAtReadFlag(flags, &o)
	addFilterFlags(flags, &o.filter, hostNames)
	addDetectionFlags(flags, &o.detection)
	return cmd
}

// checkTerminal rejects what is no terminal that can show a screen.
func checkTerminal() error {
	switch {
	case !isTerminal(unix.Stdout):
		return usagef("standard output is no terminal, which top needs: use trace or alerts to write records")
	case !isTerminal(unix.Stdin):
		return usagef("standard input is no terminal, from which top takes keys: use trace or alerts to write records")
	}
	if err := top.CanShow(); err != nil {
		return usagef("%w: use trace --format text, or set TERM to what your terminal is", err)
	}
	return nil
}

// screen is the screen of top. Its methods do nothing on nil: no command but top has one.
type screen struct {
	shown    atomic.Pointer[top.Screen] // nil: it is not open
	activity *activity.Activity
	monitor  *monitor.Monitor // nil: there is none yet

	mu   sync.Mutex
	held []string // messages that standard error gets when the terminal is free again
}

// activityMetrics passes what the loop shows to metrics on to an Activity.
type activityMetrics struct{ *activity.Activity }

// Publish implements [trace.Metrics].
func (a activityMetrics) Publish(now time.Time, counts []metrics.Counts) {
	var lost uint64
	for _, c := range counts {
		lost = max(lost, c.LostRingFull+c.LostRingBusy+c.LostReentry)
	}
	a.Activity.Publish(now, lost)
}

// startScreen shows the screen of top, if that is wanted. The context that it returns is canceled when the user
// quits. end gives the terminal back.
func (o *traceOptions) startScreen(ctx context.Context, cfg *trace.Config, p *probe.Probe) (_ context.Context, end func(), err error) {
	s := o.screen
	if s == nil {
		return ctx, func() {}, nil
	}
	s.activity = activity.New(activity.Config{Destinations: s.destinations}, time.Now())
	cfg.Metrics, cfg.MaxWait = activityMetrics{s.activity}, screenWait
	counter := monitor.NewSocketCounter(p.CountSockets, o.filter, monitor.ForScreen, warn)
	cfg.SocketCounts = counter
	err = s.open(top.Config{Host: cfg.Start.Host, Snapshot: s.activity.Snapshot, Wake: cfg.Source.Wake, NoColor: !o.wantsColor()})
	if err != nil {
		counter.Close()
		return ctx, nil, err
	}
	ctx, cancel := s.untilQuit(ctx)
	return ctx, func() { counter.Close(); s.close(); cancel() }, nil
}

// wantsColor reports whether the screen may have colors.
func (o *traceOptions) wantsColor() bool {
	return o.color == colorAlways || o.color == colorAuto && colorIsWanted()
}

// destinations asks detection. The loop calls it.
func (s *screen) destinations(limit int) []detect.DestinationUsage {
	if s.monitor == nil {
		return nil
	}
	return s.monitor.Destinations(limit)
}

// open takes over the terminal. From then on messages for the operator are on the screen.
func (s *screen) open(c top.Config) error {
	shown, err := top.Open(c)
	if err != nil {
		return fmt.Errorf("top: %w", err)
	}
	s.shown.Store(shown)
	onScreen.Store(s)
	return nil
}

// restore gives the terminal back at once, and standard error the messages. Any goroutine may call it.
func (s *screen) restore() {
	if s == nil {
		return
	}
	if shown := s.shown.Load(); shown != nil {
		shown.Restore()
	}
	onScreen.CompareAndSwap(s, nil)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, message := range s.held {
		notices.Add(message)
	}
	s.held = nil
}

func (s *screen) close() {
	if shown := s.shown.Load(); shown != nil {
		shown.Close()
	}
	s.restore()
}

// maxHeld bounds the messages that wait for the terminal.
const maxHeld = 100

// message shows a message for the operator.
func (s *screen) message(message string) {
	if shown := s.shown.Load(); shown != nil {
		shown.Message(message)
	}
	if !isTerminal(unix.Stderr) {
		notices.Add(message)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.held) < maxHeld {
		s.held = append(s.held, message)
	}
}

// onScreen is the screen that has the terminal; nil: there is none.
var onScreen atomic.Pointer[screen]
