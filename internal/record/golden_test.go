package record

import (
	"flag"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files instead of comparing with them")

func TestRecordsAreTheGoldenOnes(t *testing.T) {
	var files []string
	for name, cases := range goldenFiles {
		checkGolden(t, name+".ndjson", NewNDJSON(nil), cases)
		checkGolden(t, name+".txt", Text{}, cases)
		files = append(files, name+".ndjson", name+".txt")
	}
	checkGolden(t, "labels.ndjson", NewNDJSON(goldenLabels), oneOfEachType())
	files = append(files, "labels.ndjson")

	slices.Sort(files)
	if got := goldenNames(t); !slices.Equal(got, files) {
		t.Errorf("testdata holds %v, want %v", got, files)
	}
}

// oneOfEachType is the first case of every golden file.
func oneOfEachType() []goldenCase {
	var cases []goldenCase
	for _, name := range slices.Sorted(maps.Keys(goldenFiles)) {
		cases = append(cases, goldenFiles[name][0])
	}
	return cases
}

// goldenNames leaves out the directories: testdata/fuzz is the fuzzer's.
func goldenNames(t *testing.T) []string {
	t.Helper()
	entries, err := os.ReadDir("testdata")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		if !e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names
}

func checkGolden(t *testing.T, file string, e Encoder, cases []goldenCase) {
	t.Helper()
	var all []byte
	var names []string // of each line's case
	for i, c := range cases {
		before := len(all)
		all = c.encode(e, all, uint64(i+1))
		for range strings.Count(string(all[before:]), "\n") {
			names = append(names, c.name)
		}
	}
	path := filepath.Join("testdata", file)
	if *update {
		if err := os.WriteFile(path, all, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	golden, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v; 'go test -update' writes it", err)
	}
	got, want := strings.SplitAfter(string(all), "\n"), strings.SplitAfter(string(golden), "\n")
	if len(got) != len(want) {
		t.Errorf("%s: %d lines are encoded, want %d", file, len(got)-1, len(want)-1)
	}
	for i := range min(len(got), len(want)) {
		if got[i] != want[i] {
			t.Errorf("%s, line %d, %s:\ngot  %swant %s", file, i+1, names[min(i, len(names)-1)], got[i], want[i])
		}
	}
}

// goldenLines gives the lines of all the NDJSON files but that of the labels.
func goldenLines(t *testing.T) map[string][]string {
	t.Helper()
	lines := make(map[string][]string)
	for name := range goldenFiles {
		b, err := os.ReadFile(filepath.Join("testdata", name+".ndjson"))
		if err != nil {
			t.Fatal(err)
		}
		lines[name] = slices.Collect(strings.Lines(string(b)))
		if len(lines[name]) == 0 {
			t.Fatalf("testdata/%s.ndjson is empty", name)
		}
	}
	return lines
}

func TestAnEncoderAppendsToWhatIsThere(t *testing.T) {
	for _, e := range []Encoder{NewNDJSON(nil), Text{}} {
		for _, c := range oneOfEachType() {
			alone := c.encode(e, nil, 1)
			if got, want := string(c.encode(e, []byte("before\n"), 1)), "before\n"+string(alone); got != want {
				t.Errorf("%T, %s: got %q, want %q", e, c.name, got, want)
			}
		}
	}
}
