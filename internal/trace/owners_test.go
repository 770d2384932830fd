package trace

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/internal/detect"
	"github.com/tcpshift/tcpshift/internal/output"
	"github.com/tcpshift/tcpshift/internal/process"
	"github.com/tcpshift/tcpshift/internal/record"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// fakeProcesses answers at once, from a table by pid.
type fakeProcesses struct {
	table    map[uint32]tcp.Process
	asked    []uint32
	answers  []process.Answer
	late     bool // answers come with Finish only
	isFull   bool
	finished int
}

func (f *fakeProcesses) Request(q process.Request) bool {
	f.asked = append(f.asked, q.PID)
	if f.isFull {
		return false
	}
	p, found := f.table[q.PID]
	f.answers = append(f.answers, process.Answer{Request: q, Found: found, Process: p})
	return true
}

func (f *fakeProcesses) Answers() []process.Answer {
	if f.late {
		return nil
	}
	answers := f.answers
	f.answers = nil
	return answers
}

func (f *fakeProcesses) Finish(time.Duration) []process.Answer {
	f.finished++
	f.late = false
	return f.Answers()
}

func (f *fakeProcesses) NotifyAnswers(func()) {}

// ownedBy sets the owner of an event, as in bpf/event.h.
func ownedBy(pid uint32, comm string, event []byte) []byte {
	copy(event[64:80], comm)
	binary.NativeEndian.PutUint32(event[88:], pid)
	event[106] = byte(tcp.PIDTask)
	return event
}

// described is the stream in words: each record's type, with pid, comm and exe of a process.
func described(t *testing.T, sink *fakeSink) (all []string) {
	t.Helper()
	for text := range strings.Lines(sink.written.String()) {
		var l struct {
			Type, Comm, Exe string
			Container       string `json:"container_name"`
			PID             uint32
		}
		if err := json.Unmarshal([]byte(text), &l); err != nil {
			t.Fatal(err)
		}
		if l.Type == record.ProcessType {
			l.Type = strings.TrimSpace(fmt.Sprint("process ", l.PID, " ", l.Comm, " ", l.Exe, " ", l.Container))
		}
		all = append(all, l.Type)
	}
	return all
}

func listener() tcp.Process {
	return tcp.Process{PID: 7, StartedAt: time.Second, Exe: "/bin/a", UIDKnown: true}
}

// withOwners runs a loop with the types of records, and returns its stream.
func withOwners(t *testing.T, f *fakeProcesses, only []string, source *fakeSource) (*fakeSink, []string) {
	t.Helper()
	sink := &fakeSink{}
	_, err := runAll(t, Config{Outputs: []Output{named("", sink, record.NewNative(nil), only...)}, Processes: f}, source)
	if err != nil {
		t.Error(err)
	}
	checkStream(t, sink.lines(t))
	return sink, described(t, sink)
}

// An owner is described once, in the turn after the first record that names it, by the types that the output has.
func TestOwners_DescribedOnce(t *testing.T) {
	events := func() [][][]byte {
		return [][][]byte{
			{ownedBy(7, "a", sample(1)), ownedBy(7, "a", sample(2)), ownedBy(8, "b", sample(3)), sample(4)},
			{ownedBy(7, "a", end(5, 0)), ownedBy(9, "gone", sample(6))},
			{ownedBy(9, "gone", sample(7))},
		}
	}
	for _, tt := range []struct {
		only, want []string
		asked      []uint32
	}{
		{
			[]string{"transition", "process"}, []string{
				"start", "transition", "transition", "transition", "transition", "process 7 a /bin/a", "process 8 b /bin/b",
				"transition", "transition", "transition", "stop",
			}, []uint32{7, 8, 9},
		},
		{[]string{"connection", "process"}, []string{"start", "connection", "process 7 a /bin/a", "stop"}, []uint32{7}},
		{[]string{"process"}, []string{"start", "process 7 a /bin/a", "process 8 b /bin/b", "stop"}, []uint32{7, 8, 9}},
		{[]string{"transition"}, []string{"start", "transition", "transition", "transition", "transition", "transition", "transition", "transition", "stop"}, nil},
	} {
		f := &fakeProcesses{table: map[uint32]tcp.Process{7: listener(), 8: {PID: 8, Exe: "/bin/b"}}}
		sink, got := withOwners(t, f, tt.only, &fakeSource{turns: events()})
		if !slices.Equal(got, tt.want) || !slices.Equal(f.asked, tt.asked) {
			t.Errorf("--only %v: got %q, want %q; asked for %v, want %v", tt.only, got, tt.want, f.asked, tt.asked)
		}
		written := len(ofType(sink.lines(t), "transition"))
		if stop := last(t, sink.lines(t)); stop.Read != 7 || stop.Written != uint64(written) || stop.Read != stop.Written+stop.Dropped {
			t.Errorf("--only %v: stop is %+v, want processes in no count", tt.only, stop)
		}
	}
}

