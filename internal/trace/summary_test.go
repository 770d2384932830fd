package trace

import (
	"slices"
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/internal/summary"
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
