package cli_test

import (
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/tcpshift/tcpshift/test/tcplab"
)

// Without a filter every transition of every connection has one record.
func TestStream_EveryTransitionOnce(t *testing.T) {
	s := newTraffic(t)
	tr := startTracer(t, s.byNetns())
	s.makeConnections()
	got := tr.stop()
	var want []string
	for _, c := range everything {
		for end, path := range map[string]string{
			"client":   "CLOSE SYN_SENT ESTABLISHED FIN_WAIT1 FIN_WAIT2 CLOSE",
			"server":   "LISTEN SYN_RECV ESTABLISHED CLOSE_WAIT LAST_ACK CLOSE",
			"listener": "CLOSE LISTEN CLOSE",
		} {
			states := strings.Fields(path)
			for i := range states[1:] {
				want = append(want, fmt.Sprintf("%s %s %d: %s → %s", c.name, end, i, states[i], states[i+1]))
			}
		}
	}
	var came []string
	nth := make(map[string]int)
	for _, tr := range s.transitions(got) {
		came = append(came, fmt.Sprintf("%s %d: %s → %s", tr.end, nth[tr.end], tr.OldState, tr.kernelNew()))
		nth[tr.end]++
	}
	slices.Sort(want)
	slices.Sort(came)
	if !slices.Equal(came, want) {
		t.Errorf("got transitions:\n%s\nwant:\n%s\n%v", strings.Join(came, "\n"), strings.Join(want, "\n"), got.result)
	}
}

// --duration ends the stream, with one stats record at its end.
func TestStream_Duration(t *testing.T) {
	requireRoot(t)
	began := time.Now()
	got := startTracer(t, append(quiet, "--duration", "300ms")).end("duration")
	if took := time.Since(began); took < 300*time.Millisecond {
		t.Errorf("the stream ended after %v\n%v", took, got.result)
	}
	if len(got.of("stats")) != 1 {
		t.Errorf("%d stats records, want 1 at the end\n%v", len(got.of("stats")), got.result)
	}
}

// jq parses every line.
func TestStream_JqAcceptsEveryLine(t *testing.T) {
	s := newTraffic(t)
	jq := lookPath(t, "jq")
	tr := startTracer(t, append(s.byNetns(), "--stats-interval", "1ms"))
	s.makeConnections()
	got := tr.stop()
	cmd := exec.Command(jq, "-c", ".")
	cmd.Stdin = strings.NewReader(got.result.stdout)
	out, err := cmd.CombinedOutput()
	if err != nil || strings.Count(string(out), "\n") != len(got.records) {
		t.Errorf("jq: %v: %d lines of %d\n%s\n%v", err, strings.Count(string(out), "\n"), len(got.records), out, got.result)
	}
}

// --count N ends the stream after N transitions.
func TestStream_Count(t *testing.T) {
	s := newTraffic(t)
	tr := startTracer(t, []string{"--count", "3", "--netns", fmt.Sprint(s.n.Inode())})
	s.makeConnections()
	got := tr.end("count")
	if came := got.of("transition"); len(came) != 3 {
		t.Errorf("%d transitions, want 3\n%v", len(came), got.result)
	}
}

// If --count is not reached, --duration ends the stream.
func TestStream_CountWithDuration(t *testing.T) {
	requireRoot(t)
	startTracer(t, append(quiet, "--count", "3", "--duration", "1ms")).end("duration")
}

// Between start and stop there are only records of the types in --only.
func TestStream_OnlyTypes(t *testing.T) {
	for _, only := range []string{"stats", "transition", "connection", "loss"} {
		t.Run(only, func(t *testing.T) {
			s := newTraffic(t)
			tr := startTracer(t, []string{"--only", only, "--stats-interval", "1ms", "--netns", fmt.Sprint(s.n.Inode())})
			s.makeConnections()
			got := tr.stop()
			for _, r := range got.records[1 : len(got.records)-1] {
				if r.Type != only {
					t.Errorf("unexpected %s record\n%v", r.Type, got.result)
				}
			}
			if only != "loss" && len(got.of(only)) == 0 {
				t.Errorf("no %s record\n%v", only, got.result)
			}
			last := got.last()
			if only == "connection" && (last.Dropped == 0 || last.Dropped != last.Read || last.Dropped != last.Connections) {
				t.Errorf("stop does not count the ends of sockets as dropped\n%v", got.result)
			}
			if only != "transition" && last.Filtered == 0 || (only == "stats" || only == "loss") && last.Read != 0 {
				t.Errorf("stop does not count the transitions that nobody wants as filtered\n%v", got.result)
			}
		})
	}
}

// stats and stop show that the sockets of before the start have been read, if there is detection.
func TestStream_SeededAfter(t *testing.T) {
	requireRoot(t)
	tr := startTracer(t, []string{"--only", "stats,alert", "--stats-interval", "50ms"})
	tr.await("stats with seeded_after_ns", func(line string) bool { return strings.Contains(line, `"seeded_after_ns":`) })
	if got := tr.stop().result; !strings.Contains(lastLine(got.stdout), `"seeded_after_ns":`) {
		t.Errorf("stop does not have it\n%v", got)
	}
	if got := run([]string{"--only", "stats", "--duration", "200ms"}); strings.Contains(got.stdout, "seeded_after_ns") {
		t.Errorf("there is no detection\n%v", got)
	}
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}

