package trace

import (
	"context"
	"encoding/binary"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/internal/detect"
	"github.com/tcpshift/tcpshift/internal/record"
	"github.com/tcpshift/tcpshift/internal/selection"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// withError sets the error of an event's socket.
func withError(e unix.Errno, event []byte) []byte {
	binary.NativeEndian.PutUint32(event[92:], uint32(e))
	return event
}

// selected runs the same events through an output without a selection and one with it.
func selected(t *testing.T, s *selection.Selection, only []string, events ...[]byte) (all, some []line) {
	t.Helper()
	whole, part := &fakeSink{}, &fakeSink{}
	_, err := runAll(t, Config{Outputs: []Output{
		named("whole", whole, record.NewNative(nil), only...),
		{Name: "part", Sink: part, Encoder: record.NewNative(nil), Only: only, Selection: s},
	}}, &fakeSource{turns: [][][]byte{events}})
	if err != nil {
		t.Fatal(err)
	}
	return whole.lines(t), part.lines(t)
}

// What a selection leaves out is dropped, and the account adds up. Other outputs do not notice.
func TestSelection_CountsAsDropped(t *testing.T) {
	refused := []tcp.Errno{tcp.Errno(unix.ECONNREFUSED)}
	for _, tt := range []struct {
		name    string
		s       selection.Selection
		want    []string
		written uint64
		ends    uint64 // connections that are left out
	}{
		{"an error", selection.Selection{Errors: refused}, []string{"start", "transition 3", "transition 4", "connection 4", "stop"}, 2, 2},
		{"a duration", selection.Selection{MinDuration: time.Second},
			[]string{"start", "transition 1", "transition 2", "connection 2", "transition 3", "transition 4", "transition 5", "stop"}, 5, 2},
		{"both", selection.Selection{MinDuration: time.Second, Errors: refused}, []string{"start", "transition 3", "transition 4", "stop"}, 2, 3},
	} {
		all, some := selected(t, &tt.s, []string{"transition", "connection"},
			sample(1), end(2, 2*time.Second), withError(unix.ECONNREFUSED, sample(3)), withError(unix.ECONNREFUSED, end(4, time.Millisecond)), end(5, 0))
		if got := inWords(some); !slices.Equal(got, tt.want) {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
		checkStream(t, some)
		if stop := last(t, some); stop.Read != 5 || stop.Written != tt.written || stop.Dropped != 5-tt.written || stop.LostQueueFull != 0 || stop.DroppedConnections != tt.ends {
			t.Errorf("%s: stop is %+v, want 5 read and %d written", tt.name, stop, tt.written)
		}
		if stop := last(t, all); len(all) != 10 || stop.Written != 5 || stop.Dropped != 0 {
			t.Errorf("%s: the other output has %d records and ends with %+v", tt.name, len(all), stop)
		}
	}
}

// What is not selected is dropped, not lost, while the reader stalls.
func TestSelection_NotLostInStall(t *testing.T) {
	sink := &fakeSink{full: true}
	_, err := runAll(t, Config{Outputs: []Output{
		{Name: "slow", Sink: sink, Encoder: record.NewNative(nil), Selection: &selection.Selection{Errors: []tcp.Errno{tcp.Errno(unix.ECONNRESET)}}},
		named("other", &fakeSink{}, record.NewNative(nil)),
	}}, &fakeSource{turns: [][][]byte{{sample(1)}, {sample(2), withError(unix.ECONNRESET, sample(3)), end(4, 0)}}})
	if err != nil {
		t.Fatal(err)
	}
	if stop := last(t, sink.lines(t)); stop.Read != 4 || stop.Dropped != 3 || stop.LostQueueFull+stop.Written != 1 || stop.LostConnections != 0 {
		t.Errorf("stop is %+v, want 3 dropped", stop)
	}
}

// phases raises one alert, whose phases name these services.
type phases struct {
	fakeMonitor
	cgroups []*tcp.Cgroup
}

func (m *phases) Alerts() (alerts []detect.Alert) {
	for i, c := range m.cgroups {
		phase := detect.Update
		if i == 0 {
			phase = detect.Open
		}
		a := detect.Alert{ID: "1", Kind: "time_wait_storm", Phase: phase}
		a.Culprit = detect.Culprit{Known: true, Cgroup: c}
		alerts = append(alerts, a)
	}
	m.cgroups = nil
	return alerts
}

func (m *phases) Finish() []detect.Alert {
	return append(m.Alerts(), detect.Alert{ID: "1", Kind: "time_wait_storm", Phase: detect.Close})
}

// An alert of a container is written from the phase that first names it to its close, and detection
// observes what the selection leaves out.
func TestSelection_AlertKeepsItsPhases(t *testing.T) {
	web, db := &tcp.Cgroup{Path: "/w", ContainerName: "web"}, &tcp.Cgroup{Path: "/d", ContainerName: "db"}
	for _, tt := range []struct {
		cgroups []*tcp.Cgroup
		alerts  int
	}{
		{[]*tcp.Cgroup{web, db, web}, 4},
		{[]*tcp.Cgroup{db, web, db, nil}, 4},
		{[]*tcp.Cgroup{db, nil}, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			sink, m := &fakeSink{}, &phases{cgroups: tt.cgroups}
			err := Run(context.Background(), Config{
				Source: &fakeSource{turns: [][][]byte{samples(3)}}, Monitor: m, Duration: time.Second,
				Outputs: []Output{{Sink: sink, Encoder: record.NewNative(nil), Selection: &selection.Selection{Containers: []string{"web"}}}},
			})
			if err != nil {
				t.Fatal(err)
			}
			if got := ofType(sink.lines(t), "alert"); len(got) != tt.alerts || m.seen != 3 {
				t.Errorf("%d alerts of %d phases, want %d; %d transitions observed", len(got), len(tt.cgroups)+1, tt.alerts, m.seen)
			}
		})
	}
}

// An output without alerts gets none where another output has them.
func TestOutputs_AlertsOnlyWhereSelected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ends, all := &fakeSink{}, &fakeSink{}
		err := Run(context.Background(), Config{
			Source: &fakeSource{turns: [][][]byte{samples(3)}}, Monitor: &fakeMonitor{}, Duration: time.Second,
			Outputs: []Output{named("ends", ends, record.NewNative(nil), "connection"), named("all", all, record.NewNative(nil))},
		})
		if err != nil {
			t.Fatal(err)
		}
		if got, want := len(ofType(ends.lines(t), "alert")), len(ofType(all.lines(t), "alert")); got != 0 || want != 2 {
			t.Errorf("%d alerts at the output without, %d at the other; want 0 and 2", got, want)
		}
	})
}
