// Package recording reads the NDJSON records of the native schema from a stream, line by line and in bounded memory. A
// recording may contain anything. The package must not open files, print, or know what the records are used for.
package recording

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/tcpshift/tcpshift/internal/record"
)

const (
	// maxLine bounds a line in bytes. Records have at most record.MaxLine; other programs may have added keys.
	maxLine = 16 * record.MaxLine
	// maxShown bounds how many of the lines that are no records are kept.
	maxShown = 5
	// shownBytes bounds what is kept of each of these lines, in bytes.
	shownBytes = 120
)

// Unreadable is a line that is no record.
type Unreadable struct {
	Line uint64 // its number, from 1 on
	Text string // its beginning, without control characters
	Why  string
}

// MayBeCut reports whether the line may be the end of a record.
func (u *Unreadable) MayBeCut() bool { return u.Why == notJSON || u.Why == notUTF8 }

// Summary counts what a [Reader] has read.
type Summary struct {
	Lines      uint64 // without empty ones
	Records    uint64
	Unreadable uint64       // lines that are no records
	Shown      []Unreadable // the first of them
	// CutOff: the last line or the compressed file is not complete, or the compressed file is damaged. A last line that is
	// not complete is in none of the counts.
	CutOff bool
}

// Reader reads records. It is for one goroutine.
type Reader struct {
	lines   *bufio.Reader
	number  uint64
	summary Summary
}

// NewReader returns a reader of NDJSON, plain or compressed with gzip. It fails as [Decompress] does.
func NewReader(r io.Reader) (*Reader, error) {
	lines, err := Decompress(r, maxLine)
	if err != nil {
		return nil, err
	}
	return &Reader{lines: lines}, nil
}

// Summary returns what Next has counted so far.
func (r *Reader) Summary() Summary { return r.summary }

// ErrSchema means that a newer tcpshift has written what follows, with keys of another meaning.
var ErrSchema = errors.New("use a newer tcpshift")

// Next reads the next record into rec. It skips lines that are no records, and counts them. It returns io.EOF at the
// end, also if the last line or the compressed file is not complete, [ErrSchema] with the number of the line at a start record
// of another major version of the schema, and else the error of the stream.
func (r *Reader) Next(rec *Record) error {
	for {
		line, err := r.line()
		if err != nil {
			return err
		}
		why := decode(line, rec)
		if why == "" {
			r.summary.Lines++
			r.summary.Records++
			if rec.Type == "start" && !readsSchema(rec.Schema) {
				return fmt.Errorf("line %d: the records have the schema %.20s, and this tcpshift reads %s: %w", r.number, record.Printable(rec.Schema), record.SchemaVersion, ErrSchema)
			}
			return nil
		}
		if line[len(line)-1] != '\n' { // only the last line may lack its end
			r.summary.CutOff = true
			continue
		}
		r.refuse(line, why)
	}
}

// readsSchema reports whether a version of the schema has the major version of record.SchemaVersion, or is not known.
func readsSchema(version string) bool {
	major, _, _ := strings.Cut(version, ".")
	ours, _, _ := strings.Cut(record.SchemaVersion, ".")
	return version == "" || major == ours
}

// line returns the next line that is not empty, with its '\n' if it has one. It skips lines of more than maxLine bytes.
func (r *Reader) line() ([]byte, error) {
	for {
		line, err := r.lines.ReadSlice('\n')
		if len(line) > 0 {
			r.number++
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			r.refuse(line, fmt.Sprintf("it has more than %d bytes", maxLine))
			err = r.skipLine()
		case len(bytes.TrimSpace(line)) > 0 && (err == nil || errors.Is(err, io.EOF) || IsCutOff(err)):
			return line, nil // the next read has the error again
		}
		if err != nil {
			return nil, r.end(err)
		}
	}
}

// skipLine reads up to the end of a line that is longer than the buffer.
func (r *Reader) skipLine() (err error) {
	for err = bufio.ErrBufferFull; errors.Is(err, bufio.ErrBufferFull); {
		_, err = r.lines.ReadSlice('\n')
	}
	return err
}

// end returns io.EOF if err is io.EOF or means that the stream is cut off, which it notes; what was read before is good. Else
// it returns err.
func (r *Reader) end(err error) error {
	switch {
	case errors.Is(err, io.EOF):
	case IsCutOff(err):
		r.summary.CutOff = true
	default:
		return err
	}
	return io.EOF
}

// refuse counts a line that is no record, and keeps it if it is one of the first.
func (r *Reader) refuse(line []byte, why string) {
	r.summary.Lines++
	r.summary.Unreadable++
	if len(r.summary.Shown) == maxShown {
		return
	}
	line = bytes.TrimRight(line, "\r\n")
	if len(line) > shownBytes {
		line = append(bytes.Clone(line[:shownBytes]), "…"...)
	}
	r.summary.Shown = append(r.summary.Shown, Unreadable{Line: r.number, Text: record.Printable(string(line)), Why: why})
}

// Parse reads one line into rec. The error says in words why the line is no record.
func Parse(line []byte, rec *Record) error {
	if why := decode(line, rec); why != "" {
		return errors.New(why)
	}
	return nil
}

// consumed are the types of records whose keys are read. In records of other types, which a later tcpshift may write, a key
// may have another meaning.
var consumed = map[string]bool{
	"start": true, "reload": true, "transition": true, "connection": true, "alert": true, "loss": true, "stats": true, "stop": true,
}

// What makes a line no record.
const (
	notUTF8 = "it is not UTF-8"
	notJSON = "it is not JSON"
	noType  = "it has no type: a recording is in the native schema"
	inputs  = "it has an input of detection: 'tcpshift replay' reads a file of --recording"
)

// decode reads a line into rec. why is empty, or the reason why the line is no record.
func decode(line []byte, rec *Record) (why string) {
	*rec = Record{}
	var wrong *json.UnmarshalTypeError
	switch err := json.Unmarshal(line, rec); {
	case errors.Is(err, errTime):
		return errTime.Error()
	case errors.As(err, &wrong):
		switch {
		case rec.Type == "" && bytes.HasPrefix(line, []byte(`{"input":`)):
			return inputs
		case rec.Type == "" || rec.Time == 0 || consumed[rec.Type]:
			return whyWrong(wrong)
		}
		*rec = Record{Type: rec.Type, Time: rec.Time, Seq: rec.Seq}
		return ""
	case err != nil && !utf8.Valid(line):
		return notUTF8
	case err != nil:
		return notJSON
	case rec.Type == "" && bytes.HasPrefix(line, []byte(`{"input":`)):
		return inputs
	case rec.Type == "":
		return noType
	case rec.Time == 0:
		return "it has no time"
	}
	return ""
}

// whyWrong says which key has a value of a wrong type.
func whyWrong(e *json.UnmarshalTypeError) string {
	key := e.Field[strings.LastIndexByte(e.Field, '.')+1:] // Field begins with the names of embedded structs
	if key == "" {
		return "it is not an object"
	}
	article := "a "
	if e.Value == "object" || e.Value == "array" {
		article = "an "
	}
	return "the value of " + record.Printable(key) + " is " + article + e.Value
}
