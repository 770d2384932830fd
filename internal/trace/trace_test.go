package trace

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/internal/monotonic"
	"github.com/tcpshift/tcpshift/internal/output"
	"github.com/tcpshift/tcpshift/internal/probe"
	"github.com/tcpshift/tcpshift/internal/record"
)

func last(t *testing.T, lines []line) line {
	t.Helper()
	if len(lines) == 0 {
		t.Fatal("nothing is written")
	}
	return lines[len(lines)-1]
}

// conns are the cookies of the transitions, in the order of the stream.
func conns(lines []line) []string {
	var all []string
	for _, l := range ofType(lines, "transition") {
		all = append(all, l.Conn)
	}
	return all
}

func numbered(n int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprintf("%x", i+1)
	}
	return all
}

// A stream ended by a signal goes from start to stop, and has all events of the ring,
// with their times.
func TestStop_Signal(t *testing.T) {
	all := samples(12)
	got := run(t, func(stop func()) (Config, *fakeSource, *fakeSink) {
		return Config{}, &fakeSource{turns: [][][]byte{all[:3], all[3:10]}, left: all[10:], whenIdle: stop}, &fakeSink{}
	})
	if got.err != nil {
		t.Errorf("got the error %v, want none", got.err)
	}
	if want := numbered(12); !slices.Equal(conns(got.lines), want) {
		t.Errorf("the transitions are %v, want all in their order, with those left in the ring: %v", conns(got.lines), want)
	}
	end := last(t, got.lines)
	if end.Type != "stop" || end.Reason != "signal" || end.Signal != "SIGTERM" {
		t.Errorf("the last line is %+v, want stop for the signal SIGTERM", end)
	}
	for _, l := range ofType(got.lines, "transition") {
		if age := time.Duration(realNow() - l.Time.UnixNano()); age < 0 || age > time.Minute {
			t.Errorf("transition %s is %v old, want it of this minute", l.Conn, age)
		}
	}
}

// realNow is the time outside the bubble, that of the kernel's clocks.
func realNow() int64 {
	var c clock
	c.sync()
	return c.wall(monotonic.Now()).UnixNano()
}

// A context that is canceled without a signal gives the reason canceled.
func TestStop_Canceled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	source, sink := &fakeSource{whenIdle: cancel}, &fakeSink{}
	if err := Run(ctx, Config{Source: source, Sink: sink, Encoder: record.NewNative(nil)}); err != nil {
		t.Errorf("got the error %v, want none", err)
	}
	if end := last(t, sink.lines(t)); end.Reason != "canceled" || end.Signal != "" {
		t.Errorf("the last line is %+v, want stop for the reason canceled", end)
	}
}

// A signal after the last transition of --count is not the reason of stop.
func TestStop_SignalAfterCount(t *testing.T) {
	got := run(t, func(stop func()) (Config, *fakeSource, *fakeSink) {
		return Config{Count: 1}, &fakeSource{turns: [][][]byte{samples(1)}, atRead: stop}, &fakeSink{}
	})
	if end := last(t, got.lines); end.Reason != "count" || end.Signal != "" {
		t.Errorf("the last line is %+v, want stop for the reason count, without a signal", end)
	}
}

// --count ends the stream after exactly that many transitions, wherever the last one is
// found.
func TestStop_Count(t *testing.T) {
	all := samples(10)
	for _, tt := range []struct {
		name    string
		source  fakeSource
		count   uint64
		reason  string
		dropped uint64
	}{
		{"in the middle of a turn", fakeSource{turns: [][][]byte{all}}, 4, "count", 6},
		{"at the end of a turn", fakeSource{turns: [][][]byte{all[:4], all[4:]}}, 4, "count", 0},
		{"in a later turn", fakeSource{turns: [][][]byte{all[:3], all[3:]}}, 4, "count", 6},
		{"with the first one", fakeSource{turns: [][][]byte{all}}, 1, "count", 9},
		{"with more left in the ring", fakeSource{turns: [][][]byte{all[:5]}, left: all[5:]}, 4, "count", 6},
		{"reached only among what is left in the ring", fakeSource{turns: [][][]byte{all[:2]}, left: all[2:]}, 4, "signal", 6},
		{"reached with the last that is left in the ring", fakeSource{left: all[:4]}, 4, "signal", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := run(t, func(stop func()) (Config, *fakeSource, *fakeSink) {
				tt.source.whenIdle = stop
				return Config{Count: tt.count}, &tt.source, &fakeSink{}
			})
			if want := numbered(int(tt.count)); got.err != nil || !slices.Equal(conns(got.lines), want) {
				t.Errorf("the transitions are %v, the error %v; want %v", conns(got.lines), got.err, want)
			}
			end := last(t, got.lines)
			if end.Reason != tt.reason || end.Written != tt.count || end.Dropped != tt.dropped ||
				end.Read != tt.count+tt.dropped {
				t.Errorf("the last line is %+v, want the reason %s, %d written and %d dropped of all read",
					end, tt.reason, tt.count, tt.dropped)
			}
		})
	}
}

