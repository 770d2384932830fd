package pipelines_test

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// extremes replaces values of a record by ones that a double, or a signed or a shorter number, cannot
// hold. No connection of a test transfers that much.
var extremes = []struct{ key, value string }{
	{"conn", `"ffffffffffffffff"`},
	{"netns", "4294967295"},
	{"sent_bytes", "9007199254740993"},
	{"received_bytes", "9223372036854775807"},
	{"duration_ns", "9223372036854775807"},
	{"established_ns", "9007199254740995"},
	{"time(?:stamp)?", `"2026-11-29T23:59:59.000000001Z"`},
	{"opened", `"2026-11-29T23:59:58.999999999Z"`},
}

var seqKey = regexp.MustCompile(`("(?:tcpshift\.)?seq":)[0-9]+`)

// extremeLines returns the connection records among lines with these values.
func extremeLines(t testing.TB, lines []string) []string {
	t.Helper()
	var changed []string
	for _, line := range lines {
		if !strings.HasPrefix(line, `{"type":"connection"`) && !strings.Contains(line, `"event_name":"tcpshift.connection"`) {
			continue
		}
		for _, each := range extremes {
			key := regexp.MustCompile(`("(?:tcpshift\.)?` + each.key + `":)(?:"[^"]*"|[0-9]+)`)
			line = key.ReplaceAllString(line, "${1}"+each.value)
		}
		line = seqKey.ReplaceAllString(line, fmt.Sprintf("${1}%d", 1<<53+1+2*len(changed)))
		changed = append(changed, line)
	}
	if len(changed) < len(strangeNames) {
		t.Fatalf("only %d connection records among %q", len(changed), lines)
	}
	if slices.ContainsFunc(changed, func(s string) bool { return !strings.Contains(s, "9007199254740993") }) {
		t.Fatalf("a record without extreme values: %q", changed)
	}
	return changed
}
