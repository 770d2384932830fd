package main

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/tcpshift/tcpshift/internal/filter"
	"github.com/tcpshift/tcpshift/internal/record"
)

const (
	formatNDJSON = "ndjson"
	formatText   = "text"
)

// singleFlag is a flag with one value. Where it is repeated the last value wins.
type singleFlag[T any] struct {
	value *T
	kind  string
	parse func(string) (T, error)
}

func single[T any](value *T, kind string, parse func(string) (T, error)) *singleFlag[T] {
	return &singleFlag[T]{value, kind, parse}
}

// Set replaces the value by s, unless s is wrong.
func (v *singleFlag[T]) Set(s string) error {
	parsed, err := v.parse(s)
	if err == nil {
		*v.value = parsed
	}
	return err
}

// Type is the kind of value that the help text shows.
func (v *singleFlag[T]) Type() string { return v.kind }

// String returns a default that is a string or duration for the help text; a zero duration is
// not shown. Other defaults stand in the usage text.
func (v *singleFlag[T]) String() string {
	if v.value == nil {
		return ""
	}
	switch value := any(*v.value).(type) {
	case string:
		return value
	case time.Duration:
		if value != 0 {
			return value.String()
		}
	}
	return ""
}

// listFlag is a flag with values separated by commas. It may be repeated.
type listFlag[T comparable] struct {
	values *[]T
	kind   string
	parse  func(string) (T, error)
}

func list[T comparable](values *[]T, kind string, parse func(string) (T, error)) *listFlag[T] {
	return &listFlag[T]{values, kind, parse}
}

// Set appends the values in s. After an error it may have appended those before the wrong one.
func (v *listFlag[T]) Set(s string) error { return filter.AppendList(v.values, s, v.parse) }

// Type is the kind of value that the help text shows.
func (v *listFlag[T]) Type() string { return v.kind }

// String is empty, so that the help text shows no default; it does not return the values.
func (v *listFlag[T]) String() string { return "" }

// repeats marks a flag that may have several values.
func (v *listFlag[T]) repeats() {}

// verbatimFlag is a flag with one value for each use. A comma is part of the value.
type verbatimFlag[T comparable] struct{ listFlag[T] }

func verbatim[T comparable](values *[]T, kind string, parse func(string) (T, error)) *verbatimFlag[T] {
	return &verbatimFlag[T]{*list(values, kind, parse)}
}

// Set appends s as one value.
func (v *verbatimFlag[T]) Set(s string) error { return filter.AppendOne(v.values, s, v.parse) }

// repeats marks a flag that may have several values.
func (v *labelsFlag) repeats() {}

// labelsFlag checks each label together with the ones before it.
type labelsFlag struct {
	pairs  []string
	labels *[]record.Label
}

// Set adds the label KEY=VALUE and parses all labels again.
func (v *labelsFlag) Set(pair string) error {
	v.pairs = append(v.pairs, pair)
	labels, err := record.ParseLabels(v.pairs)
	*v.labels = labels
	return err
}

// Type is the kind of value that the help text shows.
func (v *labelsFlag) Type() string { return "KEY=VALUE" }

// String is empty, so that the help text shows no default.
func (v *labelsFlag) String() string { return "" }

// formatOptions are the flags that shape records.
type formatOptions struct {
	format string
	schema record.Schema // "": not given, which means native
	fields []string      // keys of the records besides those that all have; nil: all
	color  string
	labels []record.Label
}

func addFormatFlags(flags *pflag.FlagSet, o *formatOptions) {
	o.format, o.color = formatNDJSON, colorAuto
	flags.Var(single(&o.format, "FORMAT", parseFormat), "format", "ndjson for programs, text for people")
	flags.Var(single(&o.schema, "SCHEMA", parseSchema), "schema", "keys of the ndjson records: native, ecs (Elastic Common Schema), otel (OpenTelemetry) (default native)")
	flags.Var(list(&o.fields, "KEY,...", parseField), "fields", "write only these keys of each ndjson record, in the schema's spelling; the type, the time, the number and labels always come")
	flags.Var(single(&o.color, "WHEN", parseColor), "color", "color the text: auto (on a terminal), always, never")
}

func addLabelFlag(flags *pflag.FlagSet, o *formatOptions) {
	flags.Var(&labelsFlag{labels: &o.labels}, "label", "add this member to every record; may be repeated")
}

