package trace

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tcpshift/tcpshift/internal/record"
	"github.com/tcpshift/tcpshift/internal/summary"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// The rows of a summary come at the end of their window, and the last ones before stop. They are written
// besides the other records, or without them.
func TestSummary_Rows(t *testing.T) {
	for _, tt := range []struct {
		only []string
		want []string
	}{
		{nil, []string{"start", "transition 1", "connection 1", "transition 2", "connection 2", "summary", "stop"}},
		{[]string{"summary"}, []string{"start", "summary", "stop"}},
		{[]string{"connection"}, []string{"start", "connection 1", "connection 2", "stop"}},
	} {
		got := run(t, func(stop func()) (Config, *fakeSource, *fakeSink) {
			source := &fakeSource{turns: [][][]byte{{end(1, time.Second), end(2, time.Second)}}, whenIdle: stop}
			return Config{Outputs: selecting(tt.only), Summary: summary.New(time.Hour, time.Now())}, source, &fakeSink{}
		})
		if s := inWords(got.lines); !slices.Equal(s, tt.want) {
			t.Errorf("--only %q gives %q, want %q", tt.only, s, tt.want)
		}
	}
}

// While the reader stalls, rows are lost, and counted in loss and stop.
func TestSummary_Stalled(t *testing.T) {
	got := run(t, func(stop func()) (Config, *fakeSource, *fakeSink) {
		source := &fakeSource{turns: [][][]byte{{end(1, time.Second)}}, whenIdle: stop}
		return Config{Outputs: selecting([]string{"summary", "loss"}), Summary: summary.New(time.Hour, time.Now())}, source, &fakeSink{full: true}
	})
	losses, stop := ofType(got.lines, "loss"), last(t, got.lines)
	if len(losses) != 1 || losses[0].LostSummaries != 1 || stop.LostSummaries != 1 || len(ofType(got.lines, "summary")) != 0 {
		t.Errorf("the stream is %+v", got.lines)
	}
}

// A replay waits for a reader that stalls, also before the rows of a summary.
func TestReplay_SummaryWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		sink := &fakeSink{}
		only := []string{"summary", "connection"}
		r := NewReplay(t.Context(), Config{Outputs: []Output{{Sink: sink, Encoder: record.NewNative(nil), Only: only}}, Summary: summary.New(time.Hour, began)})
		connection := func() error {
			at := tcp.Transition{Time: began, Old: tcp.LastAck, New: tcp.Close, Role: tcp.RoleServer}
			return r.Connection(&at, &tcp.Connection{Opened: began})
		}
		end := began.Add(2 * time.Hour)
		err := errors.Join(r.Begin(began), connection())
		sink.fullUntil = began.Add(time.Minute)
		err = errors.Join(err, r.EndTurn(began), r.EndTurn(end), r.End(end, nil))
		lines := sink.lines(t)
		if stop := last(t, lines); err != nil || stop.LostSummaries != 0 || len(ofType(lines, "summary")) != 1 {
			t.Errorf("%v; the stream is %s", err, sink.written.String())
		}
	})
}
