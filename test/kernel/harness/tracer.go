// Package harness is what the tests of test/kernel share: tracers in this process,
// actors, which are processes that make system calls on demand, and a record of which
// process has which socket open, against which all records are checked.
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
	"github.com/tcpshift/tcpshift/internal/tcp"
	"github.com/tcpshift/tcpshift/internal/trace"
	"github.com/tcpshift/tcpshift/test/tcplab"
)

// Tracer is a tracer in this process. Its output goes to a file: a buffer that grows in
// memory would slow the reader down until the ring is full.
type Tracer struct {
	t       testing.TB
	Probe   *probe.Probe
	started chan struct{} // closed when the start record is written
	begin   sync.Once
	cancel  context.CancelFunc
	done    chan error
	ended   chan struct{} // closed when Run has returned
	out     *os.File
	written uint64
	reading <-chan struct{} // nil, or closed when the reader of the output continues
}

// BatchSize implements output.Sink.
func (tr *Tracer) BatchSize() int { return 64 << 10 }

// Put implements output.Sink. It blocks while the reader of the output does not read.
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

// Full implements output.Sink.
func (tr *Tracer) Full() bool { return false }

// Room implements output.Sink.
func (tr *Tracer) Room() int { return 1 << 30 }

// Err implements output.Sink.
func (tr *Tracer) Err() error { return nil }

// Drain implements output.Sink.
func (tr *Tracer) Drain() error { return nil }

// Written implements output.Sink.
func (tr *Tracer) Written() uint64 { return tr.written }

// ReaderGone implements output.Sink.
func (tr *Tracer) ReaderGone() bool { return false }

// Options are the options of a tracer that tests change.
type Options struct {
	probe.Options
	only []string
	// Reading, if not nil, is closed when the reader of the output begins to read.
	// Until then the reader has taken the start record only.
	Reading <-chan struct{}
	// Observe, if not nil, gets each transition, in the goroutine of the loop.
	Observe func(t *tcp.Transition)
}

// InNamespace returns options to trace one namespace only, with the ends of its connections.
func InNamespace(n *tcplab.Netns) Options {
	return Options{Options: probe.Options{Ends: true, Filter: filter.Filter{Netns: []uint32{n.Inode()}}}}
}

// StartTracer starts a tracer for one test. When it returns, the tracer sees every
// later transition.
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
		<-tr.ended // trace.Run reads from what is closed next
		if err := tr.Probe.Close(); err != nil {
			t.Errorf("close probe: %v", err)
		}
		tr.out.Close()
	})
	return tr
}

// kernel is detected once for all tests: in an emulated guest that takes a second.
var kernel = probe.NewKernel()

// launch starts a tracer that belongs to no test.
func launch(o Options) (*Tracer, error) {
	o.Kernel = kernel
	o.Without = append(slices.Clone(o.Without), switchedOff()...)
	if o.MayBePreempted == nil {
		o.MayBePreempted = forcedPreemption()
	}
	p, err := probe.Open(o.Options)
	if err != nil {
		return nil, fmt.Errorf("open probe: %w", err)
	}
	out, err := os.CreateTemp("", "tcpshift-stream-")
	if err == nil {
		err = os.Remove(out.Name()) // the file exists until its last descriptor is closed
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
		c := trace.Config{
			Source: p, Outputs: []trace.Output{{Sink: tr, Encoder: record.NewNative(nil), Only: o.only}},
			Start: record.Start{Version: "test", Arch: "test"}, ResetReasons: p.ResetReasons(),
		}
		if o.Observe != nil {
			c.Monitor = observing(o.Observe)
		}
		tr.done <- trace.Run(ctx, c)
	}()
	select {
	case <-tr.started:
		return tr, nil
	case err := <-tr.done:
		return nil, errors.Join(fmt.Errorf("the tracer ended before its start record: %w", err), p.Close())
	}
}

// Await waits until the output so far is as wanted.
func (tr *Tracer) Await(wanted func(text string) bool) {
	tr.t.Helper()
	if err := poll(func() bool { return wanted(string(tr.since(0))) }); err != nil {
		tr.t.Error(err)
	}
}

// awaitFence waits until the output after an offset contains the fence, and then two more:
// the records of an end that a reset may follow come up to a turn of the trace loop later.
func (tr *Tracer) awaitFence(n *tcplab.Netns, offset int) error {
	for more := 2; ; more-- {
		err := poll(func() bool {
			text := tr.since(offset)
			offset += len(text)
			return hasFence(n, text)
		})
		if err == nil && more > 0 {
			err = fence(n)
		}
		if err != nil || more == 0 {
			return err
		}
	}
}

func poll(done func() bool) error {
	const waitLimit = 30 * time.Second
	for began := time.Now(); time.Since(began) < waitLimit; time.Sleep(10 * time.Millisecond) {
		if done() {
			return nil
		}
	}
	return fmt.Errorf("the wanted records did not come within %v", waitLimit)
}

// size is the length of the output so far, in whole lines.
func (tr *Tracer) size() int {
	info, err := tr.out.Stat()
	if err != nil {
		panic(err)
	}
	const longerThanALine = 8192
	begin := max(0, int(info.Size())-longerThanALine)
	return begin + len(tr.since(begin))
}

// since returns the whole lines of the output so far that follow an offset.
func (tr *Tracer) since(offset int) []byte {
	info, err := tr.out.Stat()
	if err != nil {
		panic(err) // cannot fail: fstat of an open file
	}
	text := make([]byte, int(info.Size())-offset)
	n, _ := tr.out.ReadAt(text, int64(offset))          // the caller will miss what cannot be read
	return text[:bytes.LastIndexByte(text[:n], '\n')+1] // the last line may be incomplete
}

// Stop ends the tracer and returns all its records. They contain everything that fired
// before: the tracer detaches first, then reads the ring to its end.
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

// checkStream checks what is true of every stream: seq without a gap, start first, stop
// last, and counters that add up. The stream may be long, with all namespaces of a busy
// host.
func (tr *Tracer) checkStream() error {
	scanner := bufio.NewScanner(io.NewSectionReader(tr.out, 0, math.MaxInt64))
	var count uint64
	var s Record
	for ; scanner.Scan(); count++ {
		s.Raw = scanner.Text()
		s.Type, s.Seq = headOf(s.Raw)
		if s.Seq != count+1 || (s.Type == "start") != (count == 0) {
			return fmt.Errorf("record %d has another seq or is a start record in the wrong place: %s", count+1, s.Raw)
		}
	}
	if err := scanner.Err(); err != nil {
		return fmt.Errorf("read the stream: %w", err)
	}
	if s.Type != "stop" {
		return fmt.Errorf("the stream of %d records does not end with stop", count)
	}
	if err := json.Unmarshal([]byte(s.Raw), &s); err != nil {
		return fmt.Errorf("a line is not JSON: %w\n%s", err, s.Raw)
	}
	if lost := s.LostRingFull + s.LostRingBusy + s.LostReentry; s.Seen != s.Filtered+lost+s.Deferred+s.Read ||
		s.Read != s.Written+s.Dropped || s.Fired != s.Entered+s.Missed || s.Seen != s.Fired-s.OtherProtocol {
		return fmt.Errorf("the counters of stop do not add up: %s", s.Raw)
	}
	return nil
}