// check rejects flags without effect, by the formats that are written.
func (o *formatOptions) check(ndjson, text bool) error {
	switch {
	case len(o.labels) > 0 && !ndjson:
		return usagef("--label: --format text has no labels: use --format ndjson")
	case len(o.fields) > 0 && !ndjson:
		return usagef("--fields: --format text has no keys: use --format ndjson")
	case o.schema != "" && !ndjson:
		return usagef("--schema: --format text has no schema: use --format ndjson")
	case o.color == colorAlways && !text:
		return usagef("--color: --format %s has no colors: use --format text", formatNDJSON)
	}
	return nil
}

func parseFormat(s string) (string, error) {
	if s != formatNDJSON && s != formatText {
		return "", fmt.Errorf("%q is not a format: use %s or %s", s, formatNDJSON, formatText)
	}
	return s, nil
}

// newEncoder returns the encoder of a format: text, or one of NDJSON records in a schema, with
// labels and, unless fields is empty, with these keys only.
func newEncoder(format string, schema record.Schema, labels []record.Label, fields []string, text record.Text) record.SocketEncoder {
	if format == formatText {
		return text
	}
	enc := record.NewEncoder(schema, labels)
	if len(fields) > 0 {
		enc = record.WithFields(enc, schema, labels, fields)
	}
	return enc
}

// parseField parses a key. Whether a record has it depends on the schema.
func parseField(s string) (string, error) {
	if s == "" {
		return "", errors.New("the key is empty: use keys of the records, such as conn,closed_by")
	}
	return s, nil
}

// checkFields rejects keys that no record of the schema has. flag stands before the message.
func checkFields(flag string, schema record.Schema, labels []record.Label, fields []string) error {
	if err := record.CheckFields(schema, labels, fields); err != nil {
		return usagef("%s: %w", flag, err)
	}
	return nil
}

func parseSchema(s string) (record.Schema, error) {
	if !slices.Contains(record.Schemas(), record.Schema(s)) {
		return "", fmt.Errorf("%q is not a schema: use %s, %s or %s", s, record.SchemaNative, record.SchemaECS, record.SchemaOTel)
	}
	return record.Schema(s), nil
}

func parsePath(s string) (string, error) {
	if s == "" {
		return "", errors.New("the path is empty: use a path, or - for standard output")
	}
	return s, nil
}

func parseRecordType(s string) (string, error) {
	for _, t := range record.SelectableTypes() {
		if s == t {
			return s, nil
		}
	}
	return "", fmt.Errorf("%q is not a record type: use %s", s, strings.Join(record.SelectableTypes(), ", "))
}

func parseDuration(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil {
		return 0, fmt.Errorf("%q is not a duration: use one such as 500ms, 30s or 5m", s)
	}
	if d < 0 {
		return 0, fmt.Errorf("%q is negative: use 0 or more", s)
	}
	return d, nil
}

// parseWindow parses the length of a window of --summary.
func parseWindow(s string) (time.Duration, error) {
	d, err := parseDuration(s)
	if err == nil && d < time.Second {
		return 0, fmt.Errorf("%q is too short: use 1s or more", s)
	}
	return d, err
}

func parseCount(s string) (uint64, error) {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("%q is not a count: use 1 or more", s)
	}
	return n, nil
}

const (
	minBufferSize = 64 << 10
	minQueueSize  = 256 << 10 // one batch for a regular file, several for other outputs
	maxSize       = 1 << 30
)

// parseBufferSize parses the size of all BPF ring buffers together.
func parseBufferSize(s string) (int, error) { return parseSize(minBufferSize, s) }

func parseQueueSize(s string) (int, error) { return parseSize(minQueueSize, s) }

// parseSize parses a size with the unit KiB, MiB or GiB: a power of two from minSize to 1 GiB.
// It returns bytes.
func parseSize(minSize uint64, s string) (int, error) {
	for _, unit := range []struct {
		suffix string
		bytes  uint64
	}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}} {
		digits, found := strings.CutSuffix(s, unit.suffix)
		if !found {
			continue
		}
		n, err := strconv.ParseUint(digits, 10, 32)
		size := n * unit.bytes
		switch {
		case err != nil:
			return 0, fmt.Errorf("%q is not a size: use one such as 16MiB", s)
		case size < minSize || size > maxSize:
			return 0, fmt.Errorf("%q is out of range: use %dKiB to 1GiB", s, minSize>>10)
		case size&(size-1) != 0:
			return 0, fmt.Errorf("%q is not a power of two: use one such as 16MiB", s)
		}
		return int(size), nil
	}
	return 0, errors.New(strconv.Quote(s) + " has no unit: use KiB, MiB or GiB, such as 16MiB")
}
