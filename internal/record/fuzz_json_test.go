package record

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

func FuzzRecordsAgainstEncodingJSON(f *testing.F) {
	plain, labels := NewNative(nil), longestLabels(f)
	labelled := NewNative(labels)
	withLabels := referenceLabels{labels[0].Value, labels[1].Value}
	fuzzRecords(f, func(t *testing.T, v *fuzzed) {
		event, socket := v.transition(), v.socket()
		end := v.connection(&event)
		transition, connection := transitionReference(v.seq, &event), connectionReference(v.seq, &event, &end)
		listed := socketReference(v.seq, &socket)
		checkAgainst(t, plain.WithSeq(nil, plain.Transition(nil, &event), v.seq), transition)
		checkAgainst(t, plain.WithSeq(nil, plain.Connection(nil, &event, &end), v.seq), connection)
		checkAgainst(t, plain.WithSeq(nil, plain.Socket(nil, &socket), v.seq), listed)
		transition.referenceLabels, connection.referenceLabels, listed.referenceLabels = withLabels, withLabels, withLabels
		checkAgainst(t, labelled.WithSeq(nil, labelled.Transition(nil, &event), v.seq), transition)
		checkAgainst(t, labelled.WithSeq(nil, labelled.Connection(nil, &event, &end), v.seq), connection)
		checkAgainst(t, labelled.WithSeq(nil, labelled.Socket(nil, &socket), v.seq), listed)
	})
}

// A line of another schema is valid whatever its values are, and no key comes twice.
func FuzzOtherSchemas(f *testing.F) {
	labels := longestLabels(f)
	encoders := []SocketEncoder{NewECS(nil), NewECS(labels), NewOTel(nil), NewOTel(labels)}
	fuzzRecords(f, func(t *testing.T, v *fuzzed) {
		event, socket := v.transition(), v.socket()
		end := v.connection(&event)
		for _, e := range encoders {
			for _, line := range [][]byte{e.Transition(nil, &event), e.Connection(nil, &event, &end), e.Socket(nil, &socket)} {
				line = e.WithSeq(nil, line, v.seq)
				checkLine(t, line, SchemaECS.MaxLine())
				decodeJSON(t, line)
				if keys := keysOf(t, line); slices.Contains(keys, "attributes") {
					keysOf(t, memberOf(t, line, "attributes"))
				}
			}
		}
	})
}

// memberOf returns the value of one member of an object.
func memberOf(t *testing.T, object []byte, key string) []byte {
	t.Helper()
	var members map[string]json.RawMessage
	if err := json.Unmarshal(object, &members); err != nil {
		t.Fatalf("%v in %q", err, object)
	}
	return members[key]
}

func checkAgainst(t *testing.T, line []byte, want any) {
	t.Helper()
	checkLine(t, line, MaxLine)
	byEncodingJSON, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := decodeJSON(t, line), decodeJSON(t, byEncodingJSON); !reflect.DeepEqual(got, want) {
		t.Fatalf("the line decodes into %v, want %v\n%s", got, want, line)
	}
	if got, want := keysOf(t, line), keysOf(t, byEncodingJSON); !reflect.DeepEqual(got, want) {
		t.Fatalf("the keys are %v, want %v", got, want)
	}
}

// checkLine checks what every NDJSON line must fulfil.
func checkLine(t *testing.T, line []byte, maxBytes int) {
	t.Helper()
	text, ended := strings.CutSuffix(string(line), "\n")
	switch {
	case !ended || strings.Contains(text, "\n"):
		t.Fatalf("not one line: %q", line)
	case len(line) > maxBytes:
		t.Fatalf("a line of %d bytes, want %d at most", len(line), maxBytes)
	case !utf8.Valid(line):
		t.Fatalf("a line that is not UTF-8: %q", line)
	}
	for _, r := range text {
		if !isVisible(r) {
			t.Fatalf("%U stands in a line: %q", r, line)
		}
	}
}

func decodeJSON(t *testing.T, b []byte) map[string]any {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(string(b)))
	d.UseNumber() // a float64 would lose the last digits
	var m map[string]any
	if err := d.Decode(&m); err != nil {
		t.Fatalf("%v in %q", err, b)
	}
	return m
}

// keysOf returns the keys of an object in their order, without those of objects in it. It
// fails if a key is there twice, which encoding/json accepts.
func keysOf(t *testing.T, object []byte) []string {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(string(object)))
	if _, err := d.Token(); err != nil {
		t.Fatalf("%v in %q", err, object)
	}
	var keys []string
	seen := make(map[string]bool)
	for d.More() {
		token, err := d.Token()
		if err != nil {
			t.Fatalf("%v in %q", err, object)
		}
		key := token.(string)
		if seen[key] {
			t.Fatalf("the key %q comes twice in %q", key, object)
		}
		seen[key] = true
		keys = append(keys, key)
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			t.Fatalf("%v in %q", err, object)
		}
	}
	return keys
}
