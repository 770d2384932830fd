package record

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// sections are those of docs/output.md, by their titles.
func sections(t *testing.T) map[string]string {
	t.Helper()
	b, err := os.ReadFile("../../docs/output.md")
	if err != nil {
		t.Fatal(err)
	}
	parts := make(map[string]string)
	for part := range strings.SplitSeq(string(b), "\n## ") {
		title, text, _ := strings.Cut(part, "\n")
		parts[title] = text
	}
	return parts
}

func TestTheDocumentationHasATableOfEachRecordsKeysInTheirOrder(t *testing.T) {
	parts := sections(t)
	// The first column of a row: | `local_addr` `local_port` | ...
	row := regexp.MustCompile("(?m)^\\| ((?:`[a-z_]+` ?)+)\\|")
	for name, cases := range goldenFiles {
		var documented []string
		for _, match := range row.FindAllStringSubmatch(parts[name], -1) {
			documented = append(documented, strings.Fields(strings.ReplaceAll(match[1], "`", ""))...)
		}
		for _, c := range cases {
			keys := keysOf(t, c.encode(NewNDJSON(nil), nil, 1))
			if name == "stop" { // refers to stats for them
				keys = keys[:slices.Index(keys, "seen")]
			}
			at := 0
			for _, key := range keys {
				next := slices.Index(documented[at:], key)
				if next < 0 {
					t.Errorf("%s, %s: %q is not documented where it stands among %v:\n%v", name, c.name, key, keys, documented)
					break
				}
				at += next + 1
			}
		}
		for _, key := range documented {
			if isOther := slices.Contains([]string{"ring_full", "ring_busy", "reentry"}, key); isOther {
				continue // the table of causes
			}
			if _, found := readSchema(t, name).Properties[key]; !found {
				t.Errorf("%s: %q is documented and not in the schema", name, key)
			}
		}
	}
}

func TestTheExamplesOfTheDocumentationAreValid(t *testing.T) {
	all, parts := schemas(t), sections(t)
	for name := range goldenFiles {
		examples := regexp.MustCompile(`(?m)^\{.*\}$`).FindAllString(parts[name], -1)
		if len(examples) == 0 {
			t.Errorf("%s has no example", name)
		}
		for _, line := range examples {
			if err := validate(t, all, line); err != nil {
				t.Errorf("%v\n%s", err, line)
			}
			if got := decodeJSON(t, []byte(line))["type"]; got != name {
				t.Errorf("an example of %s is of type %v", name, got)
			}
		}
	}
}
