package trace

import (
	"encoding/binary"
	"slices"
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/internal/output"
	"github.com/tcpshift/tcpshift/internal/selection"
	"github.com/tcpshift/tcpshift/internal/summary"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// fakeUpdates counts what the loop does with its walks.
type fakeUpdates struct {
	late    uint64
	stopped func()
}

func (u *fakeUpdates) Stop()        { u.stopped() }
func (u *fakeUpdates) Late() uint64 { return u.late }

const updateSize = 160

// update is a connection that lives, has sent bytes, and is as old as it is said to be; 0: not known.
func update(cookie uint64, age time.Duration, sent uint64) []byte {
	b := event(updateSize, 6, cookie, 0, tcp.Established)
	if age > 0 {
		binary.NativeEndian.PutUint64(b[112:], binary.NativeEndian.Uint64(b[0:])-uint64(age))
	}
	binary.NativeEndian.PutUint64(b[128:], sent)
	return b
}

// connectionPhases are the records of connections, with their phases.
func connectionPhases(lines []line) (all []string) {
	for _, l := range ofType(lines, "connection") {
		all = append(all, l.Phase+" "+l.Conn)
	}
	return all
}

// Updates come in the order of the ring, also before the start of the next connection of their socket; the walks
// stop before the source detaches, and what they have emitted until then is written. Transitions, summaries and
// the limit do not count them.
func TestUpdates_Order(t *testing.T) {
	got := run(t, func(stop func()) (Config, *fakeSource, *fakeSink) {
		source := &fakeSource{turns: [][][]byte{{update(1, time.Minute, 5), update(2, 0, 5)}, {end(1, time.Minute)}, {update(2, 0, 6)}}, whenIdle: stop}
		updates := &fakeUpdates{late: 3, stopped: func() {
			if source.detached {
				t.Error("the walks stop after the source is detached")
			}
			source.left = [][]byte{update(2, 0, 7), end(2, 0)}
		}}
		return Config{Outputs: selecting([]string{"connection", "summary"}), Summary: summary.New(time.Hour, time.Now()), Updates: updates}, source, &fakeSink{}
	})
	want := []string{"update 1", "update 2", "end 1", "update 2", "update 2", "end 2"}
	stop := last(t, got.lines)
	if all := connectionPhases(got.lines); !slices.Equal(all, want) || stop.Updates != 4 || stop.LateUpdates != 3 || stop.Connections != 2 {
		t.Errorf("got %q, want %q; %+v", all, want, stop.Counts)
	}
	if sums := ofType(got.lines, "summary"); len(sums) != 1 {
		t.Errorf("%d rows", len(sums))
	}
}

// What an output does not select, and what its reader does not take, is counted apart from ends.
func TestUpdates_Account(t *testing.T) {
	turns := func() [][][]byte {
		return [][][]byte{{update(1, time.Minute, 5), update(2, 0, 50), end(1, time.Minute)}}
	}
	for name, tt := range map[string]struct {
		output                             Output
		full                               bool
		updates, dropped, lost, endRecords uint64
		lossRecords                        int
	}{
		"all":             {Output{}, false, 2, 0, 0, 1, 0},
		"no connections":  {Output{Only: []string{"transition"}}, false, 0, 0, 0, 0, 0},
		"min-bytes":       {Output{Selection: &selection.Selection{MinBytes: 50}}, false, 1, 1, 0, 0, 0},
		"min-duration":    {Output{Selection: &selection.Selection{MinDuration: time.Second}}, false, 1, 1, 0, 1, 0},
		"closed-by":       {Output{Selection: &selection.Selection{ClosedBy: []tcp.ClosedBy{tcp.ClosedByTimeout}}}, false, 0, 2, 0, 0, 0},
		"a stalled queue": {Output{}, true, 0, 0, 2, 0, 1},
	} {
		got := run(t, func(stop func()) (Config, *fakeSource, *fakeSink) {
			source := &fakeSource{turns: turns(), whenIdle: stop}
			return Config{Outputs: []Output{tt.output}, Updates: &fakeUpdates{stopped: func() {}}}, source, &fakeSink{full: tt.full}
		})
		stop := last(t, got.lines)
		if stop.Updates != tt.updates || stop.DroppedUpdates != tt.dropped || stop.LostUpdates != tt.lost || stop.Connections != tt.endRecords {
			t.Errorf("%s: %d updates, %d dropped, %d lost, %d ends: want %+v", name, stop.Updates, stop.DroppedUpdates, stop.LostUpdates, stop.Connections, tt)
		}
		losses := ofType(got.lines, "loss")
		if len(losses) != tt.lossRecords || len(losses) > 0 && losses[0].LostUpdates != tt.lost {
			t.Errorf("%s: %+v", name, losses)
		}
	}
}

// The pending end of a socket comes before an update of its next connection.
func TestUpdates_AfterPendingEnd(t *testing.T) {
	pending := end(1, time.Minute)
	binary.NativeEndian.PutUint32(pending[108:], 1<<15) // EVENT_RESET_AWAITED
	got := run(t, func(stop func()) (Config, *fakeSource, *fakeSink) {
		source := &fakeSource{turns: [][][]byte{{pending, update(1, time.Second, 1)}}, whenIdle: stop}
		return Config{Outputs: selecting([]string{"connection"}), Updates: &fakeUpdates{stopped: func() {}}}, source, &fakeSink{}
	})
	if all := connectionPhases(got.lines); !slices.Equal(all, []string{"end 1", "update 1"}) {
		t.Errorf("got %q", all)
	}
}

// The connection of an output has no updates, as it has no other records.
func TestUpdates_OwnSockets(t *testing.T) {
	got := run(t, func(stop func()) (Config, *fakeSource, *fakeSink) {
		var own output.OwnSockets
		own.Add(1)
		source := &fakeSource{turns: [][][]byte{{update(1, time.Minute, 5), update(2, time.Minute, 5)}}, whenIdle: stop}
		return Config{Outputs: selecting([]string{"connection"}), OwnSockets: &own, Updates: &fakeUpdates{stopped: func() {}}}, source, &fakeSink{}
	})
	if all := connectionPhases(got.lines); !slices.Equal(all, []string{"update 2"}) {
		t.Errorf("got %q", all)
	}
}

// Without updates the end of a connection has no phase.
func TestUpdates_NoPhaseWithout(t *testing.T) {
	got := run(t, func(stop func()) (Config, *fakeSource, *fakeSink) {
		source := &fakeSource{turns: [][][]byte{{end(1, time.Minute)}}, whenIdle: stop}
		return Config{Outputs: selecting([]string{"connection"})}, source, &fakeSink{}
	})
	if all := connectionPhases(got.lines); !slices.Equal(all, []string{" 1"}) {
		t.Errorf("got %q", all)
	}
}
