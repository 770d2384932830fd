package replay_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/internal/detect"
	"github.com/tcpshift/tcpshift/internal/replay"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// file is a sink that keeps what it gets.
type file struct {
	lines []byte
	room  int
	err   error
}

func newFile() *file { return &file{room: 1 << 30} }

func (f *file) BatchSize() int { return 4096 }
func (f *file) Room() int      { return f.room }
func (f *file) Put(lines []byte) ([]byte, error) {
	f.lines = append(f.lines, lines...)
	return lines[:0], f.err
}

// recorded runs a storm, and returns its recording and its alerts.
func recorded(t *testing.T, length time.Duration) (lines []byte, alerts []string) {
	t.Helper()
	return recordedWith(t, length, 1<<16)
}

// recordedWith is recorded with this many TIME_WAITs that the kernel keeps.
func recordedWith(t *testing.T, length time.Duration, buckets int) (lines []byte, alerts []string) {
	t.Helper()
	s, f := &storm{buckets: buckets}, newFile()
	r := replay.New(detect.Config{ConnectFailures: 60, Gone: s.isGone}, began, replay.Header{Program: "test", Host: "a"}, f, func(m string) { t.Error(m) })
	s.engine = r
	renamed := *cgroup
	renamed.ContainerName = "later"
	s.finished = func(list []detect.Alert) {
		if len(list) == 0 {
			return
		}
		r.Wall(wall + s.now.Truncate(30*time.Second))
		for i := range list {
			list[i].Time = time.Unix(0, int64(list[i].Monotonic+wall+s.now.Truncate(30*time.Second)))
			list[i].Culprit.Rename(func(id uint64) *tcp.Cgroup {
				if s.now > began+50*time.Second {
					r.Named(id, &renamed)
					return &renamed
				}
				r.Named(id, nil)
				return nil
			})
		}
		alerts = append(alerts, linesOf(list)...)
	}
	s.run(length)
	return f.lines, alerts
}

func play(t *testing.T, lines []byte, over detect.Config) (alerts []string, err error) {
	t.Helper()
	p, err := replay.Open(replay.NewReader(bytes.NewReader(lines)), over)
	if err != nil {
		return nil, err
	}
	err = p.Run(func(list []detect.Alert) error {
		alerts = append(alerts, linesOf(list)...)
		return nil
	})
	return alerts, err
}

// The alerts of a recording come again byte for byte, ids, times and names included.
func TestReplay_SameAlerts(t *testing.T) {
	t.Parallel()
	lines, want := recorded(t, 70*time.Second)
	kinds := strings.Join(want, "")
	for _, kind := range []string{"time_wait_storm", "connect_failures", "close_wait_leak", "listen_queue_full"} {
		if !strings.Contains(kinds, `"kind":"`+kind) {
			t.Errorf("the storm raises no %s: this proves less than it should", kind)
		}
	}
	for _, input := range []string{"recording", "transition", "reset_decided", "lost", "left_out", "thresholds", "seed", "seeding_done", "limits",
		"close_wait", "open", "suspects", "listeners", "usage", "requests", "tick", "finish", "cgroup", "gone", "wall", "named"} {
		if !bytes.Contains(lines, []byte(`{"input":"`+input+`"`)) {
			t.Errorf("the recording has no %s", input)
		}
	}
	got, err := play(t, lines, detect.Config{})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got, want) {
		t.Errorf("a replay has other alerts:\n%s\nwant\n%s", strings.Join(got, ""), strings.Join(want, ""))
	}
}

// So do those about TIME_WAITs beyond those that the kernel keeps. Without its counter, as in older recordings, they
// have no overflows.
func TestReplay_Overflows(t *testing.T) {
	t.Parallel()
	const counter, overflows = `"TimeWaitOverflows":`, `"overflows":`
	lines, want := recordedWith(t, 40*time.Second, 400)
	if !strings.Contains(strings.Join(want, ""), overflows) {
		t.Fatalf("no alert has overflows:\n%s", strings.Join(want, ""))
	}
	got, err := play(t, lines, detect.Config{})
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("a replay has other alerts, %v:\n%s\nwant\n%s", err, strings.Join(got, ""), strings.Join(want, ""))
	}
	old := bytes.ReplaceAll(lines, []byte(counter), []byte(`"unknown":`))
	if got, err = play(t, old, detect.Config{}); err != nil || strings.Contains(strings.Join(got, ""), overflows) {
		t.Errorf("without the counter, %v:\n%s", err, strings.Join(got, ""))
	}
}

