package trace

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tcpshift/tcpshift/internal/probe"
	"github.com/tcpshift/tcpshift/internal/record"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// summary is the stream in words: the type of each record, what tells it from
// others, and how many of a loss.
func summary(lines []line) []string {
	all := make([]string, len(lines))
	for i, l := range lines {
		all[i] = l.Type
		switch l.Type {
		case "transition", "connection":
			all[i] += " " + l.Conn
		case "loss":
			all[i] += fmt.Sprintf(" %s %d+%d+%d", l.Cause, l.Lost, l.LostConnections, l.LostTimeWaitEnds)
		}
	}
	return all
}

// stallBetween is a source that finds the sink full from one Read on, and not any
// more from another one on.
func stallBetween(first, after int, sink *fakeSink, source *fakeSource) {
	reads := 0
	source.atRead = func() {
		reads++
		sink.full = reads >= first && reads < after
	}
	sink.full = first == 1
}

func TestOneLossStandsWhereTheRecordsAreMissing(t *testing.T) {
	all := samples(6)
	got := run(t, func(stop func()) (Config, *fakeSource, *fakeSink) {
		sink := &fakeSink{}
		source := &fakeSource{rounds: [][][]byte{all[:1], all[1:3], {all[3], end(9, time.Second), timeWaitEnd(8)}, all[4:]}, whenIdle: stop}
		// The loop asks after it has put something in.
		source.atRead = func() { sink.full = len(source.rounds) == 3 || len(source.rounds) == 2 }
		sink.atPut = func() { sink.full = len(source.rounds) == 3 }
		return Config{}, source, sink
	})
	want := []string{
		"start", "transition 1", "loss queue_full 4+1+1", "transition 5", "transition 6", "stop",
	}
	if s := summary(got.lines); got.err != nil || !slices.Equal(s, want) {
		t.Fatalf("got  %q, %v\nwant %q", s, got.err, want)
	}
	stop := last(t, got.lines)
	if stop.LostQueueFull != 4 || stop.Read != 7 || stop.Written != 3 || stop.Dropped != 0 || stop.LostConnections != 1 ||
		stop.LostTimeWaitEnds != 1 || stop.Connections != 0 || stop.TimeWaitEnds != 0 {
		t.Errorf("stop is %+v, want 7 read, 3 written and 4 lost, with a connection and an end", stop)
	}
}

func TestWhatTheKernelLosesAndWhatIsDueDuringAStallComesOnceAfterIt(t *testing.T) {
	all := samples(9)
	got := run(t, func(stop func()) (Config, *fakeSource, *fakeSink) {
		sink := &fakeSink{}
		source := &fakeSource{whenIdle: stop}
		for i := range all {
			source.rounds = append(source.rounds, all[i:i+1])
		}
		stallBetween(1, 8, sink, source)
		stalls := source.atRead
		source.atRead = func() {
			stalls()
			time.Sleep(100 * time.Millisecond)
			source.others.Primary = probe.ProgramCounters{Entered: source.others.Primary.Entered + 2, RingFull: source.others.Primary.RingFull + 2}
		}
		return Config{StatsInterval: 100 * time.Millisecond}, source, sink
	})
	var s []string
	for _, each := range summary(got.lines) {
		if !strings.HasPrefix(each, "loss ring_full 2") { // those after the stall, round by round
			s = append(s, each)
		}
	}
	want := []string{"start", "loss ring_full 14+0+0", "loss queue_full 7+0+0", "transition 8", "stats", "transition 9", "stats", "stats", "stats", "stop"}
	if !slices.Equal(s, want) {
		t.Errorf("got  %q\nwant %q", s, want)
	}
}

func TestAReaderWhoIsOnlyBehindLosesNothingAsLongAsTheRingHasRoom(t *testing.T) {
	for _, tt := range []struct {
		crowded bool
		back    time.Duration // when the sink has room again
		lost    uint64
	}{
		{false, behind / 2, 0},
		{false, 2 * behind, 4},
		{true, behind / 2, 4},
	} {
		got := run(t, func(stop func()) (Config, *fakeSource, *fakeSink) {
			sink := &fakeSink{}
			source := &fakeSource{rounds: [][][]byte{samples(5)[:1], samples(5)[1:]}, crowded: tt.crowded, whenIdle: stop}
			sink.atPut = func() {
				if source.emitted == 1 && sink.fullUntil.IsZero() {
					sink.fullUntil = time.Now().Add(tt.back)
				}
			}
			return Config{}, source, sink
		})
		if stop := last(t, got.lines); stop.LostQueueFull != tt.lost || stop.Written != 5-tt.lost {
			t.Errorf("crowded %v, room after %v: %d lost and %d written, want %d lost of 5", tt.crowded, tt.back, stop.LostQueueFull, stop.Written, tt.lost)
		}
	}
}