// Only the selected record types are written, besides start and stop.
func TestOnly_SelectsTypes(t *testing.T) {
	for _, tt := range []struct {
		only    []string
		want    []string
		dropped uint64
	}{
		{nil, []string{"start", "transition", "transition", "loss", "stats", "stop"}, 0},
		{[]string{"transition"}, []string{"start", "transition", "transition", "stop"}, 0},
		{[]string{"loss"}, []string{"start", "loss", "stop"}, 2},
		{[]string{"stats"}, []string{"start", "stats", "stop"}, 2},
		{[]string{"loss", "stats"}, []string{"start", "loss", "stats", "stop"}, 2},
		{[]string{"stats", "loss", "transition"}, []string{"start", "transition", "transition", "loss", "stats", "stop"}, 0},
		{[]string{}, []string{"start", "stop"}, 2},
	} {
		got := run(t, func(stop func()) (Config, *fakeSource, *fakeSink) {
			source := &fakeSource{turns: [][][]byte{samples(2)}, whenIdle: stop}
			source.others[0] = probe.ProgramCounters{Entered: 5, RingFull: 5}
			return Config{Only: tt.only, StatsInterval: time.Hour}, source, &fakeSink{}
		})
		if types := typesOf(got.lines); got.err != nil || !slices.Equal(types, tt.want) {
			t.Errorf("--only %q: got %v and the error %v, want %v", tt.only, types, got.err, tt.want)
			continue
		}
		end := last(t, got.lines)
		if end.Read != 2 || end.Dropped != tt.dropped || end.Written != 2-tt.dropped || end.LostRingFull != 5 {
			t.Errorf("--only %q: the last line is %+v, want 2 read, %d dropped, 5 lost", tt.only, end, tt.dropped)
		}
	}
}

// A loss in the kernel is reported once, after the turn in which it happened.
func TestLoss_OnceInPlace(t *testing.T) {
	all := samples(3)
	got := run(t, func(stop func()) (Config, *fakeSource, *fakeSink) {
		source := &fakeSource{turns: [][][]byte{all[:1], all[1:2], all[2:]}, whenIdle: stop}
		reads := 0
		source.atRead = func() {
			if reads++; reads == 2 {
				source.others[0] = probe.ProgramCounters{Entered: 7, RingFull: 7}
			}
		}
		return Config{}, source, &fakeSink{}
	})
	want := []string{"start", "transition", "transition", "loss", "transition", "stop"}
	if types := typesOf(got.lines); !slices.Equal(types, want) {
		t.Fatalf("got %v, want %v", types, want)
	}
	if loss := got.lines[3]; loss.Lost != 7 || loss.Cause != "ring_full" {
		t.Errorf("the loss is %+v, want 7 for the cause ring_full", loss)
	}
}

// A loss without any event beside it is reported little more than a second later, even
// if filtered firings could hide it; and an idle tracer seldom reads the counters.
func TestLoss_IdleTracer(t *testing.T) {
	for _, tt := range []struct {
		cause  string
		missed probe.ProgramCounters
	}{
		{"ring_full", probe.ProgramCounters{Entered: 7, RingFull: 7}},
		{"reentry", probe.ProgramCounters{Missed: 7}},
	} {
		source := &fakeSource{}
		got := run(t, func(func()) (Config, *fakeSource, *fakeSink) {
			began, last, missed := time.Now(), time.Now(), false
			source.atRead = func() {
				first := &source.others[0]
				if now := time.Now(); now.Sub(last) > 100*time.Millisecond {
					last = now
					first.Entered++
					first.Filtered++
				}
				if !missed && time.Since(began) > 5*time.Second {
					missed = true
					first.Entered += tt.missed.Entered
					first.RingFull += tt.missed.RingFull
					first.Missed += tt.missed.Missed
				}
			}
			return Config{Duration: 10 * time.Second}, source, &fakeSink{}
		})
		losses := ofType(got.lines, "loss")
		var lost uint64
		for _, l := range losses {
			lost += l.Lost
		}
		if lost != 7 || losses[0].Cause != tt.cause {
			t.Fatalf("%s: the losses are %+v, want 7", tt.cause, losses)
		}
		if late := losses[len(losses)-1].Time.Sub(got.lines[0].Time) - 5*time.Second; late > 2200*time.Millisecond {
			t.Errorf("%s: it was reported %v late", tt.cause, late)
		}
		if source.asked > 35 {
			t.Errorf("%s: the counters were read %d times in 10 s", tt.cause, source.asked)
		}
	}
}

