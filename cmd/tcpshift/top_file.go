package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/spf13/pflag"

	"github.com/tcpshift/tcpshift/internal/activity"
	"github.com/tcpshift/tcpshift/internal/detect"
	"github.com/tcpshift/tcpshift/internal/record"
	recordread "github.com/tcpshift/tcpshift/internal/recording"
	"github.com/tcpshift/tcpshift/internal/replay"
	"github.com/tcpshift/tcpshift/internal/top"
)

// topOfFile are the flags of top that a recording has a use for.
var topOfFile = map[string]bool{"speed": true, "color": true}

// snapshotEvery is the least time, by the clock of this host, between two snapshots of a recording, however fast it is read.
const snapshotEvery = 250 * time.Millisecond

// checkFileFlags rejects flags that top has no use for with the recording at path, or without one if path is "". It also
// rejects standard input ("-") as a recording.
func checkFileFlags(flags *pflag.FlagSet, path string) (err error) {
	flags.Visit(func(f *pflag.Flag) {
		switch {
		case path != "" && !topOfFile[f.Name]:
			err = usagef("--%s: a recording shows what it has: leave it out, or leave %s out to watch this host", f.Name, path)
		case path == "" && f.Name == "speed":
			err = usagef("--speed: there is no recording: name its file")
		}
	})
	if path == "-" {
		err = usagef("-: top takes keys from standard input: name a file")
	}
	return err
}

// runTopOfFile shows a recording on the screen of o, until the user quits.
func runTopOfFile(s *signals, o *traceOptions, path string, speed float64) (err error) {
	defer s.handle(&running{})()
	in, name, err := openReplayed(s.ctx, path)
	if err != nil {
		return ignoreInterrupted(err)
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	records, err := openRecords(in)
	if err != nil {
		return ignoreInterrupted(fmt.Errorf("%s: %w", name, err))
	}
	a := activity.New(activity.Config{Destinations: records.Destinations, FromEvents: true}, records.First.Time.Std())
	records.Watch = a
	err = o.screen.open(top.Config{Host: records.First.Host, Title: record.Printable(filepath.Base(name)), Snapshot: a.Snapshot, NoColor: !o.wantsColor()})
	if err != nil {
		return err
	}
	defer o.screen.close()
	giveBack := func() error { o.screen.restore(); return nil }
	s.handle(&running{closeLinks: giveBack})
	ctx, cancel := o.screen.untilQuit(s.ctx)
	defer cancel()
	records.Pace = publishing(a, records, pace(ctx, speed, time.Duration(records.First.Time)))
	switch err := runUntil(ctx, records); {
	case ctx.Err() != nil: // the user has quit
		return nil
	case err != nil:
		return fmt.Errorf("%s: %w", name, err)
	}
	a.Publish(records.Now(), records.Lost())
	o.screen.shown.Load().Over("END OF THE RECORDING")
	<-ctx.Done()
	return nil
}

// publishing returns a function for the Pace of records that publishes snapshots when they are due, and then waits.
func publishing(a *activity.Activity, records *replay.Records, wait func(at time.Duration) error) func(at time.Duration) error {
	var shownAt time.Time
	return func(at time.Duration) error {
		switch now := records.Wall(at); {
		case !a.Due(now):
		case time.Since(shownAt) < snapshotEvery:
			a.Skip(now)
		default:
			shownAt = time.Now()
			a.Publish(now, records.Lost())
		}
		return wait(at)
	}
}

// runUntil passes on all records, and returns at the end of ctx if that comes first: the writer of a FIFO may never write
// again. The alerts are those of the recording.
func runUntil(ctx context.Context, records *replay.Records) error {
	ran := make(chan error, 1)
	go func() { ran <- records.Run(func([]detect.Alert) error { return nil }) }()
	select {
	case err := <-ran:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// openRecords reads the first record. It refuses a recording of the inputs of detection.
func openRecords(file io.Reader) (*replay.Records, error) {
	in, err := recordread.Decompress(file, 64<<10)
	if err != nil {
		return nil, err
	}
	if first, _ := in.Peek(replay.FirstBytes); replay.IsRecording(first) { // fewer bytes are no recording
		return nil, errors.New("has the inputs of detection, and no records: use replay, or a file that --output has written")
	}
	lines, err := recordread.NewReader(in)
	if err != nil {
		return nil, err
	}
	return replay.OpenRecords(lines, detect.Config{})
}

// untilQuit returns a context that is canceled when the user quits.
func (s *screen) untilQuit(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		select {
		case <-s.shown.Load().Quit():
			cancel(errors.New("the user has quit"))
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(nil) }
}