func TestAStreamThatEndsWhileItIsStalledSaysWhatIsMissing(t *testing.T) {
	got := run(t, func(func()) (Config, *fakeSource, *fakeSink) {
		return Config{Duration: time.Second, StatsInterval: 100 * time.Millisecond},
			&fakeSource{rounds: [][][]byte{samples(3)}, left: samples(5)[3:]}, &fakeSink{full: true}
	})
	want := []string{"start", "loss queue_full 5+0+0", "stats", "stop"}
	if s := summary(got.lines); got.err != nil || !slices.Equal(s, want) {
		t.Errorf("got  %q, %v\nwant %q", s, got.err, want)
	}
	if stop := last(t, got.lines); stop.Read != 5 || stop.LostQueueFull != 5 || stop.Written != 0 {
		t.Errorf("stop is %+v, want 5 read and lost", stop)
	}
}

func TestACountIsOfWhatIsWritten(t *testing.T) {
	all := samples(6)
	got := run(t, func(func()) (Config, *fakeSource, *fakeSink) {
		sink := &fakeSink{}
		source := &fakeSource{rounds: [][][]byte{all[:1], all[1:3], all[3:]}}
		stallBetween(2, 3, sink, source)
		sink.atPut = func() { sink.full = len(source.rounds) == 2 }
		return Config{Count: 3}, source, sink
	})
	want := []string{"start", "transition 1", "loss queue_full 2+0+0", "transition 4", "transition 5", "stop"}
	if s := summary(got.lines); !slices.Equal(s, want) {
		t.Errorf("got  %q\nwant %q", s, want)
	}
	if stop := last(t, got.lines); stop.Read != 6 || stop.Dropped != 1 || stop.Written != 3 || stop.LostQueueFull != 2 {
		t.Errorf("stop is %+v, want 6 read: 3 written, 2 lost, 1 dropped", stop)
	}
}

func TestWhatIsNotWantedIsNoLoss(t *testing.T) {
	for _, tt := range []struct {
		only []string
		want []string
	}{
		{[]string{"stats", "loss"}, []string{"start", "stop"}},
		{[]string{"connection", "loss"}, []string{"start", "loss queue_full 0+1+0", "stop"}},
		{[]string{"transition"}, []string{"start", "stop"}},
	} {
		got := run(t, func(stop func()) (Config, *fakeSource, *fakeSink) {
			source := &fakeSource{rounds: [][][]byte{{sample(1), end(2, time.Second)}}, whenIdle: stop}
			return Config{Only: tt.only}, source, &fakeSink{full: true}
		})
		if s := summary(got.lines); !slices.Equal(s, tt.want) {
			t.Errorf("--only %q gives %q, want %q", tt.only, s, tt.want)
		}
	}
}

func TestDetectionGoesOnWhileTheReaderStalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, sink := &fakeWatch{}, &fakeSink{full: true}
		source := &fakeSource{rounds: [][][]byte{samples(3), samples(4)}}
		_, _, err := watchedBy(t, w, sink, Config{}, source)
		if err != nil || w.seen != 7 || w.lost != 0 {
			t.Errorf("%d were watched and %d lost, want 7 and none; %v", w.seen, w.lost, err)
		}
		got := typesOf(sink.lines(t))
		if want := []string{"start", "alert", "loss", "alert", "stop"}; !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

// discard gives back the buffer that it was given.
type discard struct {
	Sink
	full bool
}

func (d *discard) Put(lines []byte) ([]byte, error) { return lines[:0], nil }
func (d *discard) Full() bool                       { return d.full }
func (d *discard) Batch() int                       { return 64 << 10 }

// The hot path: neither what is written nor what is lost takes memory.
func TestNoTransitionTakesMemory(t *testing.T) {
	for _, full := range []bool{false, true} {
		sink := &discard{full: full}
		l := newLoop(Config{Source: &fakeSource{crowded: true}, Sink: sink, Encoder: record.NewNative(nil)})
		l.full = full
		events := [][]byte{sample(1), end(2, time.Second), event(112, 1, 3, tcp.SynSent, tcp.Established)}
		handle := func() {
			for _, e := range events {
				if err := l.handle(e); err != nil {
					t.Fatal(err)
				}
			}
		}
		handle() // the loop's own buffer changes hands once
		if n := testing.AllocsPerRun(1000, handle); n != 0 {
			t.Errorf("full %v: %v allocations for %d events, want none", full, n, len(events))
		}
	}
}
