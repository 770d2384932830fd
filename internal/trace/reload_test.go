package trace

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/internal/record"
	"github.com/tcpshift/tcpshift/internal/selection"
)

// A reload changes what each output writes between two turns: an output that stays goes on with its numbers and
// its account, one that is new begins, one that is missing ends.
func TestReload_StreamsGoOn(t *testing.T) {
	stays, goes, comes := &fakeSink{}, &fakeSink{}, &fakeSink{}
	reloads, done := make(chan *Reload, 1), make(chan struct{})
	applied := 0
	source := &fakeSource{turns: [][][]byte{{sample(1), end(2, time.Second)}, {end(3, 0)}, {sample(4), end(5, 0)}}}
	shared := record.NewNative(nil)
	source.atRead = func() {
		if source.reads == 1 { // the next turn takes it
			reloads <- &Reload{
				Outputs: []Output{named("stays", stays, shared, "transition"), {Name: "comes", Sink: comes, Encoder: shared}},
				Apply:   func() { applied++ }, Changed: []string{"only", "outputs"}, Done: done,
			}
		}
	}
	_, err := runAll(t, Config{Reloads: reloads, Outputs: []Output{
		named("stays", stays, record.NewNative(nil), "connection"), named("goes", goes, record.NewNative(nil)),
	}}, source)
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-done:
	default:
		t.Error("Done is open, want it closed")
	}
	if applied != 1 {
		t.Errorf("Apply was called %d times, want once", applied)
	}
	for _, each := range []struct {
		name          string
		sink          *fakeSink
		want          []string
		reason        string
		read, written uint64
	}{
		{"stays", stays, []string{"start", "connection 2", "connection 3", "reload", "transition 4", "transition 5", "stop"}, reasonSignal, 5, 2},
		{"goes", goes, []string{"start", "transition 1", "transition 2", "connection 2", "transition 3", "connection 3", "stop"}, reasonReload, 3, 3},
		{"comes", comes, []string{"start", "transition 4", "transition 5", "connection 5", "stop"}, reasonSignal, 5, 2},
	} {
		lines := each.sink.lines(t)
		checkStream(t, lines)
		if got := inWords(lines); !slices.Equal(got, each.want) {
			t.Errorf("%s: got %q, want %q", each.name, got, each.want)
		}
		if stop := last(t, lines); stop.Reason != each.reason || stop.Read != each.read || stop.Written != each.written || stop.Dropped != each.read-each.written || stop.Seen != each.read {
			t.Errorf("%s: stop is %+v, want %d read and %d written", each.name, stop, each.read, each.written)
		}
	}
}

// What was lost before an output begins is in its counts, and is not reported again.
func TestReload_EarlierLosses(t *testing.T) {
	first, second := &fakeSink{}, &fakeSink{}
	reloads := make(chan *Reload, 1)
	source := &fakeSource{turns: [][][]byte{{sample(1)}, {sample(2)}, {sample(3)}, {sample(4)}}}
	source.others[0].Entered, source.others[0].RingFull = 7, 7
	source.atRead = func() {
		if source.reads == 2 {
			reloads <- &Reload{Done: make(chan struct{}), Outputs: []Output{
				named("first", first, record.NewNative(nil), "loss"), named("second", second, record.NewNative(nil), "loss"),
			}}
		}
	}
	_, err := runAll(t, Config{Reloads: reloads, Outputs: []Output{named("first", first, record.NewNative(nil), "loss")}}, source)
	if err != nil {
		t.Fatal(err)
	}
	for sink, want := range map[*fakeSink][]string{
		first:  {"start", "loss ring_full 7+0+0", "reload", "stop"},
		second: {"start", "stop"},
	} {
		lines := sink.lines(t)
		if got := inWords(lines); !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
		if stop := last(t, lines); stop.LostRingFull != 7 || stop.Read != 4 || stop.Seen != 11 {
			t.Errorf("stop is %+v", stop)
		}
	}
}

