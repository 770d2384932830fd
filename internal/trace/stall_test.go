package trace

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tcpshift/tcpshift/internal/output"
	"github.com/tcpshift/tcpshift/internal/probe"
	"github.com/tcpshift/tcpshift/internal/record"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// ringGrace is that of package output.
const ringGrace = 250 * time.Millisecond

// inWords is the stream in words: each record's type, with the socket of a transition
// or connection, and with cause and numbers of a loss.
func inWords(lines []line) []string {
	all := make([]string, len(lines))
	for i, l := range lines {
		all[i] = l.Type
		switch l.Type {
		case "transition", "connection":
			all[i] += " " + l.Conn
		case "loss":
			all[i] += fmt.Sprintf(" %s %d+%d+%d", l.Cause, l.Lost, l.LostConnections, l.TimeWaitEndsLostQueueFull)
		}
	}
	return all
}

// stallBetween makes the sink full from the Read with number first on, until the Read
// with number after begins.
func stallBetween(first, after int, sink *fakeSink, source *fakeSource) {
	reads := 0
	source.atRead = func() {
		reads++
		sink.full = reads >= first && reads < after
	}
	sink.full = first == 1
}

// One loss record stands where records are missing, with all that is missing there.
func TestStall_OneLossInPlace(t *testing.T) {
	all := samples(6)
	got := run(t, func(stop func()) (Config, *fakeSource, *fakeSink) {
		sink := &fakeSink{}
		source := &fakeSource{turns: [][][]byte{all[:1], all[1:3], {all[3], end(9, time.Second), timeWaitEnd(8)}, all[4:]}, whenIdle: stop}
		// The loop looks at the sink after each Put.
		source.atRead = func() { sink.full = len(source.turns) == 3 || len(source.turns) == 2 }
		sink.atPut = func() { sink.full = len(source.turns) == 3 }
		return Config{}, source, sink
	})
	want := []string{
		"start", "transition 1", "loss queue_full 4+1+1", "transition 5", "transition 6", "stop",
	}
	if s := inWords(got.lines); got.err != nil || !slices.Equal(s, want) {
		t.Fatalf("got  %q, %v\nwant %q", s, got.err, want)
	}
	stop := last(t, got.lines)
	if stop.LostQueueFull != 4 || stop.Read != 7 || stop.Written != 3 || stop.Dropped != 0 || stop.LostConnections != 1 ||
		stop.TimeWaitEndsLostQueueFull != 1 || stop.Connections != 0 || stop.TimeWaitEnds != 0 {
		t.Errorf("stop is %+v, want 7 read: 3 written and 4 lost, besides a connection and the end of a TIME_WAIT", stop)
	}
}

// Losses in the kernel and stats that are due during a stall come once, after it.
func TestStall_DefersLossAndStats(t *testing.T) {
	all := samples(9)
	got := run(t, func(stop func()) (Config, *fakeSource, *fakeSink) {
		sink := &fakeSink{}
		source := &fakeSource{whenIdle: stop}
		for i := range all {
			source.turns = append(source.turns, all[i:i+1])
		}
		stallBetween(1, 8, sink, source)
		stalls := source.atRead
		source.atRead = func() {
			stalls()
			time.Sleep(100 * time.Millisecond)
			source.others[0] = probe.ProgramCounters{Entered: source.others[0].Entered + 2, RingFull: source.others[0].RingFull + 2}
		}
		return Config{StatsInterval: 100 * time.Millisecond}, source, sink
	})
	var s []string
	for _, each := range inWords(got.lines) {
		if !strings.HasPrefix(each, "loss ring_full 2") { // one in every turn after the stall
			s = append(s, each)
		}
	}
	want := []string{"start", "loss ring_full 14+0+0", "loss queue_full 7+0+0", "transition 8", "stats", "transition 9", "stats", "stats", "stats", "stop"}
	if !slices.Equal(s, want) {
		t.Errorf("got  %q\nwant %q", s, want)
	}
}

