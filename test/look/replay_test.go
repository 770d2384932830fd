package look_test

import (
	"bytes"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// seqMember is what a replay may change in a record.
var seqMember = regexp.MustCompile(`"seq":[0-9]+,`)

// linesOf returns the records of some types, without their numbers.
func linesOf(stream []byte, types ...string) (lines []string) {
	for line := range bytes.Lines(stream) {
		for _, name := range types {
			if bytes.HasPrefix(line, []byte(`{"type":"`+name+`",`)) {
				lines = append(lines, seqMember.ReplaceAllString(string(line), ""))
			}
		}
	}
	return lines
}

// replayed runs tcpshift replay, which must have nothing to say.
func replayed(t *testing.T, args ...string) []byte {
	t.Helper()
	cmd := exec.Command(program, append([]string{"replay"}, args...)...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil || errs.Len() > 0 {
		t.Fatalf("%v: %v; %s", cmd.Args, err, &errs)
	}
	return out
}

func compareLines(t *testing.T, what string, got, want []string) {
	t.Helper()
	if len(want) == 0 {
		t.Errorf("%s: there are none: this proves nothing", what)
	}
	for i := range min(len(got), len(want)) {
		if got[i] != want[i] {
			t.Errorf("%s: line %d is\n%swant\n%s", what, i, got[i], want[i])
			return
		}
	}
	if len(got) != len(want) {
		t.Errorf("%s: %d lines, want %d", what, len(got), len(want))
	}
}

// The storm is replayed: of its inputs the same alerts come, byte for byte but for seq, and the same transitions; of its
// records the same transitions and connections, the same sums, and the same text.
func TestReplay_Storm(t *testing.T) {
	recording := sharedStorm(t)
	stream, err := os.ReadFile(recording)
	if err != nil {
		t.Fatal(err)
	}
	t.Run("alerts", func(t *testing.T) {
		compareLines(t, "alerts", linesOf(replayed(t, inputsOf(recording)), "alert"), linesOf(stream, "alert"))
	})
	t.Run("records", func(t *testing.T) {
		got := replayed(t, "--only", "transition,connection", recording)
		compareLines(t, "records", linesOf(got, "transition", "connection"), linesOf(stream, "transition", "connection"))
	})
	t.Run("transitions of the inputs", func(t *testing.T) {
		got := replayed(t, "--only", "transition", "--error", "ECONNREFUSED", inputsOf(recording))
		var want []string
		for _, line := range linesOf(stream, "transition") {
			if strings.Contains(line, `"error":"ECONNREFUSED"`) {
				want = append(want, line)
			}
		}
		compareLines(t, "refused", linesOf(got, "transition"), want)
	})
	t.Run("summary", func(t *testing.T) {
		sums := filepath.Join(t.TempDir(), "sums.ndjson")
		if err := os.WriteFile(sums, replayed(t, "--summary", "5s", recording), 0o600); err != nil {
			t.Fatal(err)
		}
		var got, want map[string]int
		jq(t, &got, sums, `map(select(.type == "summary") | . + {port: (.peer_port // .local_port)}) | group_by(.role + " \(.port)") | map({key: "\(.[0].role) \(.[0].port)", value: (map(.connections) | add)}) | from_entries`)
		jq(t, &want, recording, connections+` | map(. + {port: (if .role == "client" then .peer_port else .local_port end)}) | group_by(.role + " \(.port)") | map({key: "\(.[0].role) \(.[0].port)", value: length}) | from_entries`)
		if !maps.Equal(got, want) || len(want) < 3 {
			t.Errorf("the summaries have %v, jq %v", got, want)
		}
	})
	t.Run("text", func(t *testing.T) {
		text := string(replayed(t, "--only", "transition", "--format", "text", recording))
		want := len(linesOf(stream, "transition"))
		if got := len(slices.Collect(strings.Lines(text))); got < want || strings.Contains(text, "\x1b") || !strings.Contains(text, " SYN_SENT ") {
			t.Errorf("the text has %d lines for %d transitions: %.300s", got, want, text)
		}
	})
}
