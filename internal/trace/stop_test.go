package trace

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/internal/boottime"
)

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
	return c.wall(boottime.Now()).UnixNano()
}

// A context that is canceled without a signal gives the reason canceled.
func TestStop_Canceled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	source, sink := &fakeSource{whenIdle: cancel}, &fakeSink{}
	if err := Run(ctx, Config{Source: source, Outputs: to(sink, nil)}); err != nil {
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