// A reader that is late by less than 250 ms loses nothing, provided that the ring has
// room.
func TestStall_ShortOneLosesNothing(t *testing.T) {
	for _, tt := range []struct {
		crowded bool
		room    time.Duration // until the sink has room again
		lost    uint64
	}{
		{false, ringGrace / 2, 0},
		{false, 2 * ringGrace, 4},
		{true, ringGrace / 2, 4},
	} {
		got := run(t, func(stop func()) (Config, *fakeSource, *fakeSink) {
			sink := &fakeSink{}
			source := &fakeSource{turns: [][][]byte{samples(5)[:1], samples(5)[1:]}, crowded: tt.crowded, whenIdle: stop}
			sink.atPut = func() {
				if source.emitted == 1 && sink.fullUntil.IsZero() {
					sink.fullUntil = time.Now().Add(tt.room)
				}
			}
			return Config{}, source, sink
		})
		if stop := last(t, got.lines); stop.LostQueueFull != tt.lost || stop.Written != 5-tt.lost {
			t.Errorf("crowded %v, room after %v: %d lost and %d written, want %d lost of 5", tt.crowded, tt.room, stop.LostQueueFull, stop.Written, tt.lost)
		}
	}
}

// A stream that ends during a stall reports what is missing.
func TestStall_UntilEnd(t *testing.T) {
	got := run(t, func(func()) (Config, *fakeSource, *fakeSink) {
		return Config{Duration: time.Second, StatsInterval: 100 * time.Millisecond},
			&fakeSource{turns: [][][]byte{samples(3)}, left: samples(5)[3:]}, &fakeSink{full: true}
	})
	want := []string{"start", "loss queue_full 5+0+0", "stats", "stop"}
	if s := inWords(got.lines); got.err != nil || !slices.Equal(s, want) {
		t.Errorf("got  %q, %v\nwant %q", s, got.err, want)
	}
	if stop := last(t, got.lines); stop.Read != 5 || stop.LostQueueFull != 5 || stop.Written != 0 {
		t.Errorf("stop is %+v, want 5 read and lost", stop)
	}
}

// --count counts the transitions that are lost in a stall, too.
func TestStall_CountOfRead(t *testing.T) {
	all := samples(6)
	got := run(t, func(func()) (Config, *fakeSource, *fakeSink) {
		sink := &fakeSink{}
		source := &fakeSource{turns: [][][]byte{all[:1], all[1:3], all[3:]}}
		stallBetween(2, 3, sink, source)
		sink.atPut = func() { sink.full = len(source.turns) == 2 }
		return Config{Count: 5}, source, sink
	})
	want := []string{"start", "transition 1", "loss queue_full 2+0+0", "transition 4", "transition 5", "stop"}
	if s := inWords(got.lines); !slices.Equal(s, want) {
		t.Errorf("got  %q\nwant %q", s, want)
	}
	if stop := last(t, got.lines); stop.Read != 6 || stop.Dropped != 1 || stop.Written != 3 || stop.LostQueueFull != 2 {
		t.Errorf("stop is %+v, want 6 read: 3 written, 2 lost, 1 dropped", stop)
	}
}

// Records of types that are not selected do not count as lost.
func TestStall_UnselectedNotLost(t *testing.T) {
	for _, tt := range []struct {
		only []string
		want []string
	}{
		{[]string{"stats", "loss"}, []string{"start", "stop"}},
		{[]string{"connection", "loss"}, []string{"start", "loss queue_full 0+1+0", "stop"}},
		{[]string{"transition"}, []string{"start", "stop"}},
	} {
		got := run(t, func(stop func()) (Config, *fakeSource, *fakeSink) {
			source := &fakeSource{turns: [][][]byte{{sample(1), end(2, time.Second)}}, whenIdle: stop}
			return Config{Outputs: selecting(tt.only)}, source, &fakeSink{full: true}
		})
		if s := inWords(got.lines); !slices.Equal(s, tt.want) {
			t.Errorf("--only %q gives %q, want %q", tt.only, s, tt.want)
		}
	}
}

