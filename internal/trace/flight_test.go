package trace

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/internal/flight"
	"github.com/tcpshift/tcpshift/internal/record"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

var seqMember = regexp.MustCompile(`"seq":\d+,`)

// eventRecords returns the records of events in a stream, sorted and without their numbers.
func eventRecords(stream string) (lines []string) {
	for line := range strings.Lines(stream) {
		if strings.HasPrefix(line, `{"type":"transition"`) || strings.HasPrefix(line, `{"type":"connection"`) {
			lines = append(lines, seqMember.ReplaceAllString(line, ""))
		}
	}
	slices.Sort(lines)
	return lines
}

// The file of a flight recorder has the records of a full trace, also those of events that become known in parts: cgroups,
// ports of listeners and resets. What has happened before the operator asks is in it, also if it is read later.
func TestFlight_AsFullTrace(t *testing.T) {
	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	sink := &fakeSink{}
	got := run(t, func(stop func()) (Config, *fakeSource, *fakeSink) {
		recorder := flight.New(flight.MinSize, root, func(string) {})
		cfg := Config{
			Flight:       &Flight{recorder, func() record.Encoder { return record.NewNative(nil) }},
			ResetReasons: map[tcp.ResetCode]string{9: "EIGHT"},
		}
		reads, idle := 0, 0
		return cfg, &fakeSource{
			listenPorts: map[uint64]uint16{1: 8080},
			turns: [][][]byte{
				{cgroupPath(5, 0, "a.service", "system.slice"), sample(1), inCgroup(5, sample(2)), end(3, time.Second), awaited(4, tcp.Established, false), resetOf(4, 9)},
				{awaited(6, tcp.FinWait2, true), timeWaitEnd(7), sample(8)}, {sample(9)},
			},
			atRead: func() {
				if reads++; reads == 1 {
					recorder.Ask()
				}
			},
			whenIdle: func() {
				if idle++; idle == 6 {
					if err := recorder.Close(); err != nil {
						t.Error(err)
					}
					stop()
				}
			},
		}, sink
	})
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 1 || !strings.HasSuffix(files[0].Name(), "-asked.ndjson") {
		t.Fatalf("the files are %v, %v", files, err)
	}
	stream, err := os.ReadFile(filepath.Join(dir, files[0].Name()))
	if err != nil {
		t.Fatal(err)
	}
	want, have := eventRecords(sink.written.String()), eventRecords(string(stream))
	if !slices.Equal(have, want) || len(want) < 10 {
		t.Errorf("the file has\n%s, want\n%s", strings.Join(have, ""), strings.Join(want, ""))
	}
	if !strings.HasPrefix(string(stream), `{"type":"start",`) {
		t.Errorf("the file begins with %.80s", stream)
	}
	if all := strings.Join(have, ""); !strings.Contains(all, "EIGHT") || !strings.Contains(all, "8080") || !strings.Contains(all, "a.service") {
		t.Errorf("the file lacks a reset, a port or a cgroup: %s", all)
	}
	if stop := last(t, got.lines); stop.Reason != "signal" {
		t.Errorf("stop is %+v", stop)
	}
}
