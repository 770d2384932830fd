// Package kernel_test loads the real programs into the running kernel, lets the
// lab make connections beside them, and compares all that the tracer says with
// all that happened. It needs root and nothing else: it also runs as a static
// binary in guests of other kernels.
package kernel_test

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
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/internal/filter"
	"github.com/tcpshift/tcpshift/internal/probe"
	"github.com/tcpshift/tcpshift/internal/record"
	"github.com/tcpshift/tcpshift/internal/trace"
	"github.com/tcpshift/tcpshift/test/tcplab"
)

// tracer is a running tracer whose output is kept: in a file, since a buffer that
// grows in memory would slow the reader down until the ring is full.
type tracer struct {
	t       testing.TB
	probe   *probe.Probe
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
func (tr *tracer) Batch() int { return 64 << 10 }

// Put implements trace.Sink, and waits for a reader who does not read.
func (tr *tracer) Put(lines []byte) ([]byte, error) {
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
func (tr *tracer) Full() bool { return false }

// Drain implements trace.Sink.
func (tr *tracer) Drain() error { return nil }

// Written implements trace.Sink.
func (tr *tracer) Written() uint64 { return tr.written }

// ReaderGone implements trace.Sink.
func (tr *tracer) ReaderGone() bool { return false }

// options are what a test changes of the way in which users trace.
type options struct {
	probe.Options
	only []string
	// reading, if not nil, is closed when the reader of the output begins to read:
	// until then it has taken the start record and no more.
	reading <-chan struct{}
}

// in traces one namespace only, so that tests do not see each other.
func in(n *tcplab.Netns) options {
	return options{Options: probe.Options{Ends: true, Filter: filter.Filter{Netns: []uint32{n.Inode()}}}}
}

// startTracer returns when every later transition will be seen.
func startTracer(t testing.TB, o options) *tracer {
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
		if err := tr.probe.Close(); err != nil {
			t.Errorf("close probe: %v", err)
		}
		tr.out.Close()
	})
	return tr
}

// kernel is found out once for all tests: emulated, that takes a second.
var kernel = probe.NewKernel()

