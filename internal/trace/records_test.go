package trace

import (
	"slices"
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/internal/cgroup"
	"github.com/tcpshift/tcpshift/internal/probe"
	"github.com/tcpshift/tcpshift/internal/workload"
)

// play runs a loop with the samples in one turn, followed by a signal.
func play(t *testing.T, cfg Config, samples ...[]byte) outcome {
	t.Helper()
	return run(t, func(stop func()) (Config, *fakeSource, *fakeSink) {
		return cfg, &fakeSource{turns: [][][]byte{samples}, whenIdle: stop}, &fakeSink{}
	})
}

// A connection record comes right after its socket's last transition, with its time.
func TestConnection_FollowsLastTransition(t *testing.T) {
	got := play(t, Config{}, sample(1), end(2, 3*time.Second), sample(3), end(4, 0))
	want := []string{"start", "transition", "transition", "connection", "transition", "transition", "connection", "stop"}
	if types := typesOf(got.lines); got.err != nil || !slices.Equal(types, want) {
		t.Fatalf("got %v and the error %v, want %v", types, got.err, want)
	}
	for i, l := range got.lines {
		if l.Type == "connection" && (l.Conn != got.lines[i-1].Conn || !l.Time.Equal(got.lines[i-1].Time)) {
			t.Errorf("the connection is %+v, want it as its transition: %+v", l, got.lines[i-1])
		}
	}
	whole, partial := got.lines[3], got.lines[6]
	opened, err := time.Parse(time.RFC3339Nano, whole.Opened)
	if err != nil || whole.Time.Sub(opened) != 3*time.Second || whole.Duration != uint64(3*time.Second) || whole.Partial {
		t.Errorf("the connection is %+v, want it opened 3 s before: %v", whole, err)
	}
	if partial.Opened != "" || partial.Duration != 0 || !partial.Partial {
		t.Errorf("the connection is %+v, want it partial", partial)
	}
	if end := last(t, got.lines); end.Read != 4 || end.Written != 4 || end.Connections != 2 {
		t.Errorf("stop is %+v, want 4 transitions and beside them 2 connections", end)
	}
}

// Connection and transition records can be selected independently.
func TestConnection_SelectedAlone(t *testing.T) {
	for _, tt := range []struct {
		only []string
		want []string
	}{
		{[]string{"connection"}, []string{"start", "connection", "connection", "stop"}},
		{[]string{"transition"}, []string{"start", "transition", "transition", "transition", "stop"}},
		{[]string{"loss"}, []string{"start", "stop"}},
	} {
		got := play(t, Config{Outputs: selecting(tt.only)}, end(1, 0), sample(2), end(3, 0))
		if types := typesOf(got.lines); got.err != nil || !slices.Equal(types, tt.want) {
			t.Errorf("--only %q: got %v and the error %v, want %v", tt.only, types, got.err, tt.want)
		}
		stop := last(t, got.lines)
		connections, written := uint64(len(ofType(got.lines, "connection"))), uint64(len(ofType(got.lines, "transition")))
		if stop.Read != 3 || stop.Connections != connections || stop.Written != written || stop.Dropped != 3-written {
			t.Errorf("--only %q: stop is %+v, want 3 read, %d written and %d connections", tt.only, stop, written, connections)
		}
	}
}

// The last transition of --count is followed by its connection record. Later ends have
// no connection record.
func TestConnection_AtCountLimit(t *testing.T) {
	got := play(t, Config{Count: 2}, end(1, 0), end(2, 0), end(3, 0))
	want := []string{"start", "transition", "connection", "transition", "connection", "stop"}
	if types := typesOf(got.lines); got.err != nil || !slices.Equal(types, want) {
		t.Errorf("got %v and the error %v, want %v", types, got.err, want)
	}
	if stop := last(t, got.lines); stop.Reason != "count" || stop.Written != 2 || stop.Connections != 2 || stop.Dropped != 1 {
		t.Errorf("stop is %+v, want 2 transitions, their 2 connections, and 1 dropped", stop)
	}
}

