package main

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
)

func documentation(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("../../docs/output.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// docs/output.md has every command and flag, and no flag that does not exist.
func TestFlags_Documented(t *testing.T) {
	text := documentation(t)
	known := make(map[string]bool)
	for _, cmd := range newRoot(nil).Commands() {
		if !strings.Contains(text, "`tcpshift "+cmd.Name()) && cmd.Name() != "trace" {
			t.Errorf("the command %s is not documented", cmd.Name())
		}
		cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
			known["--"+f.Name] = true
			if f.Name != "help" && !strings.Contains(text, "`--"+f.Name) {
				t.Errorf("--%s of %s is not documented", f.Name, cmd.Name())
			}
		})
	}
	for _, option := range regexp.MustCompile("--[a-z][a-z-]*").FindAllString(text, -1) {
		if !known[option] {
			t.Errorf("%s is documented, but no command has it", option)
		}
	}
}

// The examples of README.md are of one connection: the record has the time, the owner, the ports and the duration that
// stand in the text.
func TestReadme_OneConnection(t *testing.T) {
	b, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	var r struct {
		Time      time.Time
		PID       uint32
		Comm      string
		LocalPort uint16        `json:"local_port"`
		PeerPort  uint16        `json:"peer_port"`
		Duration  time.Duration `json:"duration_ns"`
		ClosedBy  string        `json:"closed_by"`
	}
	line := regexp.MustCompile(`(?m)^{"type":"connection".*$`).Find(b)
	if err := json.Unmarshal(line, &r); err != nil {
		t.Fatalf("%v in %q", err, line)
	}
	const digits = 3
	want := fmt.Sprintf(`%s %d +%s +127\.0\.0\.1:%d +127\.0\.0\.1:%d +ENDED +%.*gms .* %s\n`,
		r.Time.Format("15:04:05\\.000000"), r.PID, r.Comm, r.LocalPort, r.PeerPort, digits, r.Duration.Seconds()*1e3, r.ClosedBy)
	if !regexp.MustCompile(want).Match(b) {
		t.Errorf("no line of the text is\n%s\nas in %s", want, line)
	}
}
