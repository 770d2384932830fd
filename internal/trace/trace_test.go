package trace

import (
	"fmt"
	"slices"
	"testing"
	"time"

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
			return Config{Outputs: selecting(tt.only), StatsInterval: time.Hour}, source, &fakeSink{}
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
