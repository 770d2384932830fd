package trace

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/internal/detect"
	"github.com/tcpshift/tcpshift/internal/record"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// executables are the executables of the owners on the records of a stream that are of a socket or an alert; "-": none.
func executables(t *testing.T, sink *fakeSink) (all []string) {
	t.Helper()
	for text := range strings.Lines(sink.written.String()) {
		var l struct {
			Dataset    string `json:"event.dataset"`
			Event      string `json:"event_name"`
			Executable string `json:"process.executable"`
			Attributes struct {
				Path string `json:"process.executable.path"`
			}
		}
		if err := json.Unmarshal([]byte(text), &l); err != nil {
			t.Fatal(err)
		}
		switch l.Dataset + l.Event {
		case "tcpshift.transition", "tcpshift.connection", "tcpshift.alert":
			path := l.Executable + l.Attributes.Path
			if path == "" {
				path = "-"
			}
			all = append(all, path)
		}
	}
	return all
}

// Every record of ECS and OpenTelemetry that names an owner has what is known of its process, from the turn after the
// first one on. A native output beside them asks for nothing.
func TestOwnerLines_OnEveryRecord(t *testing.T) {
	events := func() [][][]byte {
		return [][][]byte{
			{ownedBy(7, "a", sample(1)), ownedBy(9, "gone", sample(2))}, {ownedBy(7, "a", sample(3)), sample(4), ownedBy(9, "gone", sample(5))},
			{ownedBy(7, "a", end(6, 0))},
		}
	}
	want := []string{"-", "-", "/bin/a", "-", "-", "/bin/a", "/bin/a"}
	for _, schema := range record.Schemas() {
		f := &fakeProcesses{table: map[uint32]tcp.Process{7: listener()}}
		sink, native := &fakeSink{}, &fakeSink{}
		_, err := runAll(t, Config{Processes: f, Outputs: []Output{
			named("a", sink, record.NewEncoder(schema, nil), "transition", "connection"), named("b", native, record.NewNative(nil)),
		}}, &fakeSource{turns: events()})
		if err != nil {
			t.Error(err)
		}
		if strings.Contains(native.written.String(), "/bin/a") {
			t.Errorf("the native records have a process: %s", native.written.String())
		}
		if schema == record.SchemaNative {
			if len(f.asked) > 0 {
				t.Errorf("asked for %v without an output that describes owners", f.asked)
			}
		} else if got := executables(t, sink); !slices.Equal(got, want) || !slices.Equal(f.asked, []uint32{7, 9}) {
			t.Errorf("%s: got %q, want %q; asked for %v", schema, got, want, f.asked)
		}
	}
}

// Another program, another process and another user have nothing of the process before; what was known comes
// back with the answer. A process that has ended keeps it for its last sockets.
func TestOwnerLines_AnotherProcess(t *testing.T) {
	const service, attacker = 33, 99
	f := &fakeProcesses{table: map[uint32]tcp.Process{7: {PID: 7, StartedAt: time.Second, Exe: "/bin/a", UID: service, UIDKnown: true}}}
	o := newOwners(f, func(time.Duration) time.Time { return time.Time{} })
	comm, other := tcp.Comm{'a'}, tcp.Comm{'b'}
	exe := func(uid uint32, comm *tcp.Comm, at time.Duration) string {
		if p := o.processOf(7, uid, comm, nil, at); p != nil {
			return p.Exe
		}
		return ""
	}
	check := func(what, got, want string) {
		t.Helper()
		if got != want {
			t.Errorf("%s: %q, want %q", what, got, want)
		}
	}
	check("not read yet", exe(service, &comm, time.Minute), "")
	o.beginTurn(0)
	check("read", exe(service, &comm, time.Minute), "/bin/a")
	check("of a time before it began", exe(service, &comm, time.Second/2), "")
	check("a socket of root's", exe(0, &comm, time.Minute), "/bin/a")
	first := o.processOf(7, service, &comm, nil, time.Minute)
	check("a socket of another user", exe(attacker, &comm, time.Minute), "")
	o.beginTurn(1)
	check("found to be of the same process", exe(attacker, &comm, time.Minute), "/bin/a")
	asked := len(f.asked)
	for range 9 {
		check("sockets of both", exe(service, &comm, time.Minute)+exe(attacker, &comm, time.Minute), "/bin/a/bin/a")
	}
	if len(f.asked) != asked {
		t.Errorf("asked %d times more for sockets of both", len(f.asked)-asked)
	}
	if first == nil || o.processOf(7, service, &comm, nil, time.Minute).StartedAt != first.StartedAt {
		t.Error("another process")
	}

	f.table[7] = tcp.Process{PID: 7, StartedAt: time.Second, Exe: "/bin/b", UID: service, UIDKnown: true}
	check("another program", exe(service, &other, time.Minute), "")
	o.beginTurn(2)
	check("read again", exe(service, &other, time.Minute), "/bin/b")

	delete(f.table, 7)
	o.beginTurn(ownerRecheck)
	check("asked again", exe(service, &other, time.Minute), "/bin/b")
	o.beginTurn(ownerRecheck + 1)
	check("it has ended lately", exe(service, &other, time.Minute), "/bin/b")
	o.beginTurn(ownerRecheck + 3)
	check("it has ended", exe(service, &other, time.Minute), "")
}