// A process of another name, and one that is found to have started at another time, are described again.
func TestOwners_AnotherProcess(t *testing.T) {
	other := tcp.Process{PID: 7, StartedAt: time.Minute, Exe: "/bin/a", UIDKnown: true}
	f := &fakeProcesses{table: map[uint32]tcp.Process{7: listener()}}
	source := &fakeSource{turns: [][][]byte{
		{ownedBy(7, "a", sample(1))}, {ownedBy(7, "execed", sample(2))}, {sample(3)}, {ownedBy(7, "execed", sample(4))}, {sample(5)},
		{ownedBy(7, "execed", sample(6))},
	}}
	source.atRead = func() {
		if len(source.turns) == 4 { // the third turn
			f.table[7] = other
			time.Sleep(ownerRecheck)
		}
	}
	_, got := withOwners(t, f, []string{"transition", "process"}, source)
	want := []string{
		"start", "transition", "process 7 a /bin/a", "transition", "process 7 execed /bin/a", "transition", "transition", "process 7 execed /bin/a",
		"transition", "transition", "stop",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// A process of another user that gets the pid, and takes the name, is described at once. Sockets of root's
// do not make a process another one.
func TestOwners_PIDOfAnotherUser(t *testing.T) {
	const service, attacker = 33, 65534
	f := &fakeProcesses{table: map[uint32]tcp.Process{7: {PID: 7, StartedAt: time.Second, Exe: "/bin/a", UID: service, UIDKnown: true}}}
	o := newOwners(f, func(time.Duration) time.Time { return time.Time{} })
	w := &recordWriter{stream: output.NewStream(&fakeSink{}, nil, func() {}), encoder: record.NewNative(nil)}
	o.add(w)
	comm := tcp.Comm{'a'}
	for range 3 {
		for _, uid := range []uint32{0, service} {
			o.name(w, 7, uid, &comm, nil, 0)
			o.take(f.Answers())
		}
	}
	f.table[7] = tcp.Process{PID: 7, StartedAt: time.Minute, Exe: "/tmp/b", UID: attacker, UIDKnown: true}
	for range 3 {
		o.name(w, 7, attacker, &comm, nil, 0)
		o.take(f.Answers())
	}
	if len(f.asked) > 3 {
		t.Errorf("asked %d times, want 3 at most", len(f.asked))
	}
	lines := strings.SplitAfter(string(w.stream.Lines), "\n")
	if len(lines) != 3 || !strings.Contains(lines[0], `"exe":"/bin/a"`) || !strings.Contains(lines[1], `"exe":"/tmp/b"`) {
		t.Errorf("got %s, want the two processes", lines)
	}
}

// An owner that records still name is described again once in each hour of the run, and one that they do not name is
// not.
func TestOwners_RepeatedHourly(t *testing.T) {
	f := &fakeProcesses{table: map[uint32]tcp.Process{7: listener(), 8: {PID: 8, StartedAt: time.Second, Exe: "/bin/b"}}}
	at := []time.Duration{0, repeatProcess - time.Minute, repeatProcess + time.Minute, repeatProcess + 2*time.Minute, 3*repeatProcess + time.Minute}
	source := &fakeSource{}
	for i := range at {
		events := [][]byte{ownedBy(7, "a", sample(uint64(2*i+1)))}
		if i == 0 {
			events = append(events, ownedBy(8, "b", sample(2)))
		}
		source.turns = append(source.turns, events, [][]byte{sample(uint64(100 + i))}) // the second describes
	}
	var began time.Time // on the clock of the run
	source.atRead = func() {
		if began.IsZero() {
			began = time.Now()
		}
		if turn := len(at) - (len(source.turns)+1)/2; turn < len(at) {
			time.Sleep(at[turn] - time.Since(began))
		}
	}
	_, got := withOwners(t, f, []string{"process"}, source)
	want := []string{"start", "process 7 a /bin/a", "process 8 b /bin/b", "process 7 a /bin/a", "process 7 a /bin/a", "stop"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// The names of a container that are found later come with another record.
func TestOwners_NamesFoundLater(t *testing.T) {
	const container = "docker-0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef.scope"
	f := &fakeProcesses{table: map[uint32]tcp.Process{7: listener()}}
	path := cgroupPath(3, 0, container, "system.slice")
	sink := &fakeSink{}
	event := func(cookie uint64) []byte { return inCgroup(3, ownedBy(7, "a", sample(cookie))) }
	source := &fakeSource{turns: [][][]byte{{path, event(1)}, {event(2)}, {event(3)}}}
	cfg := Config{Outputs: []Output{named("", sink, record.NewNative(nil), "transition", "process")}, Processes: f, Names: &fakeNames{}}
	if _, err := runAll(t, cfg, source); err != nil {
		t.Error(err)
	}
	want := []string{"start", "transition", "process 7 a /bin/a", "transition", "process 7 a /bin/a web", "transition", "stop"}
	if got := described(t, sink); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// What is found after the last turn is written before stop. What finds no room comes when it is named again.
func TestOwners_LateAndWithoutRoom(t *testing.T) {
	f := &fakeProcesses{table: map[uint32]tcp.Process{7: listener()}, late: true}
	_, got := withOwners(t, f, []string{"transition", "process"}, &fakeSource{turns: [][][]byte{{ownedBy(7, "a", sample(1))}}})
	if want := []string{"start", "transition", "process 7 a /bin/a", "stop"}; !slices.Equal(got, want) || f.finished != 1 {
		t.Errorf("got %q, want %q; finished %d times", got, want, f.finished)
	}

	f = &fakeProcesses{table: map[uint32]tcp.Process{7: listener()}}
	sink := &fakeSink{}
	source := &fakeSource{turns: [][][]byte{{ownedBy(7, "a", sample(1))}, {sample(2)}, {ownedBy(7, "a", sample(3))}}}
	source.atRead = func() { sink.noRoom = len(source.turns) > 1 }
	cfg := Config{Outputs: []Output{named("", sink, record.NewNative(nil), "transition", "process")}, Processes: f}
	if _, err := runAll(t, cfg, source); err != nil {
		t.Error(err)
	}
	if got, want := described(t, sink), []string{"start", "transition", "transition", "transition", "process 7 a /bin/a", "stop"}; !slices.Equal(got, want) {
		t.Errorf("without room: got %q, want %q", got, want)
	}
}

// Each output describes an owner that its own records name, and again once it has begun a new file.
func TestOwners_EachOutput(t *testing.T) {
	f := &fakeProcesses{table: map[uint32]tcp.Process{7: listener()}}
	ends, transitions, rotated := &fakeSink{}, &fakeSink{}, &beginningSink{}
	source := &fakeSource{turns: [][][]byte{{ownedBy(7, "a", sample(1))}, {ownedBy(7, "a", sample(2))}, {ownedBy(7, "a", end(3, 0))}}}
	source.atRead = func() {
		if len(source.turns) == 2 {
			rotated.begun++
		}
	}
	_, err := runAll(t, Config{Processes: f, Outputs: []Output{
		named("ends", ends, record.NewNative(nil), "connection", "process"),
		named("transitions", transitions, record.NewNative(nil), "transition"),
		{Name: "rotated", Sink: rotated, Encoder: record.NewNative(nil), Only: []string{"transition", "process"}},
	}}, source)
	if err != nil {
		t.Error(err)
	}
	if got, want := described(t, ends), []string{"start", "connection", "process 7 a /bin/a", "stop"}; !slices.Equal(got, want) {
		t.Errorf("ends: got %q, want %q", got, want)
	}
	if got, want := described(t, transitions), []string{"start", "transition", "transition", "transition", "stop"}; !slices.Equal(got, want) {
		t.Errorf("transitions: got %q, want %q", got, want)
	}
	if got := strings.Count(rotated.written.String(), `{"type":"process"`); got != 2 {
		t.Errorf("the rotated output has %d process records, want 2:\n%s", got, rotated.written.String())
	}
}

// beginningSink begins new files.
type beginningSink struct {
	fakeSink
	begun uint64
}

func (s *beginningSink) Begun() uint64 { return s.begun }

// The process that an alert names is described.
func TestOwners_Culprit(t *testing.T) {
	f := &fakeProcesses{table: map[uint32]tcp.Process{42: {PID: 42, Exe: "/bin/php"}}}
	sink := &fakeSink{}
	m := &fakeMonitor{culprit: detect.Culprit{Known: true, PID: 42, Comm: tcp.Comm{'p', 'h', 'p'}}}
	cfg := Config{Outputs: selecting([]string{"alert", "process"}), Processes: f}
	if _, _, err := monitoredBy(t, m, sink, cfg, &fakeSource{turns: [][][]byte{{sample(1)}}}); err != nil {
		t.Error(err)
	}
	if got, want := described(t, sink), []string{"start", "alert", "process 42 php /bin/php", "alert", "stop"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// The table of owners stays bounded, whatever number of processes there is. An owner that is named often is
// described even if the others have replaced it there.
func TestOwners_Bounded(t *testing.T) {
	f := &fakeProcesses{table: map[uint32]tcp.Process{7: listener()}}
	o := newOwners(f, func(time.Duration) time.Time { return time.Time{} })
	w := &recordWriter{stream: output.NewStream(&fakeSink{}, nil, func() {}), encoder: record.NewNative(nil)}
	o.add(w)
	comm := tcp.Comm{'x'}
	o.name(w, 7, 0, &comm, nil, 0)
	for pid := range uint32(10 * maxOwners) {
		if pid%uint32(len(o.recent)) != 7 {
			o.name(w, pid, 0, &comm, nil, 0)
		}
	}
	if kept := len(o.young) + len(o.aged); kept > 2*maxOwners || len(f.asked) < 9*maxOwners || o.young[7] != nil || o.aged[7] != nil {
		t.Errorf("%d owners are kept and %d were asked for", kept, len(f.asked))
	}
	o.take(f.Answers())
	if lines := string(w.stream.Lines); strings.Count(lines, "\n") != 1 || !strings.Contains(lines, `"pid":7`) {
		t.Errorf("got %s, want the one process that lives", lines)
	}
}
