package trace

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/internal/detect"
	"github.com/tcpshift/tcpshift/internal/record"
)

// On a quiet host the loop sleeps for seconds. Stats and the end come in time nevertheless.
func TestSleep_QuietHost(t *testing.T) {
	source := &fakeSource{turns: [][][]byte{samples(2)}}
	got := run(t, func(func()) (Config, *fakeSource, *fakeSink) {
		return Config{StatsInterval: 10 * time.Second, Duration: time.Minute}, source, &fakeSink{}
	})
	if source.slept > 30 || source.reads > 40 || source.asked > 40 {
		t.Errorf("in a minute the loop slept %d times, read the ring %d times and the counters %d times", source.slept, source.reads, source.asked)
	}
	began := got.lines[0].Time
	stats := ofType(got.lines, "stats")
	for i, l := range stats[:len(stats)-1] { // the last one is the final one
		if late := l.Time.Sub(began) - time.Duration(i+1)*10*time.Second; late < 0 || late > maxWait {
			t.Errorf("stats %d come %v late", i+1, late)
		}
	}
	if took := last(t, got.lines).Time.Sub(began); len(stats) < 6 || took < time.Minute || took > time.Minute+maxWait {
		t.Errorf("%d stats in %v, want 6 in a minute", len(stats), took)
	}
}

// openAlert is a monitor with an open alert.
type openAlert struct {
	fakeMonitor
	called int
}

func (m *openAlert) HasOpenAlerts() bool { return true }

func (m *openAlert) Alerts() []detect.Alert {
	m.called++
	return nil
}

// While an alert is open, the monitor is called several times a second.
func TestSleep_OpenAlert(t *testing.T) {
	m := &openAlert{}
	run(t, func(func()) (Config, *fakeSource, *fakeSink) {
		return Config{Monitor: m, Duration: 10 * time.Second}, &fakeSource{}, &fakeSink{}
	})
	if m.called < 30 || m.called > 60 {
		t.Errorf("in 10 s the monitor was called %d times, want about 40", m.called)
	}
}

// sleeper is a source whose Sleep ends only by Wake.
type sleeper struct {
	fakeSource
	woken chan struct{}
}

func (s *sleeper) Sleep(time.Duration) (bool, error) {
	<-s.woken
	return true, nil
}

func (s *sleeper) Wake() { close(s.woken) }

// The end of the context ends a sleep.
func TestSleep_EndsWithContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	source, sink := &sleeper{woken: make(chan struct{})}, &fakeSink{}
	time.AfterFunc(300*time.Millisecond, cancel)
	if err := Run(ctx, Config{Source: source, Outputs: []Output{{Sink: sink, Encoder: record.NewNative(nil)}}}); err != nil {
		t.Errorf("got the error %v, want none", err)
	}
	if types := typesOf(sink.lines(t)); !slices.Equal(types, []string{"start", "stop"}) {
		t.Errorf("got %v, want start and stop", types)
	}
}