// What the kernel's sample has left out before an output begins counts as read and dropped, as all that was read before;
// its connections do not, as those that the loop has left out before.
func TestReload_EarlierSample(t *testing.T) {
	first, second := &fakeSink{}, &fakeSink{}
	out := func(name string, sink *fakeSink) Output {
		o := named(name, sink, record.NewNative(nil), "connection")
		o.Selection = &selection.Selection{Sample: 1000}
		return o
	}
	reloads := make(chan *Reload, 1)
	source := &fakeSource{turns: [][][]byte{{sample(1)}, {sample(2)}, {sample(3)}, {sample(4)}}}
	source.others[0].Entered, source.others[0].Unsampled, source.others[0].UnsampledEnds = 9, 9, 5
	source.atRead = func() {
		switch source.reads {
		case 2:
			reloads <- &Reload{Done: make(chan struct{}), Outputs: []Output{out("first", first), out("second", second)}}
		case 3:
			source.others[0].Entered, source.others[0].Unsampled, source.others[0].UnsampledEnds = 12, 12, 7
		}
	}
	if _, err := runAll(t, Config{Reloads: reloads, Outputs: []Output{out("first", first)}}, source); err != nil {
		t.Fatal(err)
	}
	for sink, want := range map[*fakeSink]uint64{first: 7, second: 2} {
		if stop := last(t, sink.lines(t)); stop.Read != 16 || stop.Dropped != 16 || stop.Seen != 16 || stop.DroppedConnections != want {
			t.Errorf("stop is %+v, want 16 transitions and %d connections dropped", stop, want)
		}
	}
}

// An output that ends while its reader stalls has the counters of its end, with which its account adds up, and all
// losses until then. One that begins has none of them.
func TestReload_CountersDuringStall(t *testing.T) {
	goes, comes := &fakeSink{}, &fakeSink{}
	reloads := make(chan *Reload, 1)
	source := &fakeSource{turns: [][][]byte{{sample(1)}, {sample(2), sample(3)}, {sample(4)}}}
	goes.atPut = func() { goes.full = goes.full || source.emitted == 1 } // the loop looks at the sink after each Put
	source.atRead = func() {
		if source.reads == 1 {
			source.others[0].Entered, source.others[0].RingFull = 7, 7
			reloads <- &Reload{Done: make(chan struct{}), Outputs: []Output{named("comes", comes, record.NewNative(nil))}}
		}
	}
	_, err := runAll(t, Config{Reloads: reloads, Outputs: []Output{named("goes", goes, record.NewNative(nil))}}, source)
	if err != nil {
		t.Fatal(err)
	}
	for sink, want := range map[*fakeSink][]string{
		goes:  {"start", "transition 1", "loss ring_full 7+0+0", "loss queue_full 2+0+0", "stop"},
		comes: {"start", "transition 4", "stop"},
	} {
		lines := sink.lines(t)
		if got := inWords(lines); !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
		if stop := last(t, lines); stop.LostRingFull != 7 || stop.Seen != stop.Read+7 {
			t.Errorf("stop is %+v, want 7 lost besides those that were read", stop)
		}
	}
}

// What the programs of before have emitted comes before the reload record, their open alerts are closed there, and the
// new monitor gets what follows. A failure to exchange the programs changes nothing.
func TestReload_Filters(t *testing.T) {
	for name, failure := range map[string]error{"exchanged": nil, "failed": errors.New("refused")} {
		t.Run(name, func(t *testing.T) {
			sink, reloads := &fakeSink{}, make(chan *Reload, 1)
			source := &fakeSource{turns: [][][]byte{{sample(1)}, {end(2, 0)}, {sample(3)}}}
			before, next := &fakeMonitor{}, &fakeMonitor{}
			r := &Reload{
				Outputs: []Output{named("out", sink, record.NewNative(nil), "transition")}, Changed: []string{"port"},
				Replace: func() error { return failure }, Monitor: func() Monitor { return next }, Done: make(chan struct{}),
			}
			source.atRead = func() {
				if source.reads == 0 { // the next turn takes it, and reads twice
					reloads <- r
				}
			}
			_, err := runAll(t, Config{
				Reloads: reloads, Monitor: before, Outputs: []Output{named("out", sink, record.NewNative(nil), "transition")},
			}, source)
			if err != nil {
				t.Fatal(err)
			}
			want, seen := []string{"start", "transition 1", "transition 2", "reload", "transition 3", "stop"}, [2]uint64{2, 1}
			if failure != nil {
				want, seen = []string{"start", "transition 1", "transition 2", "transition 3", "stop"}, [2]uint64{3, 0}
			}
			if got := inWords(sink.lines(t)); !slices.Equal(got, want) {
				t.Errorf("got %q, want %q", got, want)
			}
			if !errors.Is(r.Err, failure) {
				t.Errorf("the reload ends with %v, want %v", r.Err, failure)
			}
			if got := [2]uint64{before.seen, next.seen}; got != seen {
				t.Errorf("the monitors have seen %v transitions, want %v", got, seen)
			}
		})
	}
}