// --duration ends the stream on time, and stats come at their interval.
func TestStop_DurationAndStatsInterval(t *testing.T) {
	for _, tt := range []struct {
		duration, interval time.Duration
		stats              int // one per interval, and the final one
	}{
		{time.Second, 300 * time.Millisecond, 4},
		{10 * time.Second, time.Second, 11},
		{10 * time.Second, 100 * time.Millisecond, 101}, // not a multiple of a maxWait, and no drift
		{time.Second, time.Hour, 1},
		{time.Second, 0, 0},
		{time.Millisecond, 0, 0}, // less than a maxWait
		{30*time.Second + 1, 10 * time.Second, 4},
	} {
		got := run(t, func(func()) (Config, *fakeSource, *fakeSink) {
			return Config{Duration: tt.duration, StatsInterval: tt.interval}, &fakeSource{}, &fakeSink{}
		})
		if got.err != nil || got.duration != tt.duration {
			t.Errorf("%v: it takes %v and gives the error %v, want exactly that long and none", tt.duration, got.duration, got.err)
		}
		if end := last(t, got.lines); end.Type != "stop" || end.Reason != "duration" {
			t.Errorf("%v: the last line is %+v, want stop for the reason duration", tt.duration, end)
		}
		if n := len(ofType(got.lines, "stats")); n != tt.stats {
			t.Errorf("%v with stats every %v: %d stats, want %d", tt.duration, tt.interval, n, tt.stats)
		}
	}
}

// The counts of stats and stop add up, as do the loss records.
func TestAccount_AddsUp(t *testing.T) {
	all := samples(1000)
	var sink *fakeSink
	got := run(t, func(stop func()) (Config, *fakeSource, *fakeSink) {
		source := &fakeSource{left: all[900:], whenIdle: stop}
		for begin := 0; begin < 900; begin += 100 {
			source.turns = append(source.turns, all[begin:begin+100])
		}
		source.atRead = func() { // in each turn, events with every other outcome
			first, second := &source.others[0], &source.others[1]
			first.OtherProtocol += 2
			first.Filtered += 30
			first.RingFull += 5
			first.Entered += 37
			first.Missed += 11
			second.Entered += 10 // the eleventh is lost
			second.Filtered += 6
			second.RingBusy += 4
			time.Sleep(50 * time.Millisecond)
		}
		sink = &fakeSink{}
		return Config{StatsInterval: 100 * time.Millisecond, Count: 950}, source, sink
	})
	if got.err != nil {
		t.Fatal(got.err)
	}
	stats := ofType(got.lines, "stats")
	if len(stats) < 3 {
		t.Fatalf("%d stats, want at least 3", len(stats))
	}
	for _, s := range append(stats, last(t, got.lines)) {
		out := s.Filtered + s.LostRingFull + s.LostRingBusy + s.LostReentry + s.Read
		if s.Seen != s.Fired-s.OtherProtocol || s.Fired != s.Entered+s.Missed || s.Read != s.Written+s.Dropped || s.Seen < out {
			t.Errorf("an account does not add up: %+v", s)
		}
	}
	for _, s := range []line{stats[len(stats)-1], last(t, got.lines)} {
		if out := s.Filtered + s.LostRingFull + s.LostRingBusy + s.LostReentry + s.Read; s.Seen != out {
			t.Errorf("at the end %d are seen and %d accounted for: %+v", s.Seen, out, s)
		}
	}
	lost := make(map[string]uint64)
	for _, l := range ofType(got.lines, "loss") {
		lost[l.Cause] += l.Lost
	}
	end := last(t, got.lines)
	if lost["ring_full"] != end.LostRingFull || lost["ring_busy"] != end.LostRingBusy || lost["reentry"] != end.LostReentry ||
		end.LostReentry == 0 {
		t.Errorf("the loss records add up to %v, want the counts of stop: %+v", lost, end)
	}
	if end.Read != 1000 || end.Written != 950 || end.Dropped != 50 {
		t.Errorf("%d read, %d written, %d dropped; want 1000, 950 and 50", end.Read, end.Written, end.Dropped)
	}
	if want := uint64(sink.written.Len() - end.size); end.WrittenBytes != want {
		t.Errorf("stop has written_bytes %d, want the %d before it", end.WrittenBytes, want)
	}
}

