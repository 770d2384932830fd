package replay_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/internal/detect"
	"github.com/tcpshift/tcpshift/internal/recording"
	"github.com/tcpshift/tcpshift/internal/replay"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// failures returns records of connects to a port that are refused, 10 ms apart.
func failures(at time.Time, n, port int, more string) (lines []string) {
	for i := range n {
		lines = append(lines, fmt.Sprintf(`{"type":"transition","time":"%s","seq":1,%s"conn":"%x","netns":7,"family":"ipv4","local_addr":"10.0.0.1","local_port":%d,"peer_addr":"10.0.0.2","peer_port":%d,"role":"client","old_state":"SYN_SENT","new_state":"CLOSE","uid":0,"error":"ECONNREFUSED"}`+"\n",
			at.Add(time.Duration(i)*10*time.Millisecond).UTC().Format("2006-01-02T15:04:05.000000000Z"), more, port<<16+i+1, 40000+i, port))
	}
	return lines
}

// opened replays records, and returns the port and the time of each alert that opens, and how many transitions Event gets.
func opened(t *testing.T, lines []string) (alerts []string, events int, r *replay.Records) {
	t.Helper()
	in, err := recording.NewReader(strings.NewReader(strings.Join(lines, "")))
	if err == nil {
		r, err = replay.OpenRecords(in, detect.Config{})
	}
	if err != nil {
		t.Fatal(err)
	}
	r.Event = func(*tcp.Transition, *tcp.Connection) error { events++; return nil }
	err = r.Run(func(list []detect.Alert) error {
		for i := range list {
			if list[i].Phase == detect.Open {
				alerts = append(alerts, fmt.Sprint(list[i].Peer.Port, list[i].Time.UTC().Format(" 15:04")))
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return alerts, events, r
}

// Where the wall clock was set back, or the files of a rotation are in the wrong order, detection goes on, and the alerts have
// the times of the records.
func TestRecords_ClockSetBack(t *testing.T) {
	t.Parallel()
	noon := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	early := noon.Add(-2 * time.Hour)
	a, b, c := failures(noon, 100, 80, ""), failures(early, 100, 81, ""), failures(early.Add(time.Hour), 100, 82, "")
	for _, row := range []struct {
		name    string
		lines   []string
		want    []string
		setBack uint64
	}{
		{"in order", slices.Concat(b, c, a), []string{"81 10:00", "82 11:00", "80 12:00"}, 0},
		{"the newest first", slices.Concat(a, b, c), []string{"80 12:00", "81 10:00", "82 11:00"}, 1},
		{"reversed", slices.Concat(a, c, b), []string{"80 12:00", "82 11:00", "81 10:00"}, 2},
		{"5 s", slices.Concat(a, failures(noon.Add(-5*time.Second), 1, 81, "")), []string{"80 12:00"}, 0},
	} {
		got, events, r := opened(t, row.lines)
		if !slices.Equal(got, row.want) || events != len(row.lines) || r.SetBack() != row.setBack {
			t.Errorf("%s: alerts %q, want %q; %d events of %d; set back %d times, want %d", row.name, got, row.want, events, len(row.lines), r.SetBack(), row.setBack)
		}
	}
}

// The records of other hosts are written again and raise no alerts. A host that was renamed or restarted is the same.
func TestRecords_OtherHosts(t *testing.T) {
	t.Parallel()
	noon := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	of := func(host, bootID string) string { return `"host":"` + host + `","boot_id":"` + bootID + `",` }
	mixed := func(more string) (lines []string) {
		first, second := failures(noon, 30, 80, of("a", "1")), failures(noon, 30, 80, more)
		for i := range first {
			lines = append(lines, first[i], second[i])
		}
		return lines
	}
	start := func(host string) string {
		return `{"type":"start","time":"2026-11-30T12:00:00.000000000Z","seq":1,` + of(host, host) + `"schema":"1.0"}` + "\n"
	}
	for _, row := range []struct {
		name    string
		lines   []string
		want    []string
		foreign uint64
	}{
		{"another host", mixed(of("b", "2")), nil, 30},
		{"renamed", mixed(of("b", "1")), []string{"80 12:00"}, 0},
		{"restarted", mixed(of("a", "2")), []string{"80 12:00"}, 0},
		{"by start records", slices.Concat([]string{start("a")}, failures(noon, 30, 80, ""), []string{start("b")}, failures(noon, 30, 80, "")), nil, 31},
		{"and back", slices.Concat([]string{start("a")}, failures(noon, 30, 80, ""), []string{start("b"), start("a")}, failures(noon, 30, 80, "")), []string{"80 12:00"}, 1},
	} {
		got, events, r := opened(t, row.lines)
		if want := strings.Count(strings.Join(row.lines, ""), `"transition"`); !slices.Equal(got, row.want) || events != want || r.OfOtherHosts() != row.foreign {
			t.Errorf("%s: alerts %q, want %q; %d events of %d; %d of others, want %d", row.name, got, row.want, events, want, r.OfOtherHosts(), row.foreign)
		}
	}
}

// The first line of a piece of a file may be cut. A file that begins with more lines that are no records is none.
func TestRecords_CutBegin(t *testing.T) {
	t.Parallel()
	lines := failures(time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC), 2, 80, "")
	if _, events, _ := opened(t, append([]string{`"uid":0}` + "\n"}, lines...)); events != 2 {
		t.Errorf("%d events", events)
	}
	for _, text := range []string{"a\nb\n" + lines[0], "a\n", "a\n" + lines[0][:50]} {
		in, err := recording.NewReader(strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		var at *replay.LineError
		if _, err := replay.OpenRecords(in, detect.Config{}); !errors.As(err, &at) || at.Line != 1 {
			t.Errorf("%.10q: %v", text, err)
		}
	}
}

// The inputs of detection may be compressed; if the compressed file is cut, they end before.
func TestReplay_CutCompressed(t *testing.T) {
	t.Parallel()
	var zipped bytes.Buffer
	w := gzip.NewWriter(&zipped)
	_, err := io.WriteString(w, strings.Repeat("{}\n", 100_000))
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	for _, left := range []int{0, 12} {
		in, err := recording.Decompress(bytes.NewReader(zipped.Bytes()[:zipped.Len()-left]), 4096)
		if err != nil {
			t.Fatal(err)
		}
		r, n := replay.NewReader(in), 0
		for err == nil {
			if _, err = r.Next(); err == nil {
				n++
			}
		}
		if !errors.Is(err, io.EOF) || r.Cut() != (left > 0) || n == 0 || left == 0 && n != 100_000 {
			t.Errorf("%d bytes less: %d lines, %v, cut %v", left, n, err, r.Cut())
		}
	}
}

// A clock that jumps to and fro through the centuries does not carry the engine's time past what a number has room for.
func TestRecords_ClockJumpsToAndFro(t *testing.T) {
	t.Parallel()
	last := time.Unix(0, math.MaxInt64)
	far, early := time.Date(2199, 12, 31, 0, 0, 0, 0, time.UTC), time.Date(1971, 1, 1, 0, 0, 0, 0, time.UTC)
	end := last.Add(-far.Sub(early)) // the engine goes on after the clock was set back
	var lines []string
	for i, at := range []time.Time{
		far, early, end.Add(-180550 * time.Millisecond), end.Add(-180500 * time.Millisecond), end.Add(-100 * time.Millisecond), far, early,
	} {
		lines = append(lines, failures(at, 1, 80+i, "")...)
	}
	in, err := recording.NewReader(strings.NewReader(strings.Join(lines, "")))
	if err != nil {
		t.Fatal(err)
	}
	r, err := replay.OpenRecords(in, detect.Config{})
	if err != nil {
		t.Fatal(err)
	}
	ticks, events := 0, 0
	before := time.Duration(0)
	r.Pace = func(at time.Duration) error {
		if ticks++; ticks > 10_000 || at < before {
			return fmt.Errorf("tick %d is at %v, after %v", ticks, at, before)
		}
		before = at
		return nil
	}
	r.Event = func(*tcp.Transition, *tcp.Connection) error { events++; return nil }
	if err := r.Run(func([]detect.Alert) error { return nil }); err != nil || events != len(lines) {
		t.Errorf("%d events of %d: %v", events, len(lines), err)
	}
}