// stats records come at --stats-interval, or not at all if it is 0.
func TestStream_StatsInterval(t *testing.T) {
	requireRoot(t)
	const interval, several = 50 * time.Millisecond, 6
	tr := startTracer(t, []string{"--only", "stats", "--stats-interval", interval.String()})
	for range several {
		tr.next()
	}
	got := tr.stop()
	at := func(r record) time.Time {
		when, err := time.Parse(time.RFC3339Nano, r.Time)
		if err != nil {
			t.Fatal(err)
		}
		return when
	}
	// One record may be late and the next one early, so the test counts several.
	stats := got.of("stats")
	if took := at(stats[several-1]).Sub(at(got.records[0])); took < several*interval {
		t.Errorf("%d stats records came within %v, want no more than one in %v\n%v", several, took, interval, got.result)
	}

	none := startTracer(t, append(quiet, "--stats-interval", "0", "--duration", "100ms")).end("duration")
	if came := none.of("stats"); len(came) != 0 {
		t.Errorf("%d stats records, want none\n%v", len(came), none.result)
	}
}

// Labels are the last members of every record.
func TestStream_LabelIsLast(t *testing.T) {
	s := newTraffic(t)
	tr := startTracer(t, append(s.byNetns(), "--label", "a=b", "--stats-interval", "1ms", "--label", "team=\"net\"\n"))
	s.makeConnections()
	got := tr.stop()
	for _, r := range got.records {
		if !strings.HasSuffix(r.line, `,"a":"b","team":"\"net\"\n"}`+"\n") {
			t.Errorf("the labels are not at the end: %s\n%v", r.line, got.result)
		}
	}
	for _, kind := range []string{"start", "transition", "connection", "stats", "stop"} {
		if len(got.of(kind)) == 0 {
			t.Errorf("no %s record\n%v", kind, got.result)
		}
	}
}

// hostile contains bytes that move a cursor, end a line, are not UTF-8 or must be
// escaped.
const hostile = "\x1b[2J\n\r\x80\u009b\"\\\x7f"

// A process name of any bytes does not break its line, and can be decoded.
func TestStream_ProcessNameOfAnyBytes(t *testing.T) {
	n := tcplab.NewNetns(t)
	tr := startTracer(t, []string{"--netns", fmt.Sprint(n.Inode())})
	connectAs(t, n, hostile)
	got := tr.stop()
	mustHaveNoControls(t, got.result)
	want := strings.ToValidUTF8(hostile, "\ufffd")
	for _, r := range got.of("transition") {
		if r.LocalPort == foreign.from.Port() && r.NewState == "SYN_SENT" {
			if r.Comm == nil || *r.Comm != want {
				t.Errorf("comm is not decoded as %q: %s\n%v", want, r.line, got.result)
			}
			return
		}
	}
	t.Errorf("no record names the process\n%v", got.result)
}

// Text output has a header, and escapes process names.
func TestText_HeaderAndProcessNames(t *testing.T) {
	n := tcplab.NewNetns(t)
	tr := launch(t, []string{"--format", "text", "--netns", fmt.Sprint(n.Inode())})
	tr.await("header", func(line string) bool {
		return slices.Equal(strings.Fields(line),
			strings.Fields("TIME(UTC) PID COMM LOCAL PEER OLD NEW ROLE NETNS ERROR"))
	})
	connectAs(t, n, hostile)
	tr.signal(syscall.SIGTERM)
	r := tr.wait()
	r.mustEnd(t, 0)
	r.mustPrintError(t, "")
	mustHaveNoControls(t, r)
	const shown = `\x1b[2J\x0a\x0d\x80`
	if !strings.Contains(r.stdout, " "+shown) {
		t.Errorf("the name is not shown as %s\n%v", shown, r)
	}
	all := strings.Split(strings.TrimSuffix(r.stdout, "\n"), "\n")
	if last := all[len(all)-1]; !strings.HasPrefix(last, "# ") || !strings.Contains(last, " stop: signal SIGTERM; ") {
		t.Errorf("the last line is not stop\n%v", r)
	}
}

// connectAs makes one connection by a process of that name.
func connectAs(t *testing.T, n *tcplab.Netns, comm string) {
	t.Helper()
	s := &traffic{t: t, n: n, peer: startPeer(t, n, comm, foreign.from, foreign.to)}
	s.connectPeer()
	n.Settle(0)
}

func mustHaveNoControls(t *testing.T, r result) {
	t.Helper()
	for i, c := range r.stdout {
		if c != '\n' && unicode.IsControl(c) || c == utf8.RuneError && !strings.HasPrefix(r.stdout[i:], "\ufffd") {
			t.Errorf("a control character or invalid UTF-8 at byte %d: %q\n%v", i, r.stdout[max(0, i-40):i+1], r)
		}
	}
}
