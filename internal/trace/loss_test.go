package trace

import (
	"slices"
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/internal/probe"
)

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
