package guest

import (
	"reflect"
	"strings"
	"testing"
)

// Runs survive the way through the kernel's command line.
func TestGuest_RunsInCommandLine(t *testing.T) {
	for name, runs := range map[string][]Run{
		"one":               {{Env: []string{"CI=true"}, Arguments: []string{"-test.v", "-test.run=^A/b$"}}},
		"two":               {{Env: []string{"A=1"}, Arguments: []string{"-test.v"}}, {Env: []string{"A=2"}}},
		"without arguments": {{}},
	} {
		t.Run(name, func(t *testing.T) {
			line := strings.Join(Words(runs), " ")
			if got := Runs(strings.Fields(line)); !reflect.DeepEqual(got, runs) {
				t.Errorf("runs in %q: got %+v, want %+v", line, got, runs)
			}
		})
	}
}

// A message is found in a line of the console.
func TestGuest_MessageInConsole(t *testing.T) {
	line := strings.TrimSpace(Message{Ended, "0"}.Line())
	for _, tt := range []struct {
		name, line string
		ok         bool
		want       Message
	}{
		{"on a line of its own", line, true, Message{Ended, "0"}},
		{"as a terminal has it", line + "\r", true, Message{Ended, "0"}},
		{"after other output", "[ 1.2] a kernel's word " + line, true, Message{Ended, "0"}},
		{"with words in it", strings.TrimSpace(Message{Running, "A=1 B=2"}.Line()), true, Message{Running, "A=1 B=2"}},
		{"a test that talks of it", "tcpshift-guest ended 0", false, Message{}},
		{"nothing", "", false, Message{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got, ok := Parse(tt.line); ok != tt.ok || got != tt.want {
				t.Errorf("%q: got %+v %v", tt.line, got, ok)
			}
		})
	}
}
