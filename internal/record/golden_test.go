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

// Each encoder encodes each record as the golden files have it.
func TestEncoder_GoldenFiles(t *testing.T) {
	var files []string
	for name, cases := range goldenFiles {
		checkGolden(t, name+".txt", Text{}, cases)
		files = append(files, name+".txt")
	}
	for _, schema := range Schemas() {
		dir := goldenDir(schema)
		for name, cases := range goldenFiles {
			file := filepath.Join(dir, name+".ndjson")
			checkGolden(t, file, NewEncoder(schema, nil), cases)
			files = append(files, file)
		}
		file := filepath.Join(dir, "labels.ndjson")
		checkGolden(t, file, NewEncoder(schema, goldenLabels), oneOfEachType())
		files = append(files, file)
	}

	slices.Sort(files)
	if got := goldenNames(t); !slices.Equal(got, files) {
		t.Errorf("testdata holds %v, want %v", got, files)
	}
}

// goldenDir is the directory of a schema in testdata. That of the native one is testdata itself.
func goldenDir(schema Schema) string {
	if schema == SchemaNative {
		return ""
	}
	return string(schema)
}

// oneOfEachType is the first case of every golden file.
func oneOfEachType() []goldenCase {
	var cases []goldenCase
	for _, name := range slices.Sorted(maps.Keys(goldenFiles)) {
		cases = append(cases, goldenFiles[name][0])
	}
	return cases
}

// goldenNames are the files in testdata and in the directories of the schemas.
func goldenNames(t *testing.T) []string {
	t.Helper()
	var names []string
	for _, dir := range []string{"", string(SchemaECS), string(SchemaOTel)} {
		entries, err := os.ReadDir(filepath.Join("testdata", dir))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if !e.IsDir() && e.Name() != ecsFieldList {
				names = append(names, filepath.Join(dir, e.Name()))
			}
		}
	}
	slices.Sort(names)
	return names
}

func checkGolden(t *testing.T, file string, e Encoder, cases []goldenCase) {
	t.Helper()
	var all []byte
	var names []string // of each line's case
	for i, c := range cases {
		before := len(all)
		all = c.line(e, all, uint64(i+1))
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

// goldenLines are the lines of all native NDJSON files except labels.ndjson.
func goldenLines(t *testing.T) map[string][]string {
	t.Helper()
	return goldenLinesOf(t, SchemaNative)
}

// goldenLinesOf are the lines of all files of a schema except labels.ndjson.
func goldenLinesOf(t *testing.T, schema Schema) map[string][]string {
	t.Helper()
	lines := make(map[string][]string)
	for name := range goldenFiles {
		b, err := os.ReadFile(filepath.Join("testdata", goldenDir(schema), name+".ndjson"))
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

// An encoder appends to dst and leaves what is in it.
func TestEncoder_Appends(t *testing.T) {
	for _, e := range []Encoder{NewNative(nil), NewECS(nil), NewOTel(nil), Text{}} {
		for _, c := range oneOfEachType() {
			for _, encode := range []func(dst []byte) []byte{
				func(dst []byte) []byte { return c.encode(e, dst) }, func(dst []byte) []byte { return c.line(e, dst, 1) },
			} {
				alone := encode(nil)
				if got, want := string(encode([]byte("before\n"))), "before\n"+string(alone); got != want {
					t.Errorf("%T, %s: got %q, want %q", e, c.name, got, want)
				}
			}
		}
	}
}

// A record encoded with its number is the shared line with that number added.
func TestEncoder_SeqAddedLater(t *testing.T) {
	for _, e := range []Encoder{NewNative(goldenLabels), NewECS(goldenLabels), NewOTel(goldenLabels), Text{}} {
		for _, cases := range goldenFiles {
			for _, c := range cases {
				for _, seq := range []uint64{1, 10, 123_456_789, 1<<64 - 1} {
					e.SetSeq(0)
					line := c.encode(e, nil)
					shared := e.WithSeq([]byte("before\n"), line, seq)
					e.SetSeq(seq)
					if own := c.encode(e, []byte("before\n")); string(own) != string(shared) {
						t.Errorf("%T, %s, seq %d:\nencoded with it %s\nadded later     %s", e, c.name, seq, own, shared)
					}
				}
			}
		}
	}
}
