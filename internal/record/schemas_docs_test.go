package record

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// keyRow is a row of the table of all keys in docs/schemas.md.
type keyRow struct {
	line    string
	natives []string // nil: no native key
	types   []string // of records; nil: all that no other row of the key names
	names   map[Schema][]string
}

var codeSpan = regexp.MustCompile("`([^`]+)`")

func codeSpans(cell string) (words []string) {
	for _, match := range codeSpan.FindAllStringSubmatch(cell, -1) {
		words = append(words, match[1])
	}
	return words
}

func schemasPage(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("../../docs/schemas.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func keyRows(t *testing.T) (rows []keyRow) {
	t.Helper()
	_, table, found := strings.Cut(schemasPage(t), "| native | in | ECS | OpenTelemetry |\n|---|---|---|---|\n")
	if !found {
		t.Fatal("docs/schemas.md has no table of keys")
	}
	for line := range strings.Lines(table) {
		cells := strings.Split(strings.Trim(line, "|\n"), "|")
		if len(cells) != 4 {
			t.Fatalf("not a row of four cells: %s", line)
		}
		row := keyRow{line: line, natives: codeSpans(cells[0]), names: map[Schema][]string{
			SchemaECS: codeSpans(cells[2]), SchemaOTel: codeSpans(cells[3]),
		}}
		if in := strings.TrimSpace(cells[1]); in != "all" {
			row.types = strings.Split(in, ", ")
		}
		rows = append(rows, row)
	}
	return rows
}

// namesOf returns the names for a native key in records of one type.
func (r *keyRow) namesOf(schema Schema, native string) []string {
	names := slices.Clone(r.names[schema])
	for i := range names {
		names[i] = strings.ReplaceAll(names[i], "KEY", native)
	}
	return names
}

// findRow returns the row of a native key in records of one type.
func findRow(rows []keyRow, recordType, native string) *keyRow {
	var all *keyRow
	for i := range rows {
		row := &rows[i]
		if !slices.Contains(row.natives, native) {
			continue
		}
		if slices.Contains(row.types, recordType) {
			return row
		}
		if row.types == nil {
			all = row
		}
	}
	return all
}

// membersOf decodes a line of a schema. The attributes of OpenTelemetry stand beside the fields of
// the log record, and an ECS label has its full name.
func membersOf(t *testing.T, line []byte) map[string]any {
	t.Helper()
	members := decodeJSON(t, line)
	for _, inner := range []struct{ key, prefix string }{{"attributes", ""}, {"labels", "labels."}} {
		object, _ := members[inner.key].(map[string]any)
		delete(members, inner.key)
		for key, value := range object {
			members[inner.prefix+key] = value
		}
	}
	return members
}

// Every native member of every golden record is where the table says, with its value, and a record
// of another schema has nothing else.
func TestSchemas_TableOfKeys(t *testing.T) {
	rows := keyRows(t)
	used := make(map[string]bool) // rows and names
	for _, schema := range []Schema{SchemaECS, SchemaOTel} {
		for recordType, cases := range goldenFiles {
			for _, c := range cases {
				native := decodeJSON(t, c.line(NewNative(nil), nil, 7))
				line := c.line(NewEncoder(schema, nil), nil, 7)
				check := keyCheck{t: t, rows: rows, schema: schema, recordType: recordType, used: used, members: membersOf(t, line)}
				check.record(native)
				if t.Failed() {
					t.Fatalf("%s, %s, %s: %s", schema, recordType, c.name, line)
				}
			}
		}
	}
	for _, row := range rows {
		for schema, names := range row.names {
			for _, name := range names {
				if !used[row.line+string(schema)+name] && !strings.HasSuffix(name, "KEY") {
					t.Errorf("no golden record of %s has %s by this row: %s", schema, name, row.line)
				}
			}
		}
		for _, native := range row.natives {
			if !used[row.line+native] {
				t.Errorf("no golden record has %s by this row: %s", native, row.line)
			}
		}
	}
}

// keyCheck compares one record with the table.
type keyCheck struct {
	t          *testing.T
	rows       []keyRow
	schema     Schema
	recordType string
	used       map[string]bool
	members    map[string]any
}

func (c *keyCheck) record(native map[string]any) {
	c.t.Helper()
	unexplained := maps.Clone(c.members)
	for key, value := range native {
		row := findRow(c.rows, c.recordType, key)
		if row == nil {
			c.t.Errorf("%s has no row", key)
			continue
		}
		c.used[row.line+key] = true
		if !c.has(row.namesOf(c.schema, key), key, value) {
			c.t.Errorf("%s is %v, and not in %v", key, value, row.namesOf(c.schema, key))
		}
		c.explain(unexplained, row, key)
	}
	for i := range c.rows {
		row := &c.rows[i]
		if row.natives == nil && (row.types == nil || slices.Contains(row.types, c.recordType)) {
			c.explain(unexplained, row, "KEY")
		}
	}
	for key := range unexplained {
		// The native record leaves a path out that the others cut.
		if key != "tcpshift.cgroup" && key != "process.linux.cgroup" {
			c.t.Errorf("no row explains %s", key)
		}
	}
}

// explain removes the members that a row names.
func (c *keyCheck) explain(members map[string]any, row *keyRow, native string) {
	for i, name := range row.namesOf(c.schema, native) {
		prefix, isPrefix := strings.CutSuffix(name, "NAME")
		for key := range members {
			if key == name || isPrefix && strings.HasPrefix(key, prefix) {
				delete(members, key)
				c.used[row.line+string(c.schema)+row.names[c.schema][i]] = true
			}
		}
	}
}

// has reports whether one of the names has the value of the native key.
func (c *keyCheck) has(names []string, native string, value any) bool {
	if native == "features" {
		return c.hasFeatures(value.(map[string]any))
	}
	for _, name := range names {
		if got, found := c.members[name]; found && c.equal(native, value, got) {
			return true
		}
	}
	return false
}

func (c *keyCheck) hasFeatures(features map[string]any) bool {
	on := 0
	for name, value := range features {
		if value == true {
			on++
			if !slices.Contains(c.members["tcpshift.features"].([]any), any(name)) {
				return false
			}
		} else if c.members["tcpshift.features_off."+name] != value {
			return false
		}
	}
	return on == len(c.members["tcpshift.features"].([]any))
}

// equal compares the value of a native key with that of another schema.
func (c *keyCheck) equal(native string, value, got any) bool {
	if number, isNumber := value.(json.Number); isNumber {
		switch got := got.(type) {
		case string: // an id
			return got == number.String()
		case json.Number:
			return strings.TrimSuffix(got.String(), ".0") == number.String()
		}
		return false
	}
	text, _ := value.(string)
	switch native {
	case "type":
		return got == "tcpshift."+text
	case "phase":
		actions := map[string]string{"open": "alert_opened", "update": "alert_updated", "close": "alert_closed"}
		if c.members["event.dataset"] == "tcpshift.connection" {
			actions = map[string]string{"update": "connection_updated", "end": "connection_ended"}
		}
		return got == text || got == actions[text]
	case "cgroup":
		end, _ := got.(string)
		return end == text || c.members["tcpshift.truncated"] == true && end != "" && strings.HasSuffix(text, end)
	case "exe": // the schemas cut it at different lengths
		end, _ := got.(string)
		return end == text || c.members["tcpshift.truncated"] == true && strings.HasSuffix(end, text)
	case "args":
		begin, _ := got.(string)
		if list, isList := got.([]any); isList {
			begin = strings.TrimSuffix(fmt.Sprintln(list...), "\n")
		}
		return begin == text || c.members["tcpshift.truncated"] == true && (strings.HasPrefix(begin, text) || strings.HasPrefix(text, begin))
	case "new_state", "final_state", "state":
		return got == text || got == conventionalStates[text]
	}
	return reflect.DeepEqual(got, value)
}

// conventionalStates are the values of network.connection.state by the kernel's names.
var conventionalStates = map[string]string{
	"ESTABLISHED": "established", "SYN_SENT": "syn_sent", "SYN_RECV": "syn_received", "FIN_WAIT1": "fin_wait_1",
	"FIN_WAIT2": "fin_wait_2", "TIME_WAIT": "time_wait", "CLOSE": "closed", "CLOSE_WAIT": "close_wait",
	"LAST_ACK": "last_ack", "LISTEN": "listen", "CLOSING": "closing",
}

// A label has the name that the table gives it, and its value.
func TestSchemas_Labels(t *testing.T) {
	for schema, prefix := range map[Schema]string{SchemaECS: "labels.", SchemaOTel: ""} {
		for _, c := range oneOfEachType() {
			members := membersOf(t, c.line(NewEncoder(schema, goldenLabels), nil, 1))
			for _, label := range goldenLabels {
				if got := members[prefix+label.Key]; got != label.Value {
					t.Errorf("%s, %s: %s is %v, want %q", schema, c.name, label.Key, got, label.Value)
				}
			}
		}
	}
}

// The examples of docs/schemas.md are what the encoders write for the examples of docs/output.md.
func TestSchemas_Examples(t *testing.T) {
	page := schemasPage(t)
	examples := regexp.MustCompile(`(?m)^\{.*\}$`).FindAllString(page, -1)
	if len(examples) != 2 {
		t.Fatalf("%d examples, want 2", len(examples))
	}
	rows := keyRows(t)
	natives := regexp.MustCompile(`(?m)^\{.*\}$`).FindAllString(sections(t)["connection"]+sections(t)["transition"], -1)
	for i, example := range examples {
		schema := []Schema{SchemaECS, SchemaOTel}[i]
		explained := false
		for _, line := range natives {
			native := decodeJSON(t, []byte(line))
			members := membersOf(t, []byte(example))
			check := keyCheck{t: t, rows: rows, schema: schema, recordType: native["type"].(string), used: map[string]bool{}, members: members}
			if check.has([]string{"event.sequence", "tcpshift.seq"}, "seq", native["seq"]) {
				check.record(native)
				explained = true
			}
		}
		if !explained {
			t.Errorf("docs/output.md has no example for %s", example)
		}
	}
}

// The page says what the encoders are made for.
func TestSchemas_Versions(t *testing.T) {
	page := schemasPage(t)
	if !strings.Contains(page, "Elastic Common Schema "+ECSVersion) {
		t.Errorf("docs/schemas.md does not name version %s of ECS", ECSVersion)
	}
	for _, s := range Schemas() {
		if !strings.Contains(page, "| `"+string(s)+"` |") {
			t.Errorf("docs/schemas.md does not describe %s", s)
		}
	}
}

// The table of docs/schemas.md has the categories of each type as the golden records have them.
func TestSchemas_Categories(t *testing.T) {
	page := schemasPage(t)
	for recordType, lines := range goldenLinesOf(t, SchemaECS) {
		for _, line := range lines {
			members := membersOf(t, []byte(line))
			title, kinds := recordType, members["event.type"].([]any)
			if recordType == "transition" {
				title = "other transition"
				if slices.Contains(kinds, any("start")) {
					title = "transition to `ESTABLISHED`"
				}
			}
			if members["event.action"] == "connection_updated" {
				title = "connection that lives"
			}
			_, row, found := strings.Cut(page, "\n| "+title+" | ")
			row, _, _ = strings.Cut(row, "\n")
			values := append(slices.Clone(kinds), members["event.kind"], members["event.action"])
			for _, value := range append(values, members["event.category"].([]any)...) {
				if !found || !strings.Contains(row, "`"+value.(string)+"`") {
					t.Errorf("%s: the row %q does not have %v", title, row, value)
				}
			}
		}
	}
}
