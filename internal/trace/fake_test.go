package trace

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tcpshift/tcpshift/internal/boottime"
	"github.com/tcpshift/tcpshift/internal/output"
	"github.com/tcpshift/tcpshift/internal/probe"
	"github.com/tcpshift/tcpshift/internal/record"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// event is an event as in bpf/event.h, of an IPv4 socket at this moment. The cookie
// distinguishes it from others.
func event(size int, kind byte, cookie uint64, old, next tcp.State) []byte {
	b := make([]byte, size)
	binary.NativeEndian.PutUint64(b[0:], uint64(boottime.Now()))
	binary.NativeEndian.PutUint64(b[8:], cookie)
	copy(b[100:], []byte{kind, 4, byte(old), byte(next)})
	return b
}

func sample(cookie uint64) []byte { return event(112, 1, cookie, tcp.Close, tcp.Listen) }

// end is the last transition of a socket that was opened age before; 0: not known.
func end(cookie uint64, age time.Duration) []byte {
	b := event(152, 2, cookie, tcp.LastAck, tcp.Close)
	if age > 0 {
		binary.NativeEndian.PutUint64(b[112:], binary.NativeEndian.Uint64(b[0:])-uint64(age))
	}
	return b
}

func timeWaitEnd(cookie uint64) []byte { return event(112, 1, cookie, tcp.TimeWait, tcp.Close) }

// inCgroup sets the cgroup of an event's owner.
func inCgroup(id uint64, event []byte) []byte {
	binary.NativeEndian.PutUint64(event[16:], id)
	return event
}

// cgroupPath is the event with a cgroup's path: the names of its levels, the cgroup's
// own first.
func cgroupPath(id uint64, truncated byte, names ...string) []byte {
	b := make([]byte, 3088)
	binary.NativeEndian.PutUint64(b[0:], id)
	binary.NativeEndian.PutUint32(b[8:], uint32(len(names)))
	b[12], b[13] = truncated, 3
	for i, name := range names {
		copy(b[16+256*i:], name)
	}
	return b
}

func samples(n int) [][]byte {
	all := make([][]byte, n)
	for i := range all {
		all[i] = sample(uint64(i + 1))
	}
	return all
}

// fakeSource is a ring buffer, with counters that agree with it.
type fakeSource struct {
	listenPorts map[uint64]uint16 // by cookie

	turns  [][][]byte     // samples that the ring gets before each Read
	left   [][]byte       // samples that the ring gets after the last Read and before Detach
	others probe.Counters // counts of events that the ring does not get

	atRead   func() // runs at the beginning of each Read before Detach
	whenIdle func() // runs in a Read that finds the ring empty

	readErr, countersErr, detachErr error

	readErrAt int // the Read that returns readErr after its samples; 0: the first that finds the ring empty
	reads     int
	asked     int // calls of Counters
	slept     int // calls of Sleep that waited

	crowded  bool
	ring     [][]byte
	emitted  uint64 // samples that the ring has got, without updates
	detached bool
}

func (s *fakeSource) emit(samples [][]byte) {
	s.ring = append(s.ring, samples...)
	for _, sample := range samples {
		if len(sample) != updateSize { // an update is no firing
			s.emitted++
		}
	}
}

func (s *fakeSource) ReadFor(wait time.Duration, handle func([]byte) error) error {
	if !s.detached && s.atRead != nil {
		s.atRead()
	}
	s.reads++
	if len(s.turns) > 0 && !s.detached {
		s.emit(s.turns[0])
		s.turns = s.turns[1:]
	}
	if len(s.ring) == 0 && !s.detached {
		if s.readErr != nil && s.readErrAt == 0 {
			return s.readErr
		}
		if s.whenIdle != nil {
			s.whenIdle()
		}
		time.Sleep(wait) // on the clock of the synctest bubble
	}
	for len(s.ring) > 0 {
		next := s.ring[0]
		s.ring = s.ring[1:]
		if err := handle(next); err != nil {
			return err
		}
	}
	if s.readErrAt > 0 && s.reads == s.readErrAt {
		return s.readErr
	}
	return nil
}

// Sleep waits for its whole limit if the ring gets nothing, as if nothing happened meanwhile.
func (s *fakeSource) Sleep(limit time.Duration) (woken bool, err error) {
	if len(s.turns) > 0 || len(s.ring) > 0 {
		return true, nil
	}
	s.slept++
	time.Sleep(limit)
	return false, nil
}

func (s *fakeSource) Wake() {}

func (s *fakeSource) Crowded() bool { return s.crowded }

func (s *fakeSource) ListenPort(cookie uint64) uint16 { return s.listenPorts[cookie] }

func (s *fakeSource) Counters() (probe.Counters, error) {
	s.asked++
	c := s.others
	c[0].Entered += s.emitted
	c[0].Emitted += s.emitted
	return c, s.countersErr
}

func (s *fakeSource) Entered() (uint64, error) { return s.others[0].Entered + s.emitted, s.countersErr }

func (s *fakeSource) Detach() error {
	if s.detached {
		return nil
	}
	s.detached = true
	s.emit(s.left)
	return s.detachErr
}

// fakeSink keeps all lines, and counts them as written at once.
type fakeSink struct {
	written    strings.Builder
	writes     int
	err        error // of the write number errAt and those after it
	errAt      int
	readerGone bool
	atWrite    func() // runs at the beginning of each Put
	atPut      func() // runs at the end of each Put
	full       bool
	noRoom     bool
	failed     error // of a write in the background
	fullUntil  time.Time
	drained    int // bytes that were written at the last Drain
}