// The monitor observes all transitions during a stall, and its alerts are written.
func TestStall_DetectionContinues(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, sink := &fakeMonitor{}, &fakeSink{full: true}
		source := &fakeSource{turns: [][][]byte{samples(3), samples(4)}}
		_, _, err := monitoredBy(t, m, sink, Config{}, source)
		if err != nil || m.seen != 7 || m.lost != 0 {
			t.Errorf("%d were observed and %d lost, want 7 and none; %v", m.seen, m.lost, err)
		}
		got := typesOf(sink.lines(t))
		if want := []string{"start", "alert", "loss", "alert", "stop"}; !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

// Beyond the reserve of a stalled output alerts are lost, and counted in loss and stop. The
// operator is notified of the first one at once, and of their number.
func TestStall_AlertsBeyondReserve(t *testing.T) {
	for _, freed := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			var notices []string
			sink := &fakeSink{full: true, noRoom: true}
			source := &fakeSource{turns: [][][]byte{samples(3), samples(4)}}
			source.atRead = func() {
				if freed && source.reads > 5 {
					sink.full, sink.noRoom = false, false
				}
			}
			cfg := Config{Notify: func(message string) { notices = append(notices, message) }}
			if _, _, err := monitoredBy(t, &fakeMonitor{}, sink, cfg, source); err != nil {
				t.Error(err)
			}
			lines := sink.lines(t)
			var lost, all uint64 = 0, 2 // the alert opens and closes
			for _, l := range ofType(lines, "loss") {
				lost += l.LostAlerts
			}
			alerts := uint64(len(ofType(lines, "alert")))
			if stop := last(t, lines); stop.LostAlerts != lost || lost+alerts != all || freed != (alerts == 1) {
				t.Errorf("freed %v: %d alerts came, %d are in loss, %d in stop", freed, alerts, lost, stop.LostAlerts)
			}
			checkStream(t, lines)
			const first = "the reader of the output, or its disk, does not take records: alerts are lost from now on"
			if len(notices) < 2 || notices[0] != first || notices[1] != "alerts lost since then: 1" {
				t.Errorf("freed %v: the notices are %q", freed, notices)
			}
		})
	}
}

// discard is a sink that writes nothing, and returns the buffer that it gets.
type discard struct {
	output.Sink
	full bool
}

func (d *discard) Put(lines []byte) ([]byte, error) { return lines[:0], nil }
func (d *discard) Full() bool                       { return d.full }
func (d *discard) Err() error                       { return nil }
func (d *discard) Room() int                        { return 1 << 30 }
func (d *discard) BatchSize() int                   { return 64 << 10 }

// The hot path allocates nothing, whether records are written or lost, to one output or to two
// that share lines.
func TestHandle_NoAllocations(t *testing.T) {
	for _, full := range []bool{false, true} {
		for _, count := range []int{1, 2} {
			outs := make([]Output, count)
			for i, enc := 0, record.NewNative(nil); i < count; i++ {
				outs[i] = Output{Sink: &discard{full: full}, Encoder: enc}
			}
			l := newLoop(Config{Source: &fakeSource{crowded: true}, Outputs: outs})
			if err := l.outs.start(time.Now()); err != nil || l.outs.writers[0].stream.Stalled() != full {
				t.Fatalf("the stream is stalled: %v, want %v; %v", !full, full, err)
			}
			events := [][]byte{sample(1), end(2, time.Second), event(112, 1, 3, tcp.SynSent, tcp.Established)}
			handle := func() {
				for _, e := range events {
					if err := l.handle(e); err != nil {
						t.Fatal(err)
					}
				}
			}
			handle() // the buffer grows to its size
			if n := testing.AllocsPerRun(1000, handle); n != 0 {
				t.Errorf("full %v, %d outputs: %v allocations for %d events, want none", full, count, n, len(events))
			}
		}
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
		if !l.Time.Before(freed) {
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
