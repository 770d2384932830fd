package pipelines_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

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

// What the rotation of an example must keep at least, so that its consumer may be away for a while.
const (
	keptAge  = 24 * time.Hour
	keptSize = 16 << 10 // MiB
)

// rotation matches the rotation of a file in a command.
var rotation = regexp.MustCompile(`rotate-(size|age)=([0-9]+)(MiB|[smh])(?:&rotate-keep=([0-9]+))?`)

// TestExamples_KeepFiles shows that rotation does not remove what a consumer has not read yet: the commands of the
// examples, and those of the pages, which are the same.
func TestExamples_KeepFiles(t *testing.T) {
	examples := must(filepath.Glob(examplesDir + "/*"))
	count := 0
	for _, name := range append(examples, "../../deploy/fleet/load.sh", "../../docs/pipelines.md", "../../docs/fleet.md") {
		for _, match := range rotation.FindAllStringSubmatch(readText(name), -1) {
			count++
			files, _ := strconv.Atoi(match[4]) // 0: not said
			switch size, _ := strconv.Atoi(match[2]); match[1] {
			case "size":
				if match[3] != "MiB" || size*files < keptSize {
					t.Errorf("%s: %s keeps less than %d MiB", name, match[0], keptSize)
				}
			case "age":
				if age := must(time.ParseDuration(match[2] + match[3])); age*time.Duration(files) < keptAge {
					t.Errorf("%s: %s keeps less than %v", name, match[0], keptAge)
				}
			}
		}
	}
	if count < 10 {
		t.Errorf("only %d rotations", count)
	}
}

// TestExamples_CommandsInPage shows that docs/pipelines.md has each command of an example as the example has it.
func TestExamples_CommandsInPage(t *testing.T) {
	page := readText("../../docs/pipelines.md")
	for _, name := range must(filepath.Glob(examplesDir + "/*")) {
		text := readText(name)
		if strings.Contains(text, notRun) {
			continue
		}
		for _, match := range commandLine.FindAllStringSubmatch(text, -1) {
			if query := strings.HasPrefix(match[1], "{"); !query && !strings.Contains(page, "\n"+match[1]+"\n") {
				t.Errorf("docs/pipelines.md does not have the command of %s:\n%s", name, match[1])
			}
		}
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