func (s *fakeSink) Put(lines []byte) ([]byte, error) {
	s.writes++
	if s.atWrite != nil {
		s.atWrite()
	}
	if s.err != nil && s.writes >= s.errAt {
		return lines[:0], s.err
	}
	s.written.Write(lines)
	if s.atPut != nil {
		s.atPut()
	}
	clear(lines) // the loop must not use it any more
	return make([]byte, 0, 1), nil
}

func (s *fakeSink) Err() error { return s.failed }

func (s *fakeSink) Room() int {
	if s.noRoom {
		return 0
	}
	return 1 << 30
}

func (s *fakeSink) BatchSize() int   { return 64 << 10 }
func (s *fakeSink) Full() bool       { return s.full || time.Now().Before(s.fullUntil) }
func (s *fakeSink) Written() uint64  { return uint64(s.written.Len()) }
func (s *fakeSink) ReaderGone() bool { return s.readerGone }

func (s *fakeSink) Drain() error {
	s.drained = s.written.Len()
	return nil
}

// line has the keys of a record that the tests check.
type line struct {
	Type, Conn, Reason, Signal, Cause string
	Time                              time.Time
	Seq, Lost                         uint64
	record.Counts
	Seen          uint64
	LostRingFull  uint64 `json:"lost_ring_full"`
	LostRingBusy  uint64 `json:"lost_ring_busy"`
	LostReentry   uint64 `json:"lost_reentry"`
	LostQueueFull uint64 `json:"lost_queue_full"`
	WrittenBytes  uint64 `json:"written_bytes"`
	OtherProtocol uint64 `json:"other_protocol"`

	LostConnections           uint64 `json:"lost_connections"`
	DroppedConnections        uint64 `json:"dropped_connections"`
	LostAlerts                uint64 `json:"lost_alerts"`
	LostSummaries             uint64 `json:"lost_summaries"`
	Updates                   uint64 `json:"updates"`
	DroppedUpdates            uint64 `json:"dropped_updates"`
	LostUpdates               uint64 `json:"lost_updates"`
	LateUpdates               uint64 `json:"late_updates"`
	TimeWaitUnknown           uint64 `json:"time_wait_unknown"`
	LostResets                uint64 `json:"lost_resets"`
	CgroupUnknown             uint64 `json:"cgroup_unknown"`
	TimeWaitEnds              uint64 `json:"time_wait_ends"`
	TimeWaitEndsLostQueueFull uint64 `json:"lost_time_wait_ends"`
	TimeWaitEndsLostKernel    uint64 `json:"missed_time_wait_ends"`

	Cgroup, Container, Opened string
	ContainerName             string `json:"container_name"`
	ClosedBy                  string `json:"closed_by"`
	ResetReason               string `json:"reset_reason"`
	Phase                     string
	Duration                  uint64 `json:"duration_ns"`
	Partial                   bool
	size                      int
}

func (s *fakeSink) lines(t *testing.T) []line {
	t.Helper()
	var all []line
	for text := range strings.Lines(s.written.String()) {
		l := line{size: len(text)}
		if err := json.Unmarshal([]byte(text), &l); err != nil || !strings.HasSuffix(text, "\n") {
			t.Fatalf("%v in the line %q", err, text)
		}
		all = append(all, l)
	}
	return all
}

func typesOf(lines []line) []string {
	types := make([]string, len(lines))
	for i, l := range lines {
		types[i] = l.Type
	}
	return types
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

// outcome is the result of a run.
type outcome struct {
	err      error
	lines    []line
	duration time.Duration
}

// selecting is an output with this choice of record types, for to.
func selecting(types []string) []Output { return []Output{{Only: types}} }

// to is the one output of a run: sink, with the choice of selected.
func to(sink output.Sink, selected []Output) []Output {
	if len(selected) == 0 {
		selected = make([]Output, 1)
	}
	selected[0].Sink, selected[0].Encoder = sink, record.NewNative(nil)
	return selected
}

// run runs a loop until it ends, in a synctest bubble with its own clock. setup may
// pass stop to the source, to end the loop as a signal does.
func run(t *testing.T, setup func(stop func()) (Config, *fakeSource, *fakeSink)) outcome {
	t.Helper()
	var got outcome
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		cfg, source, sink := setup(func() { cancel(Interrupted{Signal: "SIGTERM"}) })
		cfg.Source, cfg.Outputs = source, to(sink, cfg.Outputs)
		began := time.Now()
		got.err = Run(ctx, cfg)
		got.duration = time.Since(began)
		got.lines = sink.lines(t)
		if !source.detached {
			t.Error("the source is still attached, want it detached")
		}
		if sink.err == nil && !sink.readerGone && sink.drained != sink.written.Len() {
			t.Errorf("it ends with %d bytes that were not drained, want none", sink.written.Len()-sink.drained)
		}
		checkStream(t, got.lines)
	})
	return got
}

// checkStream checks what is true of every run, however it ends.
func checkStream(t *testing.T, lines []line) {
	t.Helper()
	for i, l := range lines {
		if l.Seq != uint64(i+1) {
			t.Errorf("line %d has seq %d, want no gap and no repetition", i+1, l.Seq)
		}
		if isStart := l.Type == "start"; isStart != (i == 0) {
			t.Errorf("line %d is of type %s, want start first and only there", i+1, l.Type)
		}
		if l.Type == "stop" && i != len(lines)-1 {
			t.Errorf("line %d of %d is stop, want it last", i+1, len(lines))
		}
	}
}

var errBroken = errors.New("it is broken")
