package pipelines_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// notRun marks an example whose consumer cannot be had here, in its first lines.
const notRun = "Not run by a test"

// screen is how many lines an example may have.
const screen = 50

// TestExamples_EachIsRun shows that a test runs each example of deploy/pipelines, or that the example
// says that none does; that it fits on a screen; and that docs/pipelines.md names it.
func TestExamples_EachIsRun(t *testing.T) {
	entries, err := os.ReadDir(examplesDir)
	if err != nil {
		t.Fatal(err)
	}
	tests, err := filepath.Glob("*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	var code strings.Builder
	for _, each := range tests {
		code.WriteString(readText(each))
	}
	page := readText("../../docs/pipelines.md")
	for _, each := range entries {
		text := readText(filepath.Join(examplesDir, each.Name()))
		run := strings.Contains(code.String(), `"`+each.Name()+`"`)
		marked := strings.Contains(text, notRun)
		if run == marked {
			t.Errorf("%s: a test runs it: %v; it is marked %q: %v", each.Name(), run, notRun, marked)
		}
		if lines := strings.Count(text, "\n"); lines > screen {
			t.Errorf("%s has %d lines, want at most %d", each.Name(), lines, screen)
		}
		if !strings.Contains(page, "(../deploy/pipelines/"+each.Name()+")") {
			t.Errorf("docs/pipelines.md does not link to %s", each.Name())
		}
	}
	if len(entries) < 8 {
		t.Errorf("only %d examples", len(entries))
	}
}

// TestExamples_ClosedBy shows that what the examples and the page compare with closed_by matches a value that it can
// have.
func TestExamples_ClosedBy(t *testing.T) {
	comparison := regexp.MustCompile(`closed_by\W*?(=~|!~|!=|==?|<>) *["']([^"']*)`)
	count := 0
	for _, name := range append(must(filepath.Glob(examplesDir+"/*")), "../../docs/pipelines.md") {
		for _, match := range comparison.FindAllStringSubmatch(readText(name), -1) {
			count++
			pattern := regexp.QuoteMeta(match[2])
			if strings.HasSuffix(match[1], "~") {
				pattern = match[2]
			}
			whole, err := regexp.Compile("^(?:" + pattern + ")$")
			if err != nil {
				t.Errorf("%s: %s: %v", name, match[0], err)
				continue
			}
			if !matchesWayToClose(whole) {
				t.Errorf("%s: %s matches none of %q", name, match[0], tcp.WaysToClose())
			}
		}
	}
	if count == 0 {
		t.Error("no example compares closed_by")
	}
}

func matchesWayToClose(pattern *regexp.Regexp) bool {
	for _, each := range tcp.WaysToClose() {
		if pattern.MatchString(string(each)) {
			return true
		}
	}
	return false
}
