package trace

import (
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/internal/metrics"
	"github.com/tcpshift/tcpshift/internal/selection"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// stillQueue is the queue of an output in metrics.
type stillQueue struct{}

func (stillQueue) Waiting() int            { return 0 }
func (stillQueue) Written() uint64         { return 0 }
func (stillQueue) Spooled() (uint64, bool) { return 0, false }
func (stillQueue) Rejected() uint64        { return 0 }

// Metrics count what the kernel emits, whatever the output selects of it, and take the counts of the output.
func TestMetrics_WhateverIsWritten(t *testing.T) {
	for name, output := range map[string]Output{
		"everything":  {},
		"alerts only": {Only: []string{"alert"}},
		"a selection": {Selection: &selection.Selection{ClosedBy: []tcp.ClosedBy{tcp.ClosedByAbort}}},
	} {
		t.Run(name, func(t *testing.T) {
			m := metrics.New(metrics.Config{AllTransitions: true, Outputs: []metrics.Output{{Name: "stdout", Queue: stillQueue{}}}})
			defer m.Close()
			output.MetricsName = "stdout"
			var gathered map[string]float64
			run(t, func(stop func()) (Config, *fakeSource, *fakeSink) {
				turns := 0
				source := &fakeSource{turns: [][][]byte{{sample(3), end(1, time.Second), end(2, time.Second)}}, whenIdle: func() {
					if turns++; turns == 50 { // the counts are published once a second
						gathered = gather(t, m)
						stop()
					}
				}}
				return Config{Outputs: []Output{output}, Metrics: m}, source, &fakeSink{}
			})
			for family, want := range map[string]float64{
				"tcpshift_connections_total": 2, "tcpshift_transitions_total": 3, "tcpshift_transitions_read_total": 3,
				"tcpshift_output_up": 1, "tcpshift_connection_duration_seconds": 0,
			} {
				if got := gathered[family]; got != want {
					t.Errorf("%s is %v, want %v", family, got, want)
				}
			}
		})
	}
}

// At the end metrics have the counts of the stop record, for the last request to an OpenTelemetry receiver.
func TestMetrics_CountsOfTheEnd(t *testing.T) {
	m := metrics.New(metrics.Config{Outputs: []metrics.Output{{Name: "stdout", Queue: stillQueue{}}}})
	defer m.Close()
	got := run(t, func(stop func()) (Config, *fakeSource, *fakeSink) {
		source := &fakeSource{turns: [][][]byte{{sample(1)}, {sample(2)}}, left: [][]byte{sample(3)}, whenIdle: stop}
		return Config{Outputs: []Output{{MetricsName: "stdout"}}, Metrics: m}, source, &fakeSink{}
	})
	gathered, stop := gather(t, m), last(t, got.lines)
	if stop.Read != 3 || gathered["tcpshift_transitions_read_total"] != 3 || gathered["tcpshift_output_records_written_total"] != 3 {
		t.Errorf("stop has read %d, metrics have %v read and %v written, want 3", stop.Read, gathered["tcpshift_transitions_read_total"], gathered["tcpshift_output_records_written_total"])
	}
}

// gather returns the sums of all families without histograms.
func gather(t *testing.T, m *metrics.Metrics) map[string]float64 {
	t.Helper()
	all, err := m.Gatherer().Gather()
	if err != nil {
		t.Fatal(err)
	}
	sums := make(map[string]float64)
	for _, f := range all {
		for _, each := range f.GetMetric() {
			sums[f.GetName()] += each.GetCounter().GetValue() + each.GetGauge().GetValue()
		}
	}
	return sums
}
