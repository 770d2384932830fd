package record

import (
	"encoding/json"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// sections are the sections of docs/output.md by their titles.
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

// keyTable returns the keys of the first table of a section, in their order.
func keyTable(t *testing.T, section string) (keys []string) {
	t.Helper()
	_, table, found := strings.Cut(section, "| key | type | meaning |\n")
	if !found {
		t.Fatal("there is no table of keys")
	}
	table, _, _ = strings.Cut(table, "\n\n")
	// The first column of a row: | `local_addr` `local_port` | ...
	row := regexp.MustCompile("(?m)^\\| ((?:`[a-z0-9_]+` ?)+)\\|")
	for _, match := range row.FindAllStringSubmatch(table, -1) {
		keys = append(keys, strings.Fields(strings.ReplaceAll(match[1], "`", ""))...)
	}
	return keys
}

// docs/output.md has a table with the keys of each record, in the order of the record.
func TestDocs_KeyTables(t *testing.T) {
	parts := sections(t)
	for name, cases := range goldenFiles {
		documented := keyTable(t, parts[name])
		for _, c := range cases {
			keys := keysOf(t, c.line(NewNative(nil), nil, 1))
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
			if _, found := readSchema(t, name).Properties[key]; !found {
				t.Errorf("%s: %q is documented and not in the schema", name, key)
			}
		}
		for key := range readSchema(t, name).Properties {
			if !slices.Contains(documented, key) && name != "stop" && !slices.Contains(originKeys, key) {
				t.Errorf("%s: %q is in the schema and not documented", name, key)
			}
		}
	}
}

// The values of a key are as much of the interface as the key.
// docs/output.md names every value that the schemas allow.
func TestDocs_Values(t *testing.T) {
	parts := sections(t)
	for name := range goldenFiles {
		for key, raw := range readSchema(t, name).Properties {
			var property struct {
				Enum       []string
				Properties map[string]any // those of features
			}
			if err := json.Unmarshal(raw, &property); err != nil {
				continue // its values are not strings
			}
			for _, value := range append(property.Enum, slices.Collect(maps.Keys(property.Properties))...) {
				// The section of transition describes what the others share with it.
				if !strings.Contains(parts[name]+parts["transition"], "`"+value+"`") {
					t.Errorf("%s: that %s may be %q is not documented", name, key, value)
				}
			}
		}
	}
}

// docs/output.md names every record type that --only accepts.
func TestDocs_OnlyTypes(t *testing.T) {
	all := sections(t)["Commands"]
	for _, recordType := range SelectableTypes() {
		if !strings.Contains(all, "`"+recordType+"`") {
			t.Errorf("--only %s is not documented", recordType)
		}
	}
}

// The examples of docs/output.md are valid by the schemas.
func TestDocs_ExamplesAreValid(t *testing.T) {
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
