package main

import (
	"os"
	"regexp"
	"strings"
	"testing"

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