// Other thresholds lead to other alerts.
func TestReplay_OtherThresholds(t *testing.T) {
	t.Parallel()
	lines, _ := recorded(t, 40*time.Second)
	got, err := play(t, lines, detect.Config{ConnectFailures: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	if all := strings.Join(got, ""); strings.Contains(all, "connect_failures") || !strings.Contains(all, "time_wait_storm") {
		t.Errorf("with a threshold that nothing reaches:\n%s", all)
	}
}

// Where the recording ends early, its alerts do, too, and a line that is cut is not taken.
func TestReplay_CutRecording(t *testing.T) {
	t.Parallel()
	lines, want := recorded(t, 30*time.Second)
	cut := lines[:len(lines)-len("{\"input\":\"finish\"")]
	in := replay.NewReader(bytes.NewReader(cut))
	p, err := replay.Open(in, detect.Config{})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	if err := p.Run(func(list []detect.Alert) error { got = append(got, linesOf(list)...); return nil }); err != nil {
		t.Fatal(err)
	}
	if !in.Cut() {
		t.Error("it is not noticed that the last line is cut")
	}
	if len(got) != len(want) || !strings.Contains(got[len(got)-1], `"close_reason":"stopped"`) {
		t.Errorf("%d alerts, want %d; the last one is %s", len(got), len(want), got[len(got)-1])
	}
}

// What is no recording is refused with the number of the line and what is wrong with it.
func TestReplay_WrongLines(t *testing.T) {
	t.Parallel()
	first := `{"input":"recording","version":1,"arch":"amd64"}`
	for _, c := range []struct{ in, want string }{
		{"", "line 1: the recording is empty"},
		{"{}\n", "line 1: does not begin a recording"},
		{"{\"input\":\"recording\",\"version\":2,\"tcpshift\":\"9\"}\n", `line 1: version 2 of recordings is not known: use the tcpshift that has written it ("9"), or a newer one`},
		{first + "\n\n{\"input\":\"quake\"}\n", `line 3: input: "quake" is not known: use a newer tcpshift`},
		{first + "\nhello\n", "line 2: is not an input of detection: it has no key \"input\""},
		{first + "\n{\"input\":\"tick\",\n", "line 2: is not JSON: unexpected end of JSON input"},
		{first + "\n{\"input\":\"tick\",\"now_ns\":\"x\"}\n", "line 2: now_ns: string does not fit"},
		{first + "\n{\"input\":\"transition\",\"cgroup\":4}\n", "line 2: cgroup: no line before has this number"},
		{first + "\n{\"input\":\"transition\",\"conn\":\"xyz\"}\n", `line 2: conn: "xyz" is not a cookie in hex`},
		{first + "\n{\"input\":\"open\"}\n", "line 2: open: is missing"},
		{first + "\n{\"input\":\"transition\",\"peer\":\"fe80::1%\\u001b[2J\"}\n", "line 2: an address has a zone"},
		{first + "\n{\"input\":\"listeners\",\"table\":{\"Listeners\":[{\"Local\":{\"Addr\":\"fe80::1%\\u001b[2J\"}}]}}\n", "line 2: an address has a zone"},
		{first + "\n{\"input\":\"limits\",\"limits\":{\"Bound\":\"1-x\"}}\n", `line 2: "1-x" is not a port or a range of ports`},
	} {
		_, err := play(t, []byte(c.in), detect.Config{})
		var line *replay.LineError
		if err == nil || err.Error() != c.want || !errors.As(err, &line) {
			t.Errorf("%q: got %v, want %s", c.in, err, c.want)
		}
	}
}

// A recorder whose sink has no room leaves out whole lines, writes how many, and says so once.
func TestRecorder_NoRoom(t *testing.T) {
	t.Parallel()
	s, f, messages := &storm{buckets: 1 << 16}, newFile(), 0
	r := replay.New(detect.Config{}, began, replay.Header{}, f, func(string) { messages++ })
	s.engine, s.now = r, began
	s.connection()
	f.room = 0
	r.Tick(s.now) // and what waits
	s.connection()
	r.Tick(s.now)
	f.room = 1 << 30
	r.Tick(s.now)
	if !bytes.Contains(f.lines, []byte(`{"input":"gap","lines":4}`+"\n"+`{"input":"tick"`)) || messages != 1 {
		t.Errorf("%d messages, and the recording is\n%s", messages, f.lines)
	}
	f.err = errors.New("the disk is gone")
	r.Tick(s.now)
	r.Tick(s.now)
	if messages != 2 {
		t.Errorf("%d messages, want 2", messages)
	}
	if _, err := play(t, f.lines, detect.Config{}); err != nil {
		t.Error(err)
	}
}

// Each field of a transition comes back, except for those that the engine gets from elsewhere.
func TestTransition_EachField(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	var got tcp.Transition
	for range 200 {
		var want tcp.Transition
		fill(reflect.ValueOf(&want).Elem(), random)
		want.Local.Addr, want.Peer.Addr = server, client
		want.Time, want.ResetReason, want.Cgroup = time.Time{}, "", nil
		// A transition that the engine ignores is not written; this one is decided late.
		f := newFile()
		r := replay.New(detect.Config{}, 0, replay.Header{}, f, func(m string) { t.Error(m) })
		r.Seed(0, 0, &tcp.Socket{Transition: want, ExpiresIn: 5})
		r.Tick(0)
		replay.EachSeed(t, f.lines, func(s *tcp.Socket) { got = s.Transition })
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("got\n%+v, want\n%+v", got, want)
		}
	}
}

// fill sets each number, bool and byte to a random value.
func fill(v reflect.Value, random *rand.Rand) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Field(i).CanSet() {
				fill(v.Field(i), random)
			}
		}
	case reflect.Array:
		for i := range v.Len() {
			fill(v.Index(i), random)
		}
	case reflect.Bool:
		v.SetBool(random.IntN(2) == 1)
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(random.Uint64() >> (64 - 8*v.Type().Size()))
	case reflect.Int64:
		v.SetInt(random.Int64())
	case reflect.Pointer, reflect.String:
	default:
		panic(fmt.Sprintf("fill does not know %v", v.Kind()))
	}
}

