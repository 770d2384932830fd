// Package kernel_test loads the real programs into the running kernel, lets the
// lab make connections beside them, and compares all that the tracer says with
// all that happened. It needs root and nothing else: it also runs as a static
// binary in guests of other kernels.
package kernel_test

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/internal/filter"
	"github.com/tcpshift/tcpshift/internal/probe"
	"github.com/tcpshift/tcpshift/internal/record"
	"github.com/tcpshift/tcpshift/internal/trace"
	"github.com/tcpshift/tcpshift/test/lab"
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
	out     *os.File
	reading <-chan struct{} // nil, or closed when the reader of the output reads on
}

// Write implements trace.Sink.
func (tr *tracer) Write(lines []byte) (int, error) {
	first := false
	tr.begin.Do(func() { first = true })
	if first {
		defer close(tr.started)
	} else if tr.reading != nil {
		<-tr.reading
	}
	return tr.out.Write(lines)
}

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
func in(n *lab.Netns) options {
	return options{Options: probe.Options{Ends: true, Filter: filter.Filter{Netns: []uint32{n.Inode()}}}}
}

// startTracer returns when every later transition will be seen.
func startTracer(t testing.TB, o options) *tracer {
	t.Helper()
	lab.RequireRoot(t)
	o.Without = append(o.Without, switchedOff()...)
	p, err := probe.Open(o.Options)
	if err != nil {
		t.Fatalf("open probe: %v", err)
	}
	out, err := os.Create(filepath.Join(t.TempDir(), "stream"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	tr := &tracer{t: t, probe: p, started: make(chan struct{}), cancel: cancel, done: make(chan error, 1), out: out, reading: o.reading}
	go func() {
		tr.done <- trace.Run(ctx, trace.Config{
			Source: p, Sink: tr, Encoder: record.NewNDJSON(nil), Only: o.only,
			Start: record.Start{Version: "test", Arch: "test"},
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := p.Close(); err != nil {
			t.Errorf("close probe: %v", err)
		}
		out.Close()
	})
	select {
	case <-tr.started:
	case err := <-tr.done:
		t.Fatalf("tracer ended before it began: %v", err)
	}
	return tr
}

// await waits until what has been written so far is as wanted.
func (tr *tracer) await(wanted func(text string) bool) {
	tr.t.Helper()
	const patience = 30 * time.Second
	for began := time.Now(); time.Since(began) < patience; time.Sleep(10 * time.Millisecond) {
		seen := wanted(string(tr.written()))
		if seen {
			return
		}
	}
	tr.t.Errorf("what was awaited has not been told within %v", patience)
}

// written is everything so far.
func (tr *tracer) written() []byte {
	tr.t.Helper()
	text, err := os.ReadFile(tr.out.Name())
	if err != nil {
		tr.t.Fatal(err)
	}
	return text
}

// requireFeature leaves out a test of what this kernel does not give; which kernel
// must give what, another test demands.
func requireFeature(t *testing.T, name string) {
	t.Helper()
	lab.RequireRoot(t)
	for _, f := range probe.DetectFeatures() {
		if f.Name == name && f.Err != nil {
			t.Skipf("this kernel gives no %s: %v", name, f.Err)
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

	Seen, Filtered, Held, Read, Dropped, Written uint64
	LostRingFull                                 uint64 `json:"lost_ring_full"`
	LostRingBusy                                 uint64 `json:"lost_ring_busy"`
	LostReentry                                  uint64 `json:"lost_reentry"`
	Fired, Entered, Missed                       uint64
	OtherProtocol                                uint64 `json:"other_protocol"`

	raw string
}

// stop ends the tracer and gives all its records. Whatever fired before is in
// them: the tracer detaches, and then reads the ring to its end.
func (tr *tracer) stop() []line {
	tr.t.Helper()
	tr.cancel()
	if err := <-tr.done; err != nil {
		tr.t.Fatalf("tracer: %v", err)
	}
	var lines []line
	for raw := range bytes.Lines(tr.written()) {
		l := line{raw: string(raw)}
		if err := json.Unmarshal(raw, &l); err != nil {
			tr.t.Fatalf("line is no JSON: %v\n%s", err, raw)
		}
		lines = append(lines, l)
	}
	tr.checkFrame(lines)
	return lines
}

// checkFrame holds what is true of every stream.
func (tr *tracer) checkFrame(lines []line) {
	tr.t.Helper()
	if len(lines) < 2 || lines[0].Type != "start" || lines[len(lines)-1].Type != "stop" {
		tr.t.Fatalf("the stream does not run from start to stop: %d records", len(lines))
	}
	for i, l := range lines {
		if l.Seq != uint64(i+1) {
			tr.t.Fatalf("record %d has seq %d", i+1, l.Seq)
		}
	}
	s := lines[len(lines)-1]
	if lost := s.LostRingFull + s.LostRingBusy + s.LostReentry; s.Seen != s.Filtered+lost+s.Held+s.Read ||
		s.Read != s.Written+s.Dropped || s.Fired != s.Entered+s.Missed || s.Seen != s.Fired-s.OtherProtocol {
		tr.t.Errorf("the numbers do not add up: %s", s.raw)
	}
}

func countType(text, recordType string) int {
	return strings.Count(text, `{"type":"`+recordType+`",`)
}

func ofType(lines []line, recordType string) []line {
	return slices.DeleteFunc(slices.Clone(lines), func(l line) bool { return l.Type != recordType })
}
