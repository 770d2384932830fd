package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/pflag"

	"github.com/tcpshift/tcpshift/internal/detect"
	"github.com/tcpshift/tcpshift/internal/monitor"
	"github.com/tcpshift/tcpshift/internal/output"
	"github.com/tcpshift/tcpshift/internal/privilege"
	"github.com/tcpshift/tcpshift/internal/replay"
	"github.com/tcpshift/tcpshift/internal/safeopen"
	"github.com/tcpshift/tcpshift/internal/trace"
)

// recordingQueue is how many bytes of a recording may wait for its disk: 100,000 transitions, or the longest table of
// sockets.
const recordingQueue = 64 << 20

// recording is the file of --recording. It is nil without --recording.
type recording struct {
	path  string
	out   output.Output
	queue *output.Queue
}

func addRecordingFlag(flags *pflag.FlagSet, o *traceOptions) {
	flags.Var(single(&o.recording, "FILE", parsePath), "recording", "write all inputs of detection to this new file, for 'tcpshift replay FILE'")
}

// checkRecording rejects --recording without detection.
func (o *traceOptions) checkRecording() error {
	switch {
	case o.recording == "":
	case !o.wants("alert"):
		return usagef("--recording: no output has alerts: add alert to --only")
	case o.recording == "-":
		return usagef("--recording: - is not a file: name one")
	}
	return nil
}

// openRecording opens the file of --recording, and makes it if there is none. It fails if the file is not empty.
func (o *traceOptions) openRecording(ctx context.Context) (*recording, error) {
	if o.recording == "" {
		return nil, nil
	}
	out, err := output.OpenFile(ctx, o.recording, output.FileOptions{Follow: o.follow})
	if errors.Is(err, safeopen.ErrRefused) {
		return nil, fmt.Errorf("--recording: %w: name a file of your own", err)
	}
	if err != nil {
		return nil, fmt.Errorf("--recording: %w", privilege.ExplainLimit(err))
	}
	if f, ok := out.(interface{ Size() (int64, error) }); ok {
		if size, err := f.Size(); err == nil && size > 0 {
			return nil, errors.Join(usagef("--recording: %s is not empty: name a new file", o.recording), out.Close())
		}
	}
	notify := func(message string) { warn(o.recording + ": " + message) }
	return &recording{o.recording, out, output.NewQueue(out, recordingQueue, notify)}, nil
}

// alsoAbandon makes now.abandon end the wait for the recording, too.
func (r *recording) alsoAbandon(now *running) {
	if r == nil {
		return
	}
	before := now.abandon
	now.abandon = func() {
		before()
		r.queue.Abandon()
	}
}

// close waits until the recording is written. It fails if that wait is abandoned.
func (r *recording) close() error {
	if r == nil {
		return nil
	}
	err := r.queue.Drain()
	if r.queue.Close() {
		err = errors.Join(err, r.out.Close())
	}
	if err != nil {
		return fmt.Errorf("--recording: %w", err)
	}
	return nil
}

// engine returns a function that makes an engine whose inputs are recorded, and sets cfg.Recording. It returns nil without
// --recording: then the monitor makes the usual engine.
func (r *recording) engine(cfg *trace.Config) func(c detect.Config, now time.Duration) monitor.Engine {
	if r == nil {
		return nil
	}
	h := replay.Header{Program: cfg.Start.Version, Host: cfg.Start.Host, BootID: cfg.Start.BootID, Kernel: cfg.Start.Kernel, Arch: cfg.Start.Arch}
	return func(c detect.Config, now time.Duration) monitor.Engine {
		recorder := replay.New(c, now, h, r.queue, func(message string) { warn(r.path + ": " + message) })
		cfg.Recording = recorder
		return recorder
	}
}
