package detection_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/tcpshift/tcpshift/test/tcplab"
)

// seqMember is what a replay may change in a record.
var seqMember = regexp.MustCompile(`"seq":[0-9]+,`)

// alertLines returns the alert records of a stream, without their numbers.
func alertLines(stream []byte) (lines []string) {
	for line := range strings.Lines(string(stream)) {
		if strings.HasPrefix(line, `{"type":"alert"`) {
			lines = append(lines, seqMember.ReplaceAllString(line, ""))
		}
	}
	return lines
}

// replayed runs tcpshift replay, and returns what it writes to standard output and to standard error.
func replayed(t *testing.T, args ...string) (stdout []byte, stderr string) {
	t.Helper()
	cmd := exec.Command(program, append([]string{"replay"}, args...)...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Errorf("%v: %v; %s", cmd.Args, err, &errs)
	}
	return out, errs.String()
}

// The alerts of a recorded storm come again byte for byte but for seq, in each of the schemas; other thresholds raise
// none.
func TestReplay_RealStorm(t *testing.T) {
	tcplab.RequireRoot(t)
	t.Parallel()
	dir := t.TempDir()
	recording := filepath.Join(dir, "inputs.ndjson")
	outputs := map[string]string{"native": filepath.Join(dir, "native.ndjson"), "ecs": filepath.Join(dir, "ecs.ndjson"), "otel": filepath.Join(dir, "otel.ndjson")}
	args := []string{"alerts", "--recording", recording, "--output", "-"}
	for schema, path := range outputs {
		args = append(args, "--output", path+"?schema="+schema)
	}
	tr := startTracer(t, args...)
	s := newHostPair(t, tr, 500)
	s.serve(80, afterPeer)
	a := <-s.run(workload{To: s.port(80), UntilNoPort: true, Phases: []phase{{PerSecond: 60, For: waitLimit}}})
	s.checkFailureAlert(tr, "time_wait_storm", a.FirstNoPort)
	tr.stop()
	if info, err := os.Stat(recording); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("the recording: %v, %v", info.Mode(), err)
	}
	for schema, path := range outputs {
		stream, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if schema != "native" { // their numbers have another place
			out, stderr := replayed(t, "--schema", schema, recording)
			want, got := bytes.Count(stream, []byte("\n")), bytes.Count(out, []byte("\n"))
			if got != want || stderr != "" {
				t.Errorf("a replay in %s has %d lines, want %d; %s", schema, got, want, stderr)
			}
			continue
		}
		want := alertLines(stream)
		if len(pick(tr.of(s.client.Inode()), "time_wait_storm", "close")) == 0 || len(want) < 3 {
			t.Fatalf("the storm has %d records of alerts: this proves nothing", len(want))
		}
		out, stderr := replayed(t, recording)
		if got := alertLines(out); !slices.Equal(got, want) || stderr != "" {
			t.Errorf("a replay has the alerts\n%s, want\n%s; %s", strings.Join(got, ""), strings.Join(want, ""), stderr)
		}
	}
}