// What is known of an owner that is not confirmed for long stands on no record.
func TestOwnerLines_Forgotten(t *testing.T) {
	f := &fakeProcesses{table: map[uint32]tcp.Process{7: listener()}}
	o := newOwners(f, func(time.Duration) time.Time { return time.Time{} })
	comm := tcp.Comm{'a'}
	known := func() bool { return o.processOf(7, 0, &comm, nil, time.Hour) != nil }
	known()
	o.beginTurn(1)
	before := known()
	f.late = true
	o.beginTurn(ownerForgotten)
	awaited := known()
	o.beginTurn(3 * ownerForgotten)
	late := known()
	f.late = false
	o.beginTurn(3*ownerForgotten + 1)
	if again := known(); !before || !awaited || late || !again {
		t.Errorf("known %v, awaited %v, late %v, again %v", before, awaited, late, again)
	}
}

// The encoders keep what they have encoded of a process: one that is found again unchanged is the same value.
func TestOwnerLines_KeptWhileUnchanged(t *testing.T) {
	f := &fakeProcesses{table: map[uint32]tcp.Process{7: listener()}}
	wall := time.Unix(9, 0)
	o := newOwners(f, func(time.Duration) time.Time { return wall })
	comm := tcp.Comm{'a'}
	o.processOf(7, 0, &comm, nil, time.Hour)
	o.beginTurn(1)
	first := o.processOf(7, 0, &comm, nil, time.Hour)
	wall = wall.Add(time.Millisecond)
	o.beginTurn(ownerRecheck)
	o.processOf(7, 0, &comm, nil, time.Hour)
	o.beginTurn(ownerRecheck + 1)
	if again := o.processOf(7, 0, &comm, nil, time.Hour); first == nil || again != first || len(f.asked) != 2 {
		t.Errorf("got %p, then %p; asked %d times", first, again, len(f.asked))
	}
}

// The process that an alert names is described on the alert.
func TestOwnerLines_Culprit(t *testing.T) {
	f := &fakeProcesses{table: map[uint32]tcp.Process{42: {PID: 42, Exe: "/bin/php"}}}
	sink := &fakeSink{}
	m := &fakeMonitor{culprit: detect.Culprit{Known: true, PID: 42, Comm: tcp.Comm{'p', 'h', 'p'}}}
	cfg := Config{Outputs: []Output{named("", sink, record.NewOTel(nil), "alert")}, Processes: f, Monitor: m}
	if _, err := runAll(t, cfg, &fakeSource{turns: [][][]byte{{sample(1)}}}); err != nil {
		t.Error(err)
	}
	if got := executables(t, sink); len(got) < 2 || got[len(got)-1] != "/bin/php" {
		t.Errorf("got %q, want the executable on the last alert", got)
	}
}