// No file makes a replay panic, or run for ever.
func FuzzReplay(f *testing.F) {
	t := new(testing.T)
	lines, _ := recorded(t, 3*time.Second)
	seen := make(map[string]bool)
	for line := range bytes.Lines(lines) {
		name := string(line[:min(len(line), 20)])
		if seen[name] {
			continue
		}
		seen[name] = true
		f.Add([]byte("{\"input\":\"recording\",\"version\":1}\n" + string(line)))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		_, _ = play(t, in, detect.Config{})
	})
}

// A time that is far away does not make a replay run for ever.
func TestReplay_FarTime(t *testing.T) {
	t.Parallel()
	began := time.Now()
	_, err := play(t, []byte(`{"input":"recording","version":1,"began_ns":1}
{"input":"transition","at_ns":5,"conn":"1","old":7,"new":2,"role":1,"local":"10.0.0.1","peer":"10.0.0.2","peer_port":80,"netns":7}
{"input":"transition","at_ns":9000000000000000000,"conn":"1","old":5,"new":6,"role":1,"local":"10.0.0.1","peer":"10.0.0.2","peer_port":80,"netns":7}
{"input":"tick","now_ns":9100000000000000000}
`), detect.Config{})
	if err != nil || time.Since(began) > 10*time.Second {
		t.Errorf("%v after %v", err, time.Since(began))
	}
}
