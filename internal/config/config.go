// Package config reads configuration files, profiles and environment variables into settings, each with the
// place where it stands. It must not know what a key means, and must not set anything.
package config

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Kind is how many values a key has.
type Kind int

// The kinds.
const (
	Single Kind = iota // one value
	List               // any number of values
	Items              // any number of values, each a text or a mapping
)

// Key is a key that a configuration may have.
type Key struct {
	Name    string
	Kind    Kind
	Members []string // of Items: the keys of a mapping
}

// Origin is where a value stands.
type Origin struct {
	Source       string // a file, "profile NAME", a variable, or a flag
	Line, Column int    // from 1, the column in characters; 0: the source has no lines
}

// String returns SOURCE:LINE:COLUMN, as compilers write it.
func (o Origin) String() string {
	if o.Line == 0 {
		return o.Source
	}
	return fmt.Sprintf("%s:%d:%d", o.Source, o.Line, o.Column)
}

// Value is one value of a key: a text as it was written, or a mapping.
type Value struct {
	Origin  Origin
	Text    string
	Members []Member // of a mapping; nil: the value is Text
}

// Member is one key of a mapping with its values.
type Member struct {
	Origin Origin // of the key
	Name   string
	Values []Value
}

// Setting is a key with all its values.
type Setting struct {
	Origin Origin // of the key
	Key    string
	Values []Value // empty: the key has its default, whatever the layers below have
}

// Text has all values. Two settings with equal texts have equal values.
func (s Setting) Text() string { return texts(s.Values) }

func texts(values []Value) string {
	var b strings.Builder
	for _, v := range values {
		if v.Members == nil {
			b.WriteString(strconv.Quote(v.Text))
		}
		for _, m := range v.Members {
			b.WriteString(m.Name + "[" + texts(m.Values) + "]")
		}
		b.WriteByte(';')
	}
	return b.String()
}

// Layer has the settings of one source, each key once.
type Layer []Setting

// Get returns the setting of a key. ok is false if the layer does not have it.
func (l Layer) Get(key string) (s Setting, ok bool) {
	at := slices.IndexFunc(l, func(s Setting) bool { return s.Key == key })
	if at < 0 {
		return Setting{}, false
	}
	return l[at], true
}

// Merge joins layers. A setting of a later layer replaces that of an earlier one, with all its values.
func Merge(layers ...Layer) (merged Layer) {
	for _, layer := range layers {
		for _, s := range layer {
			at := slices.IndexFunc(merged, func(before Setting) bool { return before.Key == s.Key })
			if at < 0 {
				merged = append(merged, s)
			} else {
				merged[at] = s
			}
		}
	}
	return merged
}

// Error is a mistake with its place.
type Error struct {
	Origin  Origin
	Problem error
}

// Error is the place, and what is wrong there.
func (e *Error) Error() string { return e.Origin.String() + ": " + e.Problem.Error() }

// Unwrap is what is wrong.
func (e *Error) Unwrap() error { return e.Problem }

// mistakes collects the errors of a source.
type mistakes []error

func (m *mistakes) add(at Origin, format string, args ...any) {
	*m = append(*m, &Error{at, fmt.Errorf(format, args...)})
}

func (m *mistakes) join() error { return errors.Join(*m...) }

func names(keys []Key) []string {
	list := make([]string, len(keys))
	for i, k := range keys {
		list[i] = k.Name
	}
	return list
}
