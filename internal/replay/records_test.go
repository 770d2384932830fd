package replay_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/internal/detect"
	"github.com/tcpshift/tcpshift/internal/record"
	"github.com/tcpshift/tcpshift/internal/recording"
	"github.com/tcpshift/tcpshift/internal/replay"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// stream is an engine that writes the records of the transitions that it is passed.
type stream struct {
	*detect.Engine
	encoder record.Encoder
	lines   []byte
}

func (s *stream) Observe(t *tcp.Transition) {
	timed := *t
	timed.Time = time.Unix(0, int64(t.Monotonic+wall))
	s.lines = s.encoder.Transition(s.lines, &timed)
	s.Engine.Observe(t)
}

func playRecords(t *testing.T, lines []byte, c detect.Config) (alerts []string, r *replay.Records, err error) {
	t.Helper()
	in, err := recording.NewReader(bytes.NewReader(lines))
	if err != nil {
		return nil, nil, err
	}
	if r, err = replay.OpenRecords(in, c); err != nil {
		return nil, nil, err
	}
	err = r.Run(func(list []detect.Alert) error {
		alerts = append(alerts, linesOf(list)...)
		return nil
	})
	return alerts, r, err
}

// A stream of records raises the alerts that its transitions show, unverified, and with the service that they name.
func TestRecords_Unverified(t *testing.T) {
	t.Parallel()
	out := &stream{Engine: detect.New(detect.Config{}, began), encoder: record.NewEncoder(record.SchemaNative, nil)}
	out.lines = out.encoder.Start(nil, &record.Start{Time: time.Unix(0, int64(began+wall)), Host: "a", Arch: "amd64"})
	s := &storm{buckets: 1 << 16, engine: out, finished: func([]detect.Alert) {}}
	s.run(40 * time.Second)
	got, r, err := playRecords(t, out.lines, detect.Config{})
	if err != nil || r.First.Host != "a" {
		t.Fatalf("%v; the first record is %+v", err, r.First)
	}
	all := strings.Join(got, "")
	if !strings.Contains(all, `"kind":"connect_failures","phase":"open"`) || !strings.Contains(all, `"service":"wget`) || !strings.Contains(all, `"time":"20`) {
		t.Errorf("the alerts are\n%s", all)
	}
	for _, line := range got {
		if !strings.Contains(line, `"confidence":"unverified"`) {
			t.Errorf("an alert is not unverified: %s", line)
		}
	}
	if again, _, _ := playRecords(t, out.lines, detect.Config{}); strings.Join(again, "") != all {
		t.Errorf("a second replay has other alerts:\n%s", strings.Join(again, ""))
	}
	if none, _, _ := playRecords(t, out.lines, detect.Config{ConnectFailures: 1 << 20}); strings.Contains(strings.Join(none, ""), "connect_failures") {
		t.Error("a threshold that nothing reaches is reached")
	}
}

// Neither lines that are no records nor times that are far apart stop a replay; a file without any record does.
func TestRecords_HostileLines(t *testing.T) {
	t.Parallel()
	record := `{"type":"transition","time":"2026-01-01T00:00:00.000000000Z","conn":"1","old_state":"CLOSE","new_state":"SYN_SENT"}` + "\n"
	later := strings.Replace(record, "2026", "2199", 1)
	if _, _, err := playRecords(t, []byte(record+"quatsch\n"+later+record+`{"type":"tr`), detect.Config{}); err != nil {
		t.Error(err)
	}
	for in, want := range map[string]string{"": "has no record", "quatsch\n": "line 1: it is not JSON", "{}\n" + record: "line 1: it has no type: a recording is in the native schema"} {
		if _, _, err := playRecords(t, []byte(in), detect.Config{}); err == nil || err.Error() != want {
			t.Errorf("%q: %v, want %s", in, err, want)
		}
	}
}

// An address of a record that has a zone, which may be any text, is not known: encoders write addresses as they are.
func TestRecords_HostileZone(t *testing.T) {
	t.Parallel()
	in, err := recording.NewReader(strings.NewReader(`{"type":"transition","time":"2026-01-01T00:00:00Z","conn":"1","old_state":"CLOSE","new_state":"SYN_SENT",` +
		`"family":"ipv6","local_addr":"fe80::1%\u001b[2J","local_port":1,"peer_addr":"fe80::2%\",\"x\":\"","peer_port":2}` + "\n"))
	if err != nil {
		t.Fatal(err)
	}
	r, err := replay.OpenRecords(in, detect.Config{})
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	r.Event = func(e *tcp.Transition, _ *tcp.Connection) error {
		seen++
		if e.Local.Addr.IsValid() || e.Peer.Addr.IsValid() || e.Local.Port != 1 || e.Peer.Port != 2 {
			t.Errorf("%+v to %+v", e.Local, e.Peer)
		}
		return nil
	}
	if err := r.Run(func([]detect.Alert) error { return nil }); err != nil || seen != 1 {
		t.Errorf("%d transitions, %v", seen, err)
	}
}

// What encoders write as it is, because tcpshift itself makes it, is left out if a recording has other text there.
func TestRecords_HostileWords(t *testing.T) {
	t.Parallel()
	const word = `"\u001b[2J\",\"x\":\""`
	in, err := recording.NewReader(strings.NewReader(`{"type":"start","time":"2026-01-01T00:00:00Z","arch":` + word + "}\n" +
		`{"type":"connection","time":"2026-01-01T00:00:00Z","conn":"1","final_state":"CLOSE","pid":7,"comm":"a","cgroup":"/a",` +
		`"phase":` + word + `,"closed_by":` + word + `,"reset_reason":` + word + `,"container":` + word + `,"container_runtime":` + word + `,"pod_uid":` + word + "}\n"))
	if err != nil {
		t.Fatal(err)
	}
	r, err := replay.OpenRecords(in, detect.Config{})
	if err != nil {
		t.Fatal(err)
	}
	if r.First.Arch != "" {
		t.Errorf("the architecture is %q", r.First.Arch)
	}
	var line []byte
	r.Event = func(last *tcp.Transition, c *tcp.Connection) error {
		line = record.NewEncoder(record.SchemaNative, nil).Connection(line, last, c)
		return nil
	}
	if err := r.Run(func([]detect.Alert) error { return nil }); err != nil || !json.Valid(line) || bytes.Contains(line, []byte("[2J")) {
		t.Errorf("%v: %s", err, line)
	}
}
