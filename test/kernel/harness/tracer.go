// Package kernel_test loads the real programs into the running kernel, lets the
// lab make connections beside them, and compares all that the tracer says with
// all that happened. It needs root and nothing else: it also runs as a static
// binary in guests of other kernels.
package harness

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/internal/filter"
	"github.com/tcpshift/tcpshift/internal/probe"
	"github.com/tcpshift/tcpshift/internal/record"
	"github.com/tcpshift/tcpshift/internal/trace"
	"github.com/tcpshift/tcpshift/test/tcplab"
)

// Tracer is a running tracer whose output is kept: in a file, since a buffer that
// grows in memory would slow the reader down until the ring is full.
type Tracer struct {
	t       testing.TB
	Probe   *probe.Probe
	started chan struct{} // closed when the start record is out
	begin   sync.Once
	cancel  context.CancelFunc
	done    chan error
	ended   chan struct{} // closed when Run has returned
	out     *os.File
	written uint64
	reading <-chan struct{} // nil, or closed when the reader of the output reads on
}

// Batch implements trace.Sink.
func (tr *Tracer) Batch() int { return 64 << 10 }

// Put implements trace.Sink, and waits for a reader who does not read.
func (tr *Tracer) Put(lines []byte) ([]byte, error) {
	first := false
	tr.begin.Do(func() { first = true })
	if first {
		defer close(tr.started)
	} else if tr.reading != nil {
		<-tr.reading
	}
	n, err := tr.out.Write(lines)
	tr.written += uint64(n)
	return lines[:0], err
}

// Full implements trace.Sink.
func (tr *Tracer) Full() bool { return false }

// Drain implements trace.Sink.
func (tr *Tracer) Drain() error { return nil }

// Written implements trace.Sink.
func (tr *Tracer) Written() uint64 { return tr.written }

// ReaderGone implements trace.Sink.
func (tr *Tracer) ReaderGone() bool { return false }

// Options are what a test changes of the way in which users trace.
type Options struct {
	probe.Options
	only []string
	// reading, if not nil, is closed when the reader of the output begins to read:
	// until then it has taken the start record and no more.
	Reading <-chan struct{}
}

// InNamespace traces one namespace only, so that tests do not see each other.
func InNamespace(n *tcplab.Netns) Options {
	return Options{Options: probe.Options{Ends: true, Filter: filter.Filter{Netns: []uint32{n.Inode()}}}}
}

// StartTracer returns when every later transition will be seen.
func StartTracer(t testing.TB, o Options) *Tracer {
	t.Helper()
	tcplab.RequireRoot(t)
	tr, err := launch(o)
	if err != nil {
		t.Fatal(err)
	}
	tr.t = t
	t.Cleanup(func() {
		tr.cancel()
		<-tr.ended // it reads from what is closed now
		if err := tr.Probe.Close(); err != nil {
			t.Errorf("close probe: %v", err)
		}
		tr.out.Close()
	})
	return tr
}

// kernel is found out once for all tests: emulated, that takes a second.
var kernel = probe.NewKernel()

// launch starts a tracer that no test owns.
func launch(o Options) (*Tracer, error) {
	o.Kernel = kernel
	o.Without = append(slices.Clone(o.Without), switchedOff()...)
	p, err := probe.Open(o.Options)
	if err != nil {
		return nil, fmt.Errorf("open probe: %w", err)
	}
	out, err := os.CreateTemp("", "tcpshift-stream-")
	if err == nil {
		err = os.Remove(out.Name()) // it goes with the last descriptor
	}
	if err != nil {
		return nil, errors.Join(err, p.Close())
	}
	ctx, cancel := context.WithCancel(context.Background())
	tr := &Tracer{
		Probe: p, started: make(chan struct{}), cancel: cancel, done: make(chan error, 1), ended: make(chan struct{}),
		out: out, reading: o.Reading,
	}
	go func() {
		defer close(tr.ended)
		tr.done <- trace.Run(ctx, trace.Config{
			Source: p, Sink: tr, Encoder: record.NewNDJSON(nil), Only: o.only,
			Start: record.Start{Version: "test", Arch: "test"},
		})
	}()
	select {
	case <-tr.started:
		return tr, nil
	case err := <-tr.done:
		return nil, errors.Join(fmt.Errorf("tracer ended before it began: %w", err), p.Close())
	}
}

