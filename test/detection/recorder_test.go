package detection_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/test/tcplab"
)

// clockMembers are what two tracers may write differently of one event: its number, and what each tracer's programs
// read themselves at slightly different times. These are the times, and the substate of a timewait socket, which the
// peer's FIN changes on another CPU.
var clockMembers = regexp.MustCompile(`"(seq":[0-9]+|time":"[^"]*"|opened":"[^"]*"|time_wait_substate":"[^"]*"|[a-z_]*_ns":[0-9]+),`)

// eventLine is a record of an event, without clockMembers.
type eventLine struct {
	at   time.Time
	line string
}

// eventsOf returns the records of transitions and connections of one namespace in a file.
func eventsOf(t *testing.T, path string, netns uint32) (events []eventLine) {
	t.Helper()
	stream, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(stream)) {
		var e struct {
			Type  string
			Time  time.Time
			Netns uint32
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%v in %q", err, line)
		}
		if e.Netns == netns && (e.Type == "transition" || e.Type == "connection") {
			events = append(events, eventLine{e.Time, clockMembers.ReplaceAllString(line, "")})
		}
	}
	return events
}

// missingIn returns the lines of events from a time to before another that are not among the others.
func missingIn(others, events []eventLine, from, until time.Time) (missing []string, count int) {
	known := make(map[string]int)
	for _, e := range others {
		known[e.line]++
	}
	for _, e := range events {
		if e.at.Before(from) || !e.at.Before(until) {
			continue
		}
		count++
		if known[e.line]--; known[e.line] < 0 {
			missing = append(missing, e.line)
		}
	}
	return missing, count
}

// The file that the flight recorder writes when the alert of a storm opens has each transition of the half minute before
// it, as a full trace has them that runs beside, although the outputs get alerts only. SIGUSR1 writes another file.
func TestRecorder_HalfMinuteBeforeStorm(t *testing.T) {
	tcplab.RequireRoot(t)
	t.Parallel()
	dir, full := filepath.Join(t.TempDir(), "flights"), filepath.Join(t.TempDir(), "full.ndjson")
	s := newHostPair(t, nil, 500)
	netns := strconv.FormatUint(uint64(s.client.Inode()), 10)
	tr := startTracer(t, "alerts", "--netns", netns, "--recorder", "64MiB", "--recorder-dir", dir)
	beside := startTracer(t, "--netns", netns, "--output", "-?only=stats", "--output", full)
	s.serve(80, afterPeer)
	began := time.Now()
	a := <-s.run(workload{To: s.port(80), UntilNoPort: true, Phases: []phase{{PerSecond: 11, For: waitLimit}}})
	s.checkFailureAlert(tr, "time_wait_storm", a.FirstNoPort)
	opened := pick(tr.of(s.client.Inode()), "time_wait_storm", "open")
	if len(opened) == 0 || opened[0].Time.Sub(began) < 20*time.Second {
		t.Fatalf("the test is wrong: the storm began at %v, and its alerts are %+v", began, opened)
	}
	if err := tr.cmd.Process.Signal(syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	names := awaitFiles(t, dir, "-time_wait_storm.ndjson", "-asked.ndjson")
	tr.stop()
	beside.stop()
	from, until := opened[0].Time.Add(-30*time.Second), opened[0].Time
	all := eventsOf(t, full, s.client.Inode())
	for _, name := range names {
		have := eventsOf(t, name, s.client.Inode())
		missing, count := missingIn(have, all, from, until)
		if count < 1000 || len(missing) > 0 {
			t.Errorf("%s lacks %d of %d records of the half minute before the alert: %.1000s", filepath.Base(name), len(missing), count, strings.Join(missing, ""))
		}
		if more, _ := missingIn(all, have, from, until); len(more) > 0 {
			t.Errorf("%s has %d records that the full trace lacks: %.1000s", filepath.Base(name), len(more), strings.Join(more, ""))
		}
	}
	stream, err := os.ReadFile(names[0])
	lines := strings.Split(strings.TrimSpace(string(stream)), "\n")
	if err != nil || !strings.HasPrefix(lines[0], `{"type":"start",`) || !strings.Contains(lines[len(lines)-1], `"alert":"`+opened[0].Alert+`"`) {
		t.Errorf("the file begins with %.100s and ends with %.300s, %v", lines[0], lines[len(lines)-1], err)
	}
	if info, err := os.Stat(names[0]); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the mode of the file is %v, %v", info.Mode(), err)
	}
}

// awaitFiles waits until a directory has a file with each of these ends, and returns them in order.
func awaitFiles(t *testing.T, dir string, ends ...string) (names []string) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		names = nil
		for _, end := range ends {
			if found, _ := filepath.Glob(filepath.Join(dir, "*"+end)); len(found) > 0 {
				names = append(names, found[0])
			}
		}
		if len(names) == len(ends) {
			return names
		}
		if time.Now().After(deadline) {
			t.Fatalf("of the files %v there are %v", ends, names)
		}
	}
}
