package main

import (
	"bytes"
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"github.com/tcpshift/tcpshift/internal/config"
	"github.com/tcpshift/tcpshift/internal/record"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

const configSchemaPath = "../../docs/schema/config.json"

// docs/schema/config.json is what follows from the flags, and from the options of an output.
func TestConfigSchema_Current(t *testing.T) {
	want := configSchema(t, traceFlags()).text(t)
	if *update {
		if err := os.WriteFile(configSchemaPath, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := os.ReadFile(configSchemaPath); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s is old: run go test ./cmd/tcpshift -run TestConfigSchema_Current -update (%v)", configSchemaPath, err)
	}
}

// schemaNode is a part of a JSON Schema. A keyword has no effect on values of types that it is not about, so one node
// can be about a list and a single value.
type schemaNode struct {
	Dialect     string                 `json:"$schema,omitempty"`
	ID          string                 `json:"$id,omitempty"`
	Title       string                 `json:"title,omitempty"`
	Description string                 `json:"description,omitempty"`
	Ref         string                 `json:"$ref,omitempty"`
	Type        []string               `json:"type,omitempty"`
	Enum        []any                  `json:"enum,omitempty"`
	Pattern     string                 `json:"pattern,omitempty"`
	MinLength   int                    `json:"minLength,omitempty"` // characters
	MaxLength   int                    `json:"maxLength,omitempty"`
	Minimum     *int                   `json:"minimum,omitempty"`
	Maximum     *int                   `json:"maximum,omitempty"`
	Items       *schemaNode            `json:"items,omitempty"`
	Default     any                    `json:"default,omitempty"`
	Properties  map[string]*schemaNode `json:"properties,omitempty"`
	Required    []string               `json:"required,omitempty"`
	Others      *bool                  `json:"additionalProperties,omitempty"`
	AnyOf       []*schemaNode          `json:"anyOf,omitempty"`
	If          *schemaNode            `json:"if,omitempty"`
	Then        *schemaNode            `json:"then,omitempty"`
	Defs        map[string]*schemaNode `json:"$defs,omitempty"`
}

// shortList matches a list without other lists and maps in it.
var shortList = regexp.MustCompile(`\[\n[^\[\]{}]*?\n *\]`)

// text is the schema as a file, with short lists on one line.
func (n *schemaNode) text(t *testing.T) []byte {
	t.Helper()
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(n); err != nil {
		t.Fatal(err)
	}
	return shortList.ReplaceAllFunc(b.Bytes(), func(list []byte) []byte {
		line := bytes.Join(bytes.Fields(list), []byte(" "))
		return bytes.ReplaceAll(bytes.ReplaceAll(line, []byte("[ "), []byte("[")), []byte(" ]"), []byte("]"))
	})
}

// configSchema is the schema of a configuration file.
func configSchema(t *testing.T, flags *pflag.FlagSet) *schemaNode {
	t.Helper()
	top := &schemaNode{
		Dialect:     "https://json-schema.org/draft/2020-12/schema",
		ID:          "https://github.com/tcpshift/tcpshift/docs/schema/config.json",
		Title:       "configuration of tcpshift",
		Description: "A configuration file of tcpshift: the file of --config, and the files of its directory. A key without a value has its default.",
		Type:        []string{"object", "null"},
		Properties:  make(map[string]*schemaNode),
		Others:      new(bool),
	}
	for _, k := range keysOf(flags) {
		f := flags.Lookup(flagOf(k.Name))
		var n *schemaNode
		if k.Kind == config.Items {
			top.Defs = map[string]*schemaNode{"output": outputSchema(t, k.Members)}
			output := &schemaNode{Ref: "#/$defs/output"}
			n = &schemaNode{
				Type: []string{"array", "object", "string", "null"}, Items: output,
				If: &schemaNode{Type: []string{"object", "string"}}, Then: output,
			}
		} else {
			n = wordsOf(t, kindOf(f)).node(k.Kind)
		}
		n.Description, n.Default = f.Usage, defaultValue(f)
		top.Properties[k.Name] = n
	}
	return top
}

// defaultValue is the default of a flag, as a value of JSON; nil: it has none.
func defaultValue(f *pflag.Flag) any {
	text := defaultOf(f)
	var value any
	switch {
	case text == "" || strings.Contains(text, " "): // none, or in words
		return nil
	case json.Unmarshal([]byte(text), &value) == nil: // a number or a truth value
		return value
	}
	return text
}

// kindOf is the kind of a flag's values.
func kindOf(f *pflag.Flag) string {
	if f.Name == "min-bytes" {
		return "BYTES"
	}
	return f.Value.Type()
}

// optionKinds are the kinds of the values of an output's options.
var optionKinds = map[string]string{
	"format": "FORMAT", "schema": "SCHEMA", "only": "TYPE,...", "fields": "KEY,...", "queue": "SIZE", "name": "OUTPUT", "host": "bool",
	"ca": "FILE", "cert": "FILE", "key": "FILE", "servername": "FILE", "mode": "MODE",
	"rotate-size": "SIZE", "rotate-age": "D", "rotate-keep": "N", "compress": "COMPRESSION",
}

// outputSchema is the schema of one output: a mapping with these keys, or a text as --output has it.
func outputSchema(t *testing.T, members []string) *schemaNode {
	t.Helper()
	target := func() *schemaNode {
		return &schemaNode{
			Type: []string{"string"}, MinLength: 1,
			If:   &schemaNode{Pattern: schemePattern.String()},
			Then: &schemaNode{Pattern: "^(" + alternatives(schemes) + "):"},
		}
	}
	n := target()
	n.Description = "an output: its target and its options, or both in one text as --output takes it"
	n.Type = []string{"object", "string"}
	n.Required, n.Others, n.Properties = []string{keyTarget}, new(bool), make(map[string]*schemaNode)
	meanings := optionMeanings(t)
	for _, name := range members {
		if name == keyTarget {
			n.Properties[name] = target()
			n.Properties[name].Description = "where the records go: -, a path, or a URL"
			continue
		}
		kind := config.Single
		if strings.HasSuffix(optionKinds[name], ",...") {
			kind = config.List
		}
		n.Properties[name] = wordsOf(t, optionKinds[name]).node(kind)
		if n.Properties[name].Description = meanings[name]; meanings[name] == "" {
			t.Errorf("docs/output.md does not describe the option %s of an output", name)
		}
	}
	return n
}

// optionMeanings are the descriptions of the options of an output in docs/output.md.
func optionMeanings(t *testing.T) map[string]string {
	t.Helper()
	_, table, _ := strings.Cut(documentation(t), "\n| option | meaning | default |\n")
	table, _, _ = strings.Cut(table, "\n\n")
	link := regexp.MustCompile(`\[([^\]]*)\]\([^)]*\)`)
	meanings := make(map[string]string)
	for row := range strings.SplitSeq(table, "\n") {
		cells := strings.Split(row, " | ")
		for _, name := range regexp.MustCompile("`[^`]*`").FindAllString(cells[0], -1) {
			meanings[strings.Trim(name, "`")] = strings.ReplaceAll(link.ReplaceAllString(cells[1], "$1"), "`", "")
		}
	}
	return meanings
}

// words are the values of a flag that are written without a comma.
type words struct {
	types     []string
	values    []string // the only ones, as they are shown; nil: any that match
	pattern   string   // what a text matches as a whole; "": any text but an empty one
	least     *int     // of a number
	most      *int
	mostChars int
	isList    bool // a text may have several, with commas
}

// node is the schema of a key with such values.
func (w words) node(kind config.Kind) *schemaNode {
	n := &schemaNode{Type: slices.Concat(w.types, []string{"null"}), Minimum: w.least, Maximum: w.most, MaxLength: w.mostChars}
	switch {
	case kind == config.Single && w.values != nil:
		n.Enum = append(w.enum(), nil)
	case w.pattern == "":
		n.MinLength = 1
	case w.isList:
		n.Pattern = `^(\s*(` + w.pattern + `)\s*(,|$))+$`
	default:
		n.Pattern = "^(" + w.pattern + ")$"
	}
	if kind == config.Single {
		return n
	}
	item := *n
	item.Type = w.types
	if w.values != nil {
		item.Pattern, item.AnyOf = "", []*schemaNode{{Enum: w.enum()}, {Pattern: n.Pattern}}
	}
	n.Type, n.Items = slices.Concat([]string{"array"}, n.Type), &item
	return n
}

// enum has each value as YAML may read it: the text 4 is also the number 4.
func (w words) enum() (values []any) {
	for _, text := range w.values {
		var value any
		if json.Unmarshal([]byte(text), &value) == nil {
			values = append(values, value)
		}
		values = append(values, text)
	}
	return values
}

// alternatives is a pattern that matches any of these texts.
func alternatives(texts []string) string {
	quoted := make([]string, len(texts))
	for i, text := range texts {
		quoted[i] = regexp.QuoteMeta(text)
	}
	return strings.Join(quoted, "|")
}

func oneOf(values ...string) words {
	return words{types: []string{"string"}, values: values, pattern: alternatives(values)}
}

func like(pattern string) words { return words{types: []string{"string"}, pattern: pattern} }

// number are the numbers from least to most, and texts.
func number(least, most int, pattern string) words {
	w := words{types: []string{"string", "integer"}, pattern: pattern, least: &least}
	if most > 0 {
		w.most = &most
	}
	return w
}

// anyScalar are texts, also those that YAML reads as something else.
func anyScalar() words { return words{types: []string{"string", "number", "boolean"}} }

// statePattern matches the names of states, in all spellings that --old-state takes.
func statePattern() string {
	var b strings.Builder
	for i, name := range append(stateNames(), "CLOSED", "UNCONN", "LISTENING", "SYN_RECEIVED", "ESTAB") {
		if i > 0 {
			b.WriteByte('|')
		}
		for _, c := range name {
			switch {
			case c == '_':
				b.WriteString("[-_ ]?")
			case c >= '0' && c <= '9':
				b.WriteString("[-_ ]?" + string(c))
			default:
				b.WriteString("[" + string(c) + strings.ToLower(string(c)) + "]")
			}
		}
	}
	return b.String()
}

func stateNames() (names []string) {
	for _, s := range tcp.States() {
		names = append(names, s.String())
	}
	return names
}

func waysToClose() (names []string) {
	for _, way := range tcp.WaysToClose() {
		names = append(names, string(way))
	}
	return names
}

func schemaNames() (names []string) {
	for _, s := range record.Schemas() {
		names = append(names, string(s))
	}
	return names
}

// wordsOf are the values of a kind, which is what the help text shows behind the flag.
func wordsOf(t *testing.T, kind string) words {
	t.Helper()
	kind, isList := strings.CutSuffix(kind, ",...")
	w, found := map[string]words{
		"bool":        {types: []string{"boolean", "string"}, values: []string{"true", "false"}},
		"FORMAT":      oneOf(formatNDJSON, formatText),
		"SCHEMA":      oneOf(schemaNames()...),
		"WHEN":        oneOf(colorAuto, colorAlways, colorNever),
		"TYPE":        oneOf(record.SelectableTypes()...),
		"ROLE":        oneOf("client", "server", "listener"),
		"WAY":         oneOf(waysToClose()...),
		"NAME":        oneOf(config.Profiles()...),
		"COMPRESSION": oneOf("gzip"),
		"STATE":       {types: []string{"string"}, values: stateNames(), pattern: statePattern()},
		"4|6":         {types: []string{"integer", "string"}, values: []string{"4", "6"}},
		"D":           zeroOr(`\+?(0|(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+)`),
		"SIZE":        like("[0-9]+(KiB|MiB|GiB)"),
		"BYTES":       number(0, 0, "[0-9]+(KiB|MiB|GiB)?"),
		"N":           number(1, 0, "0*[1-9][0-9]*"),
		"PERCENT":     number(20, 99, "0*[2-9][0-9]%?"),
		"1/N":         like("1/0*[1-9][0-9]*"),
		"PORT":        number(1, 65535, "[0-9]+(-[0-9]+)?"),
		"CIDR":        like("[0-9A-Fa-f:.]+(/[0-9]+)?"),
		"PID":         number(1, 4<<20, "[0-9]+"),
		"ERRNO":       like("E[A-Z0-9]+|ERRNO_[0-9]+"),
		"REGEXP":      anyScalar(),
		"KEY=VALUE":   like(`[a-z][a-z0-9_]*=[\s\S]*`),
		"MODE":        number(0, 0, "0*6[0246][0246]"),
		"OUTPUT":      like(strings.Trim(outputNamePattern.String(), "^$")),
		"HOST:PORT":   like(".*:[0-9]+"),
		"[HOST:]PORT": number(1, 65535, "(.*:)?[0-9]+"),
		"URL":         like(`otlps?(\+http)?:.+`),
		"COMM":        anyScalar(), "CONTAINER": anyScalar(), "POD": anyScalar(), "USER": anyScalar(), "NETNS": anyScalar(),
		"KEY": like(""), "DIR": like(""), "FILE": like(""), "PATH": like(""),
	}[kind]
	if !found {
		t.Fatalf("the schema has no values of the kind %q: add it to wordsOf", kind)
	}
	w.isList = isList
	if kind == "COMM" {
		w.mostChars = 15
	}
	return w
}

// zeroOr are texts like this, and the number 0.
func zeroOr(pattern string) words {
	w := number(0, 0, pattern)
	w.most = new(int)
	return w
}
