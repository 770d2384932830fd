package record

import (
	"bytes"
	"maps"
	"slices"

	"github.com/tcpshift/tcpshift/internal/detect"
	"github.com/tcpshift/tcpshift/internal/summary"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// fieldsEncoder is an encoder whose records have only some keys. It encodes a whole record and
// removes the other members in place, so that an encoder without a choice of keys knows nothing of
// it.
type fieldsEncoder struct {
	SocketEncoder
	schema Schema
	keep   map[string]bool
}

// WithFields returns an encoder like e, whose records have only the keys in fields, and those that
// all records have: the type, the time, the number and the labels. e must be the NDJSON encoder of
// the schema with these labels. [CheckFields] must have accepted fields.
func WithFields(e SocketEncoder, schema Schema, labels []Label, fields []string) SocketEncoder {
	f := &fieldsEncoder{e, schema, make(map[string]bool)}
	f.add(fields...)
	for _, native := range []string{"type", "time", "seq"} {
		f.add(namesOf(schema, native)[0])
	}
	if schema == SchemaECS {
		f.add("ecs.version", "labels") // a record without ecs.version is not one of ECS
		return f
	}
	for _, l := range labels {
		f.add(l.Key)
	}
	return f
}

func (f *fieldsEncoder) add(keys ...string) {
	for _, key := range keys {
		f.keep[key] = true
	}
}

// AddOrigin implements [OriginEncoder].
func (f *fieldsEncoder) AddOrigin(host, bootID string) {
	if e, can := f.SocketEncoder.(OriginEncoder); can {
		e.AddOrigin(host, bootID)
		f.add(namesOf(f.schema, "host")...)
		f.add(namesOf(f.schema, "boot_id")...)
	}
}

// SetSample implements [SamplingEncoder].
func (f *fieldsEncoder) SetSample(oneIn uint64) {
	if e, can := f.SocketEncoder.(SamplingEncoder); can {
		e.SetSample(oneIn)
	}
}

// DescribesOwner implements [OwnerEncoder].
func (f *fieldsEncoder) DescribesOwner() bool {
	return DescribesOwner(f.schema, slices.Collect(maps.Keys(f.keep)))
}

// Start implements [Encoder].
func (f *fieldsEncoder) Start(dst []byte, r *Start) []byte {
	return f.cut(f.SocketEncoder.Start(dst, r), len(dst))
}

// Transition implements [Encoder]. It does not allocate if dst has room for the whole record.
func (f *fieldsEncoder) Transition(dst []byte, t *tcp.Transition) []byte {
	return f.cut(f.SocketEncoder.Transition(dst, t), len(dst))
}

// Connection implements [Encoder]. It does not allocate if dst has room for the whole record.
func (f *fieldsEncoder) Connection(dst []byte, last *tcp.Transition, c *tcp.Connection) []byte {
	return f.cut(f.SocketEncoder.Connection(dst, last, c), len(dst))
}

// Alert implements [Encoder].
func (f *fieldsEncoder) Alert(dst []byte, a *detect.Alert) []byte {
	return f.cut(f.SocketEncoder.Alert(dst, a), len(dst))
}

// Summary implements [Encoder].
func (f *fieldsEncoder) Summary(dst []byte, r *summary.Row) []byte {
	return f.cut(f.SocketEncoder.Summary(dst, r), len(dst))
}

// Process implements [Encoder].
func (f *fieldsEncoder) Process(dst []byte, r *Process) []byte {
	return f.cut(f.SocketEncoder.Process(dst, r), len(dst))
}

// Stats implements [Encoder].
func (f *fieldsEncoder) Stats(dst []byte, r *Stats) []byte {
	return f.cut(f.SocketEncoder.Stats(dst, r), len(dst))
}

// Loss implements [Encoder].
func (f *fieldsEncoder) Loss(dst []byte, r *Loss) []byte {
	return f.cut(f.SocketEncoder.Loss(dst, r), len(dst))
}

// Stop implements [Encoder].
func (f *fieldsEncoder) Stop(dst []byte, r *Stop) []byte {
	return f.cut(f.SocketEncoder.Stop(dst, r), len(dst))
}

// Socket implements [SocketEncoder].
func (f *fieldsEncoder) Socket(dst []byte, s *tcp.Socket) []byte {
	return f.cut(f.SocketEncoder.Socket(dst, s), len(dst))
}

// SocketCount implements [SocketEncoder].
func (f *fieldsEncoder) SocketCount(dst []byte, c *tcp.SocketCount, by []tcp.SocketKey) []byte {
	return f.cut(f.SocketEncoder.SocketCount(dst, c, by), len(dst))
}

// cut removes the members that are not kept from the line that begins at from, which must end lines.
func (f *fieldsEncoder) cut(lines []byte, from int) []byte {
	_, end := f.cutObject(lines, from, from)
	return append(lines[:end], '\n')
}

const attributesKey = "attributes" // of OpenTelemetry: its members are keys of the record

// cutObject copies what is kept of the object that begins at line[at] to line[to:], where to is at
// most at. It returns the ends of the object and of the copy. It relies on what the encoders of this
// package write: no space, and no key with an escape.
func (f *fieldsEncoder) cutObject(line []byte, at, to int) (end, copied int) {
	line[to] = '{'
	to++
	first := to
	for at++; line[at] != '}'; {
		if line[at] == ',' {
			at++
		}
		keyEnd := at + 1 + bytes.IndexByte(line[at+1:], '"')
		key, value := line[at+1:keyEnd], keyEnd+len(`":`)
		inner := f.schema == SchemaOTel && string(key) == attributesKey
		keep := inner || f.keeps(key)
		if keep && to > first {
			line[to] = ','
			to++
		}
		if inner {
			to += copy(line[to:], line[at:value])
			at, to = f.cutObject(line, value, to)
			continue
		}
		next := endOfValue(line, value)
		if keep {
			to += copy(line[to:], line[at:next])
		}
		at = next
	}
	line[to] = '}'
	return at + 1, to + 1
}

func (f *fieldsEncoder) keeps(key []byte) bool {
	return f.keep[string(key)] || f.keep[featuresOffKey] && bytes.HasPrefix(key, []byte(featuresOffKey+"."))
}

// endOfValue returns the end of the JSON value that begins at line[at].
func endOfValue(line []byte, at int) int {
	for depth := 0; ; at++ {
		switch line[at] {
		case '"':
			at = endOfString(line, at)
		case '{', '[':
			depth++
		case '}', ']':
			depth--
			if depth < 0 { // of the object around a number or a literal
				return at
			}
		case ',':
			if depth == 0 {
				return at
			}
		}
	}
}

// endOfString returns the place of the quote that ends the string that begins at line[at].
func endOfString(line []byte, at int) int {
	for at++; line[at] != '"'; at++ {
		if line[at] == '\\' {
			at++
		}
	}
	return at
}
