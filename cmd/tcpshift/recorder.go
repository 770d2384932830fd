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

// recorderOptions are the options of the flight recorder.
type recorderOptions struct {
	size      int    // bytes; 0: there is none
	directory string // of its files
}

func addRecorderFlags(flags *pflag.FlagSet, o *recorderOptions) {
	flags.Var(single(&o.size, "SIZE", parseRecorderSize), "recorder", "keep the last transitions in this much memory, and write them to a file of their own when an alert opens or at SIGUSR1: a power of two from 4MiB to 256MiB")
	flags.Var(single(&o.directory, "DIR", parseDirectory), "recorder-dir", "directory for these files, at most 10 of them and 1 GiB; only you may be able to change it")
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
		return usagef("--recorder: it needs a directory for its files: add --recorder-dir DIR")
	case o.size == 0 && o.directory != "":
		return usagef("--recorder-dir: there is no flight recorder: add --recorder SIZE, such as --recorder 64MiB")
	}
	return nil
}

// maxKept returns how much memory the recorder takes at most, in bytes: its ring, the events of a file that is being
// written, and the events of a file that waits.
func (o *recorderOptions) maxKept() int64 { return 3 * int64(o.size) }

// directories returns the directories in which the recorder changes files.
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

// addTo adds the recorder to what signals do: SIGUSR1 asks it for a file, and now.abandon ends the wait for its files.
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

// close waits until all files are written. It fails if that wait is abandoned.
func (f *flightRecorder) close() error {
	if f == nil {
		return nil
	}
	return f.Close()
}

// flight returns the recorder as the loop uses it; nil: there is none.
func (o *traceOptions) flight(f *flightRecorder) *trace.Flight {
	if f == nil {
		return nil
	}
	return &trace.Flight{Recorder: f.Recorder, Encoder: func() record.Encoder { return record.NewEncoder(record.SchemaNative, o.labels) }}
}
