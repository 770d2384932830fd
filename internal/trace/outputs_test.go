package trace

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tcpshift/tcpshift/internal/output"
	"github.com/tcpshift/tcpshift/internal/record"
)

// runAll runs a loop with several outputs, as run does with one.
func runAll(t *testing.T, cfg Config, source *fakeSource) (notices []string, err error) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		defer cancel(nil)
		if source.whenIdle == nil {
			source.whenIdle = func() { cancel(Interrupted{Signal: "SIGTERM"}) }
		}
		cfg.Source = source
		cfg.Notify = func(message string) { notices = append(notices, message) }
		err = Run(ctx, cfg)
	})
	return notices, err
}

func named(name string, sink *fakeSink, enc record.Encoder, only ...string) Output {
	return Output{Name: name, Sink: sink, Encoder: enc, Only: only}
}

// Each output has its own choice of types, numbers and account, whether it shares lines or not.
func TestOutputs_OwnStreams(t *testing.T) {
	for _, sharing := range []bool{false, true} {
		first, second := record.NewNative(nil), record.NewNative(nil)
		if sharing {
			second = first
		}
		all, ends := &fakeSink{}, &fakeSink{}
		source := &fakeSource{turns: [][][]byte{{sample(1), end(2, time.Second), sample(3)}, {end(4, 0)}}}
		_, err := runAll(t, Config{Outputs: []Output{
			{Name: "all", Sink: all, Encoder: first}, named("ends", ends, second, "connection"),
		}}, source)
		if err != nil {
			t.Fatal(err)
		}
		for _, each := range []struct {
			sink    *fakeSink
			want    []string
			written uint64
		}{
			{all, []string{"start", "transition 1", "transition 2", "connection 2", "transition 3", "transition 4", "connection 4", "stop"}, 4},
			{ends, []string{"start", "connection 2", "connection 4", "stop"}, 0},
		} {
			lines := each.sink.lines(t)
			checkStream(t, lines)
			if got := inWords(lines); !slices.Equal(got, each.want) {
				t.Errorf("sharing %v: got %q, want %q", sharing, got, each.want)
			}
			if stop := last(t, lines); stop.Read != 4 || stop.Written != each.written || stop.Dropped != 4-each.written {
				t.Errorf("sharing %v: stop is %+v, want 4 read and %d written", sharing, stop, each.written)
			}
		}
	}
}

// eventLines are the lines of transitions and connections.
func eventLines(sink *fakeSink) (lines []string) {
	for line := range strings.Lines(sink.written.String()) {
		if !strings.HasPrefix(line, `{"type":"st`) {
			lines = append(lines, line)
		}
	}
	return lines
}

// Lines that are encoded once equal those that each output encodes for itself.
func TestOutputs_SharedLinesEqual(t *testing.T) {
	events := func() [][]byte {
		return [][]byte{sample(1), inCgroup(5, end(2, time.Second)), cgroupPath(5, 0, "a", "b"), inCgroup(5, end(3, 0))}
	}()
	labels := []record.Label{{Key: "site", Value: "Z"}}
	run := func(encoders ...record.Encoder) (sinks []*fakeSink) {
		var outs []Output
		for _, enc := range encoders {
			sinks = append(sinks, &fakeSink{})
			outs = append(outs, named("x", sinks[len(sinks)-1], enc, "transition", "connection"))
		}
		if _, err := runAll(t, Config{Outputs: outs}, &fakeSource{turns: [][][]byte{slices.Clone(events)}}); err != nil {
			t.Fatal(err)
		}
		return sinks
	}
	shared := record.NewNative(labels)
	got := run(shared, shared, record.NewNative(labels), record.Text{}, record.Text{})
	if n := len(eventLines(got[0])); n != 5 {
		t.Fatalf("%d lines, want 5", n)
	}
	for i, sink := range got[:3] {
		if !slices.Equal(eventLines(sink), eventLines(got[2])) {
			t.Errorf("output %d has\n%s\nwant\n%s", i, eventLines(sink), eventLines(got[2]))
		}
	}
	if text := got[3].written.String(); text != got[4].written.String() || strings.Count(text, "\n") < 5 {
		t.Errorf("the text outputs differ:\n%s\n%s", text, got[4].written.String())
	}
}

// An output that stalls costs the others neither a record nor a moment.
func TestOutputs_StallHarmsNoOther(t *testing.T) {
	slow, fast := &fakeSink{full: true}, &fakeSink{}
	source := &fakeSource{turns: [][][]byte{samples(1), samples(3)[1:], samples(9)[3:]}}
	var began time.Time
	source.atRead = func() {
		if began.IsZero() {
			began = time.Now()
		}
	}
	var waited time.Duration
	source.left = samples(10)[9:]
	idle := 0
	ctxEnd := func() { waited = time.Since(began); idle++ }
	source.whenIdle = ctxEnd
	if _, err := runAll(t, Config{Duration: maxWait, Outputs: []Output{
		named("slow", slow, record.NewNative(nil)), named("fast", fast, record.NewNative(nil)),
	}}, source); err != nil {
		t.Fatal(err)
	}
	if idle == 0 || waited >= ringGrace {
		t.Errorf("the loop was idle %d times, first after %v; want it to wait for no output", idle, waited)
	}
	if stop := last(t, fast.lines(t)); stop.Written != 10 || stop.LostQueueFull != 0 {
		t.Errorf("the other output ends with %+v, want 10 written and none lost", stop)
	}
	if stop := last(t, slow.lines(t)); stop.Written+stop.LostQueueFull != 10 || stop.LostQueueFull < 9 {
		t.Errorf("the slow output ends with %+v, want its losses counted", stop)
	}
}