// launch starts a tracer that no test owns.
func launch(o options) (*tracer, error) {
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
	tr := &tracer{
		probe: p, started: make(chan struct{}), cancel: cancel, done: make(chan error, 1), ended: make(chan struct{}),
		out: out, reading: o.reading,
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

// await waits until what has been written so far is as wanted.
func (tr *tracer) await(wanted func(text string) bool) {
	tr.t.Helper()
	if err := poll(func() bool { return wanted(string(tr.since(0))) }); err != nil {
		tr.t.Error(err)
	}
}

// awaitFence looks for it from an offset of the output on.
func (tr *tracer) awaitFence(n *tcplab.Netns, offset int) error {
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
func (tr *tracer) size() int {
	info, err := tr.out.Stat()
	if err != nil {
		panic(err)
	}
	const longerThanALine = 8192
	begin := max(0, int(info.Size())-longerThanALine)
	return begin + len(tr.since(begin))
}

// since is the whole lines so far, from an offset on.
func (tr *tracer) since(offset int) []byte {
	info, err := tr.out.Stat()
	if err != nil {
		panic(err) // fstat of an open file
	}
	text := make([]byte, int(info.Size())-offset)
	n, _ := tr.out.ReadAt(text, int64(offset))          // what cannot be read will be missed
	return text[:bytes.LastIndexByte(text[:n], '\n')+1] // a write may be under way
}

// requireFeature leaves out a test of what this kernel does not give; which kernel
// must give what, another test demands.
func requireFeature(t *testing.T, name string) {
	t.Helper()
	tcplab.RequireRoot(t)
	for _, f := range kernel.Features() {
		if f.Name == name && f.Err != nil {
			lacks(t, name, f.Err)
		}
	}
}

// line is one record, as a reader of the output sees it.
type line struct {
	Type   string    `json:"type"`
	Time   time.Time `json:"time"`
	Seq    uint64    `json:"seq"`
	Conn   string    `json:"conn"`
	Netns  uint32    `json:"netns"`
	Family string    `json:"family"`
	Mapped bool      `json:"mapped"`

	LocalAddr string `json:"local_addr"`
	LocalPort uint16 `json:"local_port"`
	PeerAddr  string `json:"peer_addr"`
	PeerPort  uint16 `json:"peer_port"`
	Role      string `json:"role"`

	Old       string  `json:"old_state"`
	New       string  `json:"new_state"`
	KernelNew string  `json:"kernel_new_state"`
	Substate  string  `json:"time_wait_substate"`
	Self      bool    `json:"self"`
	InState   *uint64 `json:"in_state_ns"`

	TimeWaitEnd string `json:"time_wait_end"`

	PID    *uint32 `json:"pid"`
	Comm   string  `json:"comm"`
	UID    *uint32 `json:"uid"`
	Source string  `json:"pid_source"`
	Cgroup string  `json:"cgroup"`
	Error  string  `json:"error"`

	Opened      *time.Time `json:"opened"`
	Duration    *uint64    `json:"duration_ns"`
	Established *uint64    `json:"established_ns"`
	Sent        uint64     `json:"sent_bytes"`
	Received    uint64     `json:"received_bytes"`
	RTT         uint64     `json:"rtt_ns"`
	FinalState  string     `json:"final_state"`
	ClosedBy    string     `json:"closed_by"`
	Partial     bool       `json:"partial"`

	Container   string `json:"container"`
	Runtime     string `json:"container_runtime"`
	PodUID      string `json:"pod_uid"`
	Retransmits uint64 `json:"retransmits"`
	Unknown     any    `json:"time_wait_unknown"` // true in a transition, a count in stop

	Lost  uint64 `json:"lost"`
	Cause string `json:"cause"`

	Seen, Filtered, Deferred, Read, Dropped, Written uint64
	LostRingFull                                     uint64 `json:"lost_ring_full"`
	LostRingBusy                                     uint64 `json:"lost_ring_busy"`
	LostReentry                                      uint64 `json:"lost_reentry"`
	Fired, Entered, Missed                           uint64
	OtherProtocol                                    uint64 `json:"other_protocol"`

	raw string
}

// stop ends the tracer and gives all its records. Whatever fired before is in
// them: the tracer detaches, and then reads the ring to its end.
func (tr *tracer) stop() []line {
	tr.t.Helper()
	lines, err := tr.end()
	if err != nil {
		tr.t.Fatal(err)
	}
	return lines
}

func (tr *tracer) end() ([]line, error) {
	tr.cancel()
	if err := <-tr.done; err != nil {
		return nil, fmt.Errorf("tracer: %w", err)
	}
	lines, err := parseLines(tr.since(0))
	if err != nil {
		return nil, err
	}
	return lines, tr.checkFrame()
}

func parseLines(text []byte) ([]line, error) {
	var lines []line
	for raw := range bytes.Lines(text) {
		l := line{raw: string(raw)}
		if err := json.Unmarshal(raw, &l); err != nil {
			return nil, fmt.Errorf("line is no JSON: %w\n%s", err, raw)
		}
		lines = append(lines, l)
	}
	return lines, nil
}

// checkFrame holds what is true of every stream. It may be long: a tracer of all
// namespaces of a busy host.
func (tr *tracer) checkFrame() error {
	scanner := bufio.NewScanner(io.NewSectionReader(tr.out, 0, math.MaxInt64))
	var count uint64
	var s line
	for ; scanner.Scan(); count++ {
		s.raw = scanner.Text()
		s.Type, s.Seq = headOf(s.raw)
		if s.Seq != count+1 || (s.Type == "start") != (count == 0) {
			return fmt.Errorf("record %d is not that: %s", count+1, s.raw)
		}
	}
	if err := scanner.Err(); err != nil {
		return fmt.Errorf("read the stream: %w", err)
	}
	if s.Type != "stop" {
		return fmt.Errorf("the stream does not run from start to stop: %d records", count)
	}
	if err := json.Unmarshal([]byte(s.raw), &s); err != nil {
		return fmt.Errorf("line is no JSON: %w\n%s", err, s.raw)
	}
	if lost := s.LostRingFull + s.LostRingBusy + s.LostReentry; s.Seen != s.Filtered+lost+s.Deferred+s.Read ||
		s.Read != s.Written+s.Dropped || s.Fired != s.Entered+s.Missed || s.Seen != s.Fired-s.OtherProtocol {
		return fmt.Errorf("the numbers do not add up: %s", s.raw)
	}
	return nil
}

// headOf is what all records begin with.
func headOf(raw string) (recordType string, seq uint64) {
	_, rest, _ := strings.Cut(raw, `{"type":"`)
	recordType, rest, _ = strings.Cut(rest, `"`)
	_, rest, _ = strings.Cut(rest, `"seq":`)
	digits, _, _ := strings.Cut(rest, ",")
	seq, _ = strconv.ParseUint(digits, 10, 64)
	return recordType, seq
}

func countType(text, recordType string) int {
	return strings.Count(text, `{"type":"`+recordType+`",`)
}

func ofType(lines []line, recordType string) []line {
	var some []line
	for _, l := range lines {
		if l.Type == recordType {
			some = append(some, l)
		}
	}
	return some
}
