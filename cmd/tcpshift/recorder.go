package main

import (
	"errors"
	"fmt"

	"github.com/spf13/pflag"

	"github.com/tcpshift/tcpshift/internal/flight"
	"github.com/tcpshift/tcpshift/internal/privilege"
	"github.com/tcpshift/tcpshift/internal/record"
	"github.com/tcpshift/tcpshift/internal/safeopen"
	"github.com/tcpshift/tcpshift/internal/trace"
)

// recorderOptions are those of the flight recorder.
type recorderOptions struct {
	size      int    // bytes; 0: there is none
	directory string // of its files
}

func addRecorderFlags(flags *pflag.FlagSet, o *recorderOptions) {
	flags.Var(single(&o.size, "SIZE", parseRecorderSize), "recorder", "keep the last transitions in this much memory, and write them to a file of their own when an alert opens or at SIGUSR1: a power of two from 4MiB to 256MiB")
	flags.Var(single(&o.directory, "DIR", parseDirectory), "recorder-dir", "the directory of these files, which only you can change: at most 10 files or 1 GiB")
}

func parseRecorderSize(s string) (int, error) {
	size, err := parseSize(flight.MinSize, s)
	if err == nil && size > flight.MaxSize {
		return 0, fmt.Errorf("%q is out of range: use %dMiB to %dMiB", s, flight.MinSize>>20, flight.MaxSize>>20)
	}
	return size, err
}

func (o *recorderOptions) wanted() bool { return o.size > 0 }

// check rejects one option without the other.
func (o *recorderOptions) check() error {
	switch {
	case o.size > 0 && o.directory == "":
		return usagef("--recorder: its files have no place: add --recorder-dir DIR")
	case o.size == 0 && o.directory != "":
		return usagef("--recorder-dir: there is no flight recorder: add --recorder SIZE, such as --recorder 64MiB")
	}
	return nil
}

// maxKept is how much memory the recorder takes at most: its ring, and those of a file that is written and of one that waits.
func (o *recorderOptions) maxKept() int64 { return 3 * int64(o.size) }

// directories are those in which the recorder changes files.
func (o *recorderOptions) directories() []string {
	if o.directory == "" {
		return nil
	}
	return []string{o.directory}
}

// flightRecorder is the flight recorder of a trace. It is nil if there is none.
type flightRecorder struct{ *flight.Recorder }

// open opens the directory, and makes it if there is none.
func (o *recorderOptions) open() (*flightRecorder, error) {
	if !o.wanted() {
		return nil, nil
	}
	root, err := safeopen.PrivateRoot(o.directory)
	if errors.Is(err, safeopen.ErrRefused) {
		return nil, fmt.Errorf("--recorder-dir: %w: name a directory that only you can change, in one that others cannot", err)
	}
	if err != nil {
		return nil, fmt.Errorf("--recorder-dir: %w", privilege.ExplainLimit(err))
	}
	return &flightRecorder{flight.New(o.size, root, warn)}, nil
}

// addTo lets signals ask for a file, and end the wait for one.
func (f *flightRecorder) addTo(now *running) {
	if f == nil {
		return
	}
	before := now.abandon
	now.dump = f.Ask
	now.abandon = func() {
		before()
		f.Abandon()
	}
}

// close waits until all files are written, or it is abandoned.
func (f *flightRecorder) close() error {
	if f == nil {
		return nil
	}
	return f.Close()
}

// flight is what the loop has of the recorder; nil: there is none.
func (o *traceOptions) flight(f *flightRecorder) *trace.Flight {
	if f == nil {
		return nil
	}
	return &trace.Flight{Recorder: f.Recorder, Encoder: func() record.Encoder { return record.NewEncoder(record.SchemaNative, o.labels) }}
}