// An output that fails ends alone: the operator is notified, the others go on, and the error is
// returned at the end. The reader's end is no error.
func TestOutputs_FailureEndsOne(t *testing.T) {
	for _, tt := range []struct {
		name   string
		broken fakeSink
		want   error
		notice string
	}{
		{"a write fails", fakeSink{err: errBroken, errAt: 2}, errBroken, "bad: it is broken: this output gets no more records"},
		{"a write within a large turn", fakeSink{err: errBroken, errAt: 3}, errBroken, "bad: it is broken: this output gets no more records"},
		{"the first write", fakeSink{err: errBroken, errAt: 1}, errBroken, "bad: it is broken: this output gets no more records"},
		{"the reader goes away", fakeSink{readerGone: true}, nil, "bad: the reader of the output went away: this output gets no more records"},
	} {
		good := &fakeSink{}
		source := &fakeSource{turns: [][][]byte{samples(500), samples(5000)[500:]}}
		notices, err := runAll(t, Config{Outputs: []Output{
			named("bad", &tt.broken, record.NewNative(nil)), named("good", good, record.NewNative(nil)),
		}}, source)
		if !errors.Is(err, tt.want) || errors.Is(err, output.ErrReaderGone) {
			t.Errorf("%s: the error is %v, want %v", tt.name, err, tt.want)
		}
		if !slices.Equal(notices, []string{tt.notice}) {
			t.Errorf("%s: the notices are %q, want %q", tt.name, notices, tt.notice)
		}
		if stop := last(t, good.lines(t)); stop.Type != "stop" || stop.Written != 5000 {
			t.Errorf("%s: the other output ends with %+v, want stop with 5000 written", tt.name, stop)
		}
	}
}

// The run ends with its last output.
func TestOutputs_LastOneEndsTheRun(t *testing.T) {
	a, b := &fakeSink{readerGone: true}, &fakeSink{err: errBroken, errAt: 2}
	source := &fakeSource{turns: [][][]byte{samples(3)}, whenIdle: func() {}}
	_, err := runAll(t, Config{Outputs: []Output{
		named("a", a, record.NewNative(nil)), named("b", b, record.NewNative(nil)),
	}}, source)
	if !errors.Is(err, errBroken) || errors.Is(err, output.ErrReaderGone) || !strings.HasPrefix(err.Error(), "b: ") {
		t.Errorf("the error is %v, want that of b alone, with its name", err)
	}
}

// hungSink is a sink whose Drain waits for release, and then fails.
type hungSink struct {
	*fakeSink
	release chan struct{}
}

func (s hungSink) Drain() error {
	<-s.release
	return &output.NotWrittenError{Bytes: 7}
}

// At the end no output waits for another: one that hangs does not keep the others from their stop
// record.
func TestOutputs_EndOfOneDelaysNoOther(t *testing.T) {
	good := &fakeSink{}
	hung := hungSink{&fakeSink{}, make(chan struct{})}
	good.atPut = func() {
		if strings.Contains(good.written.String(), `{"type":"stop"`) {
			close(hung.release)
		}
	}
	_, err := runAll(t, Config{Outputs: []Output{
		{Name: "hung", Sink: hung, Encoder: record.NewNative(nil)}, named("good", good, record.NewNative(nil)),
	}}, &fakeSource{turns: [][][]byte{samples(3)}})
	var lost *output.NotWrittenError
	if !errors.As(err, &lost) || lost.Bytes != 7 {
		t.Errorf("the error is %v, want that of the output that hangs", err)
	}
	if l := last(t, hung.lines(t)); l.Type == "stop" {
		t.Error("the output that hangs has a stop record")
	}
	if stop := last(t, good.lines(t)); stop.Type != "stop" || stop.Written != 3 {
		t.Errorf("the other output ends with %+v, want stop", stop)
	}
}

// --count counts transitions before an output selects some.
func TestOutputs_CountBeforeSelection(t *testing.T) {
	ends, all := &fakeSink{}, &fakeSink{full: true}
	source := &fakeSource{turns: [][][]byte{{sample(1), end(2, 0), sample(3), end(4, 0), end(5, 0)}}, whenIdle: func() {}}
	_, err := runAll(t, Config{Count: 4, Outputs: []Output{
		named("ends", ends, record.NewNative(nil), "connection"), named("all", all, record.NewNative(nil), "transition"),
	}}, source)
	if err != nil {
		t.Fatal(err)
	}
	if got := inWords(ends.lines(t)); !slices.Equal(got, []string{"start", "connection 2", "connection 4", "stop"}) {
		t.Errorf("got %q, want the connections of the first 4 transitions", got)
	}
	if stop := last(t, all.lines(t)); stop.Reason != "count" || stop.LostQueueFull != 4 || stop.Dropped != 1 {
		t.Errorf("stop is %+v, want 4 lost and 1 dropped", stop)
	}
}
