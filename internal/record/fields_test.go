package record

import (
	"bytes"
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// alwaysKept are the members that every record of a schema keeps.
var alwaysKept = map[Schema][]string{
	SchemaNative: {"type", "time", "seq", "cluster", "note", "empty"},
	SchemaECS:    {"@timestamp", "event.sequence", "event.dataset", "ecs.version", "labels.cluster", "labels.note", "labels.empty"},
	SchemaOTel:   {"timestamp", "event_name", "tcpshift.seq", "cluster", "note", "empty"},
}

// keyOrder are the keys of a line in their order, those of attributes without the object.
func keyOrder(t *testing.T, line []byte) (keys []string) {
	t.Helper()
	members := membersOf(t, line)
	decoder := json.NewDecoder(bytes.NewReader(line))
	for {
		token, err := decoder.Token()
		if err != nil {
			return keys
		}
		if key, isString := token.(string); isString && members[key] != nil && !slices.Contains(keys, key) {
			keys = append(keys, key)
		}
	}
}

// A record with a choice of keys has those members of the whole record that are chosen or that all
// records have, with their values and in their order.
func TestFields_MembersOfTheWholeRecord(t *testing.T) {
	for _, schema := range Schemas() {
		known := fieldNames(schema)
		choices := [][]string{nil, known}
		for i := range 7 { // each key alone with others that stand beside it and far away
			var some []string
			for n, key := range known {
				if n%7 == i || n%11 == i {
					some = append(some, key)
				}
			}
			choices = append(choices, some)
		}
		for _, fields := range choices {
			if err := CheckFields(schema, nil, fields); err != nil {
				t.Fatal(err)
			}
			whole, part := NewEncoder(schema, goldenLabels), WithFields(NewEncoder(schema, goldenLabels), schema, goldenLabels, fields)
			kept := append(slices.Clone(alwaysKept[schema]), fields...)
			for _, cases := range goldenFiles {
				for _, c := range cases {
					checkFields(t, c.line(whole, nil, 7), c.line(part, nil, 7), kept)
				}
			}
		}
	}
}

func checkFields(t *testing.T, whole, line []byte, kept []string) {
	t.Helper()
	isKept := func(key string) bool {
		return slices.Contains(kept, key) || slices.Contains(kept, featuresOffKey) && strings.HasPrefix(key, featuresOffKey+".")
	}
	want := maps.Clone(membersOf(t, whole))
	maps.DeleteFunc(want, func(key string, _ any) bool { return !isKept(key) })
	if got := membersOf(t, line); !reflect.DeepEqual(got, want) {
		t.Fatalf("keys %v:\n%sbecomes\n%s", kept, whole, line)
	}
	order := slices.DeleteFunc(keyOrder(t, whole), func(key string) bool { return !isKept(key) })
	if got := keyOrder(t, line); !slices.Equal(got, order) {
		t.Errorf("the order is %v, want %v", got, order)
	}
}

// A choice of keys leaves what is before the record, and a number that is added later stands where
// it would have stood.
func TestFields_AppendsAndNumbers(t *testing.T) {
	for _, schema := range Schemas() {
		for _, fields := range [][]string{nil, {fieldNames(schema)[0]}, fieldNames(schema)} {
			e := WithFields(NewEncoder(schema, nil), schema, nil, fields)
			for _, cases := range goldenFiles {
				for _, c := range cases {
					e.SetSeq(0)
					line := c.encode(e, []byte("before\n"))
					added := e.WithSeq([]byte("before\n"), bytes.TrimPrefix(line, []byte("before\n")), 12)
					e.SetSeq(12)
					if own := c.encode(e, []byte("before\n")); string(own) != string(added) {
						t.Errorf("%s, %v:\nencoded with it %s\nadded later     %s", schema, fields, own, added)
					}
				}
			}
			e.SetSeq(0)
		}
	}
}

// The origin of an output stays, as its labels do.
func TestFields_OriginStays(t *testing.T) {
	for _, schema := range Schemas() {
		whole, part := NewEncoder(schema, nil), WithFields(NewEncoder(schema, nil), schema, nil, nil)
		for _, e := range []SocketEncoder{whole, part} {
			e.(OriginEncoder).AddOrigin("web-1", "2e8ec3c7")
		}
		kept := slices.Concat(alwaysKept[schema], namesOf(schema, "host"), namesOf(schema, "boot_id"))
		for _, c := range oneOfEachType() {
			checkFields(t, c.line(whole, nil, 7), c.line(part, nil, 7), kept)
		}
	}
}

// Every key of every golden record can be chosen, and what docs/schemas.md calls a native key is
// what can be chosen for it.
func TestFields_EveryKeyIsKnown(t *testing.T) {
	for _, schema := range Schemas() {
		known := fieldNames(schema)
		for recordType, lines := range goldenLinesOf(t, schema) {
			for _, line := range lines {
				for key := range membersOf(t, []byte(line)) {
					if key, _, _ = strings.Cut(key, featuresOffKey+"."); key != "" && !slices.Contains(known, key) {
						t.Errorf("%s, %s: %s cannot be chosen", schema, recordType, key)
					}
				}
			}
		}
		if schema == SchemaNative {
			continue
		}
		for _, row := range keyRows(t) {
			for _, native := range row.natives {
				documented := row.namesOf(schema, native)
				for _, name := range documented {
					name = strings.TrimSuffix(name, ".NAME")
					if !slices.Contains(known, name) {
						t.Errorf("%s: %s cannot be chosen", schema, name)
					}
				}
				if names := namesOf(schema, native); row.types == nil && !slices.Contains(documented, names[0]) {
					t.Errorf("%s: %s is called %v, and %v in docs/schemas.md", schema, native, names, documented)
				}
			}
		}
	}
}

// An unknown key is refused with the nearest one.
func TestFields_Nearest(t *testing.T) {
	for _, tt := range []struct {
		schema    Schema
		word, has string
	}{
		{SchemaNative, "closedby", "closed_by"},
		{SchemaNative, "Conn", "conn"},
		{SchemaNative, "process.pid", "pid"},
		{SchemaNative, "remote_addr", "peer_addr"},
		{SchemaNative, "", "exe"},
		{SchemaECS, "comm", "process.name"},
		{SchemaECS, "closed_by", "tcpshift.closed_by"},
		{SchemaECS, "source.port", ""},
		{SchemaECS, "source.prt", "source.port"},
		{SchemaECS, "tcpshift.pid", "process.pid"},
		{SchemaOTel, "time", "timestamp"},
		{SchemaOTel, "k8s.pod", "k8s.pod.uid"},
		{SchemaNative, "cluster", ""},
	} {
		err := CheckFields(tt.schema, goldenLabels, []string{tt.word})
		if tt.has == "" {
			if err != nil {
				t.Errorf("%s, %q: %v", tt.schema, tt.word, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), "such as "+tt.has+",") {
			t.Errorf("%s, %q: %v, want %s", tt.schema, tt.word, err, tt.has)
		}
	}
}