// Await waits until what has been written so far is as wanted.
func (tr *Tracer) Await(wanted func(text string) bool) {
	tr.t.Helper()
	if err := poll(func() bool { return wanted(string(tr.since(0))) }); err != nil {
		tr.t.Error(err)
	}
}

// awaitFence looks for it from an offset of the output on.
func (tr *Tracer) awaitFence(n *tcplab.Netns, offset int) error {
	return poll(func() bool {
		text := tr.since(offset)
		offset += len(text)
		return hasFence(n, text)
	})
}

func poll(done func() bool) error {
	const patience = 30 * time.Second
	for began := time.Now(); time.Since(began) < patience; time.Sleep(10 * time.Millisecond) {
		if done() {
			return nil
		}
	}
	return fmt.Errorf("what was awaited has not been told within %v", patience)
}

// size is how much has been written so far: whole lines.
func (tr *Tracer) size() int {
	info, err := tr.out.Stat()
	if err != nil {
		panic(err)
	}
	const longerThanALine = 8192
	begin := max(0, int(info.Size())-longerThanALine)
	return begin + len(tr.since(begin))
}

// since is the whole lines so far, from an offset on.
func (tr *Tracer) since(offset int) []byte {
	info, err := tr.out.Stat()
	if err != nil {
		panic(err) // fstat of an open file
	}
	text := make([]byte, int(info.Size())-offset)
	n, _ := tr.out.ReadAt(text, int64(offset))          // what cannot be read will be missed
	return text[:bytes.LastIndexByte(text[:n], '\n')+1] // a write may be under way
}

// Stop ends the tracer and gives all its records. Whatever fired before is in
// them: the tracer detaches, and then reads the ring to its end.
func (tr *Tracer) Stop() []Record {
	tr.t.Helper()
	lines, err := tr.end()
	if err != nil {
		tr.t.Fatal(err)
	}
	return lines
}

func (tr *Tracer) end() ([]Record, error) {
	tr.cancel()
	if err := <-tr.done; err != nil {
		return nil, fmt.Errorf("tracer: %w", err)
	}
	lines, err := parseRecords(tr.since(0))
	if err != nil {
		return nil, err
	}
	return lines, tr.checkStream()
}

// checkStream holds what is true of every stream. It may be long: a tracer of all
// namespaces of a busy host.
func (tr *Tracer) checkStream() error {
	scanner := bufio.NewScanner(io.NewSectionReader(tr.out, 0, math.MaxInt64))
	var count uint64
	var s Record
	for ; scanner.Scan(); count++ {
		s.Raw = scanner.Text()
		s.Type, s.Seq = headOf(s.Raw)
		if s.Seq != count+1 || (s.Type == "start") != (count == 0) {
			return fmt.Errorf("record %d is not that: %s", count+1, s.Raw)
		}
	}
	if err := scanner.Err(); err != nil {
		return fmt.Errorf("read the stream: %w", err)
	}
	if s.Type != "stop" {
		return fmt.Errorf("the stream does not run from start to stop: %d records", count)
	}
	if err := json.Unmarshal([]byte(s.Raw), &s); err != nil {
		return fmt.Errorf("line is no JSON: %w\n%s", err, s.Raw)
	}
	if lost := s.LostRingFull + s.LostRingBusy + s.LostReentry; s.Seen != s.Filtered+lost+s.Deferred+s.Read ||
		s.Read != s.Written+s.Dropped || s.Fired != s.Entered+s.Missed || s.Seen != s.Fired-s.OtherProtocol {
		return fmt.Errorf("the numbers do not add up: %s", s.Raw)
	}
	return nil
}
