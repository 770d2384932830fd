package fleet_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The schemas in deploy/fleet are those that Command ddl writes.
func TestSchema_IsCurrent(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"fleet", "pipelines"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("go", "run", "../../deploy/fleet/ddl", filepath.Join(dir, "fleet"))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, name := range []string{"fleet/modern.sql", "fleet/legacy.sql", "fleet/distributed.sql", "pipelines/clickhouse.sql"} {
		if readFile(t, filepath.Join(dir, name)) != readFile(t, "../../deploy/"+name) {
			t.Errorf("deploy/%s is not current: go generate ./deploy/fleet/ddl", name)
		}
	}
}

// leftOut are the keys that no table has, and why.
var leftOut = map[string]string{
	"lost_time_wait_ends": "transitions are not loaded",
	"lost_summaries":      "summaries are not loaded",
}

// Every key of the records that are loaded is a column of the schema, and the other way round. The columns can hold
// the values of all records, also of those that no table takes, so that loading a stream of all types never fails.
func TestSchema_EveryKey(t *testing.T) {
	types := recordColumns(t, readFile(t, filepath.Join(fleetDir, "legacy.sql")))
	files, err := filepath.Glob("../../docs/schema/*.json")
	if err != nil || len(files) < 10 {
		t.Fatalf("schemas of records: %v %v", files, err)
	}
	known := make(map[string]bool)
	for _, file := range files {
		record := strings.TrimSuffix(filepath.Base(file), ".json")
		if record == "config" { // it is of no record
			continue
		}
		isLoaded := record == "connection" || record == "alert" || record == "loss"
		for name, kind := range schemaKeys(t, file) {
			known[name] = known[name] || isLoaded
			column, found := types[name]
			if !found {
				if isLoaded && leftOut[name] == "" {
					t.Errorf("%s: no column for %s", record, name)
				}
				continue
			}
			fits := map[string]string{"string": "String", "integer": "Int", "number": "Float", "boolean": "UInt8"}[kind]
			if !strings.Contains(column, fits) {
				t.Errorf("%s: %s is a %s, and its column a %s", record, name, kind, column)
			}
		}
	}
	for name := range types {
		if !known[name] {
			t.Errorf("no record that is loaded has the column %s", name)
		}
	}
}

// recordColumns returns the types of the columns of the table records.
func recordColumns(t *testing.T, schema string) map[string]string {
	t.Helper()
	_, text, _ := strings.Cut(schema, "tcpshift.records (\n")
	text, _, _ = strings.Cut(text, "\n)")
	types := make(map[string]string)
	for _, match := range regexp.MustCompile(`(?m)^    (\w+) (\S+?),?$`).FindAllStringSubmatch(text, -1) {
		types[match[1]] = match[2]
	}
	if len(types) < 50 {
		t.Fatalf("found only %d columns", len(types))
	}
	return types
}

// schemaKeys returns the types of the keys of a record, from a file of docs/schema.
func schemaKeys(t *testing.T, file string) map[string]string {
	t.Helper()
	var schema struct {
		Properties map[string]struct {
			Type  string
			Const any
			Ref   string `json:"$ref"`
		}
	}
	if err := json.Unmarshal([]byte(readFile(t, file)), &schema); err != nil {
		t.Fatal(err)
	}
	keys := make(map[string]string)
	for name, property := range schema.Properties {
		switch {
		case property.Type != "":
			keys[name] = property.Type
		case property.Const == true:
			keys[name] = "boolean"
		case property.Const == 1.0:
			keys[name] = "integer"
		default: // a constant string, or a state
			keys[name] = "string"
		}
	}
	return keys
}
