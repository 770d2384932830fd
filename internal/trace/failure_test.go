package trace

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/internal/output"
)

// Records that were encoded before a failure are written, and no stop follows.
func TestFailure_EncodedRecordsWritten(t *testing.T) {
	short := []byte{1, 2, 3}
	for _, tt := range []struct {
		name   string
		source fakeSource
		want   []string
	}{
		{"of reading", fakeSource{turns: [][][]byte{samples(3)}, readErr: errBroken, readErrAt: 1}, numbered(3)},
		{"of reading later", fakeSource{turns: [][][]byte{samples(1), samples(2)[1:], samples(3)[2:]}, readErr: errBroken, readErrAt: 3}, numbered(3)},
		{"of counting", fakeSource{turns: [][][]byte{samples(3)}, countersErr: errBroken}, numbered(3)},
		{"of decoding", fakeSource{turns: [][][]byte{append(samples(3), short, sample(4))}}, numbered(3)},
		{"of decoding what is left in the ring", fakeSource{left: append(samples(3), short, sample(4))}, numbered(3)},
		{"of reading what is left in the ring", fakeSource{left: samples(3), readErr: errBroken, readErrAt: 2}, numbered(3)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := run(t, func(stop func()) (Config, *fakeSource, *fakeSink) {
				tt.source.whenIdle = stop
				return Config{}, &tt.source, &fakeSink{}
			})
			if got.err == nil || !slices.Equal(conns(got.lines), tt.want) {
				t.Errorf("the error is %v and the transitions are %v, want one and %v", got.err, conns(got.lines), tt.want)
			}
			if n := len(ofType(got.lines, "stop")); n != 0 {
				t.Error("stop is written, want none after a failure")
			}
		})
	}
}

// A failure to detach is returned, and the stream ends with the remaining events and
// stop.
func TestFailure_Detach(t *testing.T) {
	got := run(t, func(stop func()) (Config, *fakeSource, *fakeSink) {
		source := &fakeSource{turns: [][][]byte{samples(2)}, left: samples(3)[2:], detachErr: errBroken, whenIdle: stop}
		return Config{StatsInterval: time.Hour}, source, &fakeSink{}
	})
	if !errors.Is(got.err, errBroken) {
		t.Errorf("got the error %v, want %v", got.err, errBroken)
	}
	want := []string{"start", "transition", "transition", "transition", "stats", "stop"}
	if types := typesOf(got.lines); !slices.Equal(types, want) {
		t.Errorf("got %v, want %v", types, want)
	}
	if end := last(t, got.lines); end.Reason != "signal" || end.Read != 3 {
		t.Errorf("the last line is %+v, want stop for the signal, with 3 read", end)
	}
}

// A reader that went away hides no other failure.
func TestFailure_NotHiddenByReaderGone(t *testing.T) {
	for _, tt := range []struct {
		name   string
		source fakeSource
		errAt  int
	}{
		{"of detaching, found out by the last write", fakeSource{detachErr: errBroken}, 2},
		{"of reading, found out by the write of what was there", fakeSource{turns: [][][]byte{samples(1)}, readErr: errBroken, readErrAt: 1}, 2},
	} {
		got := run(t, func(stop func()) (Config, *fakeSource, *fakeSink) {
			tt.source.whenIdle = stop
			return Config{}, &tt.source, &fakeSink{err: output.ErrReaderGone, errAt: tt.errAt}
		})
		if !errors.Is(got.err, errBroken) || errors.Is(got.err, output.ErrReaderGone) {
			t.Errorf("%s: got the error %v, want %v alone", tt.name, got.err, errBroken)
		}
	}
}

// Nothing is written after a write that failed.
func TestFailure_NoWriteAfterwards(t *testing.T) {
	sink := &fakeSink{err: errBroken, errAt: 2}
	got := run(t, func(stop func()) (Config, *fakeSource, *fakeSink) {
		return Config{}, &fakeSource{turns: [][][]byte{samples(3)}, whenIdle: stop}, sink
	})
	if !errors.Is(got.err, errBroken) || sink.writes != 2 {
		t.Errorf("the error is %v after %d writes, want %v after 2", got.err, sink.writes, errBroken)
	}
}

// Stats that were due during a blocked write come once, and the next ones an interval
// later.
func TestStats_OnceAfterBlockedWrite(t *testing.T) {
	const interval, blocked = 200 * time.Millisecond, 1750 * time.Millisecond
	var freed time.Time
	got := run(t, func(func()) (Config, *fakeSource, *fakeSink) {
		sink := &fakeSink{}
		sink.atWrite = func() {
			if sink.writes == 4 { // after start and two stats
				time.Sleep(blocked)
				freed = time.Now()
			}
		}
		return Config{StatsInterval: interval, Duration: 4 * time.Second}, &fakeSource{}, sink
	})
	var after []time.Time
	for _, l := range ofType(got.lines, "stats") {
		if l.Time.After(freed) {
			after = append(after, l.Time)
		}
	}
	if got.err != nil || len(after) < 3 {
		t.Fatalf("%d stats after the write, the error %v; want some and none", len(after), got.err)
	}
	if late := after[0].Sub(freed); late > maxWait {
		t.Errorf("the overdue stats come %v after the write, want them within %v", late, maxWait)
	}
	for i, at := range after[1 : len(after)-1] { // the last one is the final one
		if gap := at.Sub(after[i]); gap < interval-maxWait {
			t.Errorf("stats %d come %v after those before, want about %v", i+2, gap, interval)
		}
	}
	if gap := after[1].Sub(after[0]); gap < interval {
		t.Errorf("the stats after the overdue ones come %v later, want %v at least", gap, interval)
	}
}