// The records of a turn are written before the next turn.
func TestFlush_EveryTurn(t *testing.T) {
	all := samples(30)
	sink := &fakeSink{}
	got := run(t, func(stop func()) (Config, *fakeSource, *fakeSink) {
		source := &fakeSource{whenIdle: stop}
		for i := range 10 {
			source.turns = append(source.turns, all[3*i:3*i+3])
		}
		source.atRead = func() {
			if n := len(ofType(sink.lines(t), "transition")); uint64(n) != source.emitted {
				t.Errorf("%d transitions are written when %d had been read, want all", n, source.emitted)
			}
		}
		return Config{}, source, sink
	})
	if n := len(conns(got.lines)); n != 30 {
		t.Errorf("%d transitions, want 30", n)
	}
}

// The records of a large turn are written in batches.
func TestFlush_Batches(t *testing.T) {
	const n = 5000
	sink := &fakeSink{}
	got := run(t, func(stop func()) (Config, *fakeSource, *fakeSink) {
		return Config{}, &fakeSource{turns: [][][]byte{samples(n)}, whenIdle: stop}, sink
	})
	if len(conns(got.lines)) != n {
		t.Errorf("%d transitions, want %d", len(conns(got.lines)), n)
	}
	if least := sink.written.Len() / (sink.BatchSize() + record.MaxLine); sink.writes < least {
		t.Errorf("%d bytes in %d writes, want at least %d", sink.written.Len(), sink.writes, least)
	}
}

// A reader that goes away ends the stream without an error, whatever finds it.
func TestReaderGone_NoError(t *testing.T) {
	for _, tt := range []struct {
		name string
		sink fakeSink
	}{
		{"found by the first write", fakeSink{err: output.ErrReaderGone, errAt: 1}},
		{"found by a later write", fakeSink{err: output.ErrReaderGone, errAt: 2}},
		{"found by the write of stop", fakeSink{err: output.ErrReaderGone, errAt: 3}},
		{"found without a write", fakeSink{readerGone: true}},
		{"found by a write, wrapped", fakeSink{err: fmt.Errorf("write: %w", output.ErrReaderGone), errAt: 2}},
	} {
		got := run(t, func(stop func()) (Config, *fakeSource, *fakeSink) {
			return Config{}, &fakeSource{turns: [][][]byte{samples(1)}, whenIdle: stop}, &tt.sink
		})
		if got.err != nil {
			t.Errorf("%s: got the error %v, want none", tt.name, got.err)
		}
		if n := len(ofType(got.lines, "stop")); n != 0 {
			t.Errorf("%s: stop is written, want nothing more for a reader that is gone", tt.name)
		}
	}
}

// Run returns the error of what failed.
func TestFailure_Returned(t *testing.T) {
	short := [][]byte{{1, 2, 3}}
	for _, tt := range []struct {
		name   string
		source fakeSource
		sink   fakeSink
		want   error // nil: any
	}{
		{"the first write", fakeSource{}, fakeSink{err: errBroken, errAt: 1}, errBroken},
		{"a later write", fakeSource{turns: [][][]byte{samples(1)}}, fakeSink{err: errBroken, errAt: 2}, errBroken},
		{"a write within a large turn", fakeSource{turns: [][][]byte{samples(5000)}}, fakeSink{err: errBroken, errAt: 3}, errBroken},
		{"a write while draining", fakeSource{left: samples(5000)}, fakeSink{err: errBroken, errAt: 2}, errBroken},
		{"the write of stop", fakeSource{}, fakeSink{err: errBroken, errAt: 2}, errBroken},
		{"reading", fakeSource{readErr: errBroken}, fakeSink{}, errBroken},
		{"counting", fakeSource{countersErr: errBroken}, fakeSink{}, errBroken},
		{"detaching", fakeSource{detachErr: errBroken}, fakeSink{}, errBroken},
		{"decoding", fakeSource{turns: [][][]byte{short}}, fakeSink{}, nil},
		{"decoding what is left", fakeSource{left: short}, fakeSink{}, nil},
	} {
		got := run(t, func(stop func()) (Config, *fakeSource, *fakeSink) {
			tt.source.whenIdle = stop
			return Config{}, &tt.source, &tt.sink
		})
		if got.err == nil || tt.want != nil && !errors.Is(got.err, tt.want) {
			t.Errorf("%s fails: got the error %v, want %v", tt.name, got.err, tt.want)
		}
	}
}
