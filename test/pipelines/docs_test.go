package pipelines_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
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
