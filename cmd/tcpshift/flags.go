package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/tcpshift/tcpshift/internal/filter"
	"github.com/tcpshift/tcpshift/internal/record"
)

const (
	formatNDJSON = "ndjson"
	formatText   = "text"
)

// wordValue is a flag with one value, the last one given.
type wordValue[T any] struct {
	value *T
	kind  string
	parse func(string) (T, error)
}

func word[T any](value *T, kind string, parse func(string) (T, error)) *wordValue[T] {
	return &wordValue[T]{value, kind, parse}
}

func (v *wordValue[T]) Set(s string) error {
	parsed, err := v.parse(s)
	if err == nil {
		*v.value = parsed
	}
	return err
}

func (v *wordValue[T]) Type() string { return v.kind }

// String is what the help shows as the default, so it hides the zero values.
func (v *wordValue[T]) String() string {
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

// listValue is a flag with values separated by commas; it may be repeated.
type listValue[T comparable] struct {
	values *[]T
	kind   string
	parse  func(string) (T, error)
}

func list[T comparable](values *[]T, kind string, parse func(string) (T, error)) *listValue[T] {
	return &listValue[T]{values, kind, parse}
}

func (v *listValue[T]) Set(s string) error { return filter.List(v.values, s, v.parse) }
func (v *listValue[T]) Type() string       { return v.kind }
func (v *listValue[T]) String() string     { return "" }

// anyByteValue is a flag whose value may hold commas; it may be repeated.
type anyByteValue[T comparable] struct{ listValue[T] }

func anyByte[T comparable](values *[]T, kind string, parse func(string) (T, error)) *anyByteValue[T] {
	return &anyByteValue[T]{*list(values, kind, parse)}
}

func (v *anyByteValue[T]) Set(s string) error { return filter.Add(v.values, s, v.parse) }

// labelsValue checks each label together with those before it.
type labelsValue struct {
	pairs  []string
	labels *[]record.Label
}

func (v *labelsValue) Set(pair string) error {
	v.pairs = append(v.pairs, pair)
	labels, err := record.ParseLabels(v.pairs)
	*v.labels = labels
	return err
}

func (v *labelsValue) Type() string   { return "KEY=VALUE" }
func (v *labelsValue) String() string { return "" }

// checkLabels refuses labels that nothing would show.
func checkLabels(labels []record.Label, format string) error {
	if len(labels) > 0 && format == formatText {
		return usagef("--label: --format text has no labels: use --format ndjson")
	}
	return nil
}

func parseFormat(s string) (string, error) {
	if s != formatNDJSON && s != formatText {
		return "", fmt.Errorf("%q is no format: use %s or %s", s, formatNDJSON, formatText)
	}
	return s, nil
}

func parsePath(s string) (string, error) {
	if s == "" {
		return "", errors.New("a file name is not empty: use a path, or - for standard output")
	}
	return s, nil
}

func parseRecordType(s string) (string, error) {
	for _, t := range record.Types() {
		if s == t {
			return s, nil
		}
	}
	return "", fmt.Errorf("%q is no record type: use %s", s, strings.Join(record.Types(), ", "))
}

func parseDuration(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil {
		return 0, fmt.Errorf("%q is no duration: use one such as 500ms, 30s or 5m", s)
	}
	if d < 0 {
		return 0, fmt.Errorf("%q is negative: use 0 or more", s)
	}
	return d, nil
}

func parseCount(s string) (uint64, error) {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("%q is no count: use 1 or more", s)
	}
	return n, nil
}

const (
	leastBuffer = 64 << 10
	leastQueue  = 256 << 10 // a few of the batches in which the output is written
)

// parseSize takes what a BPF ring buffer can have: a power of two.
func parseSize(s string) (int, error) { return parseSizeFrom(leastBuffer, s) }

func parseQueueSize(s string) (int, error) { return parseSizeFrom(leastQueue, s) }

func parseSizeFrom(least uint64, s string) (int, error) {
	const most = 1 << 30
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
			return 0, fmt.Errorf("%q is no size: use one such as 16MiB", s)
		case size < least || size > most:
			return 0, fmt.Errorf("%q is out of range: use %dKiB to 1GiB", s, least>>10)
		case size&(size-1) != 0:
			return 0, fmt.Errorf("%q is no power of two: use one such as 16MiB", s)
		}
		return int(size), nil
	}
	return 0, errors.New(strconv.Quote(s) + " has no unit: use KiB, MiB or GiB, such as 16MiB")
}