// An event has the cgroup whose path came in an earlier sample, until a sample changes
// it.
func TestCgroup_PathFromEarlierSample(t *testing.T) {
	const container = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	got := play(t, Config{},
		inCgroup(7, sample(1)), // its path is not known yet
		cgroupPath(7, 0, "docker-"+container+".scope", "system.slice"), cgroupPath(8, 0), cgroupPath(9, 1, "cut"),
		inCgroup(7, sample(2)), inCgroup(8, sample(3)), inCgroup(9, sample(4)), sample(5),
		inCgroup(7, end(6, 0)),
		cgroupPath(7, 1, "too", "long"), // a truncated path replaces none
		inCgroup(7, sample(7)),
		cgroupPath(7, 0, "renamed"),
		inCgroup(7, sample(8)),
	)
	docker := "/system.slice/docker-" + container + ".scope"
	want := []struct{ recordType, cgroup, container string }{
		{"transition", "", ""},
		{"transition", docker, container}, {"transition", "/", ""}, {"transition", "", ""}, {"transition", "", ""},
		{"transition", docker, container}, {"connection", docker, container},
		{"transition", docker, container},
		{"transition", "/renamed", ""},
	}
	if len(got.lines) != len(want)+2 || got.err != nil {
		t.Fatalf("%d lines and the error %v, want %d", len(got.lines), got.err, len(want)+2)
	}
	for i, w := range want {
		if l := got.lines[i+1]; l.Type != w.recordType || l.Cgroup != w.cgroup || l.Container != w.container {
			t.Errorf("line %d is %s in %q, container %q; want %+v", i+2, l.Type, l.Cgroup, l.Container, w)
		}
	}
	if stop := last(t, got.lines); stop.Read != 8 || stop.Written != 8 || stop.CgroupUnknown != 2 {
		t.Errorf("stop is %+v, want 8 read, as paths of cgroups are not events, and 2 without a path", stop)
	}
}

// Ends of TIME_WAITs are counted apart from transitions, and not by --count.
func TestAccount_TimeWaitEndInLoop(t *testing.T) {
	for _, tt := range []struct {
		name string
		cfg  Config
		want []string
		ends uint64
	}{
		{"among transitions", Config{}, []string{"start", "transition", "transition", "transition", "transition", "stop"}, 2},
		{"not asked for", Config{Outputs: selecting([]string{"connection"})}, []string{"start", "stop"}, 0},
		{"before the last transition asked for", Config{Count: 2}, []string{"start", "transition", "transition", "transition", "stop"}, 1},
	} {
		got := play(t, tt.cfg, sample(1), timeWaitEnd(2), sample(3), timeWaitEnd(4))
		if types := typesOf(got.lines); got.err != nil || !slices.Equal(types, tt.want) {
			t.Errorf("%s: got %v and the error %v, want %v", tt.name, types, got.err, tt.want)
		}
		stop := last(t, got.lines)
		if stop.Read != 2 || stop.TimeWaitEnds != tt.ends || stop.Read != stop.Written+stop.Dropped {
			t.Errorf("%s: stop is %+v, want 2 read and %d ends of TIME_WAITs beside them", tt.name, stop, tt.ends)
		}
	}
}

// Deferred events are in the counts of stats and stop, and are not lost.
func TestAccount_Deferred(t *testing.T) {
	got := run(t, func(stop func()) (Config, *fakeSource, *fakeSink) {
		source := &fakeSource{turns: [][][]byte{samples(2)}, whenIdle: stop}
		source.others[0] = probe.ProgramCounters{Entered: 5, Deferred: 5, TimeWaitUnknown: 1}
		source.others[1] = probe.ProgramCounters{Resumed: 2, Filtered: 2, TimeWaitUnknown: 2, TimeWaitEndsLost: 4}
		return Config{StatsInterval: time.Hour}, source, &fakeSink{}
	})
	want := []string{"start", "transition", "transition", "stats", "stop"}
	if types := typesOf(got.lines); got.err != nil || !slices.Equal(types, want) {
		t.Fatalf("got %v and the error %v, want %v: a deferred event is not lost", types, got.err, want)
	}
	for _, l := range got.lines[3:] {
		if l.Deferred != 3 || l.Filtered != 2 || l.Read != 2 || l.Seen != l.Deferred+l.Filtered+l.Read || l.TimeWaitUnknown != 3 ||
			l.TimeWaitEndsLostKernel != 4 {
			t.Errorf("%s is %+v, want 3 deferred, 2 filtered and 2 read of 7, 3 unknown, 4 ends lost", l.Type, l)
		}
	}
}

// fakeNames knows the names of each cgroup that it is asked for.
type fakeNames struct{ answers []workload.Answer }

func (f *fakeNames) Request(id uint64, info *cgroup.Info) {
	f.answers = append(f.answers, workload.Answer{
		CgroupID: id, Key: workload.Key{Container: info.Container, PodUID: info.PodUID}, Names: cgroup.Names{Container: "web"},
	})
}

func (f *fakeNames) Answers() []workload.Answer {
	answers := f.answers
	f.answers = nil
	return answers
}

// A connection has the names once they are found, from the next turn on.
func TestCgroup_NamesFromNextTurn(t *testing.T) {
	const container = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	got := run(t, func(stop func()) (Config, *fakeSource, *fakeSink) {
		source := &fakeSource{whenIdle: stop, turns: [][][]byte{
			{cgroupPath(7, 0, container, "docker"), inCgroup(7, end(1, 0))},
			{cgroupPath(7, 0, container, "docker"), inCgroup(7, end(2, 0))},
		}}
		return Config{Outputs: selecting([]string{"connection"}), Names: &fakeNames{}}, source, &fakeSink{}
	})
	if len(got.lines) != 4 || got.lines[1].ContainerName != "" || got.lines[2].ContainerName != "web" {
		t.Errorf("got %+v", got.lines)
	}
}
