// Package recording reads the NDJSON records of the native schema from a stream, line by line and in bounded memory. A
// recording may contain anything. The package must not open files, print, or know what the records are used for.
package recording

import (
	"bufio"
	"bytes"
	"compress/flate"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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

// NewReader returns a reader of NDJSON, plain or compressed with gzip. It fails if r fails, or if r begins like a gzip
// file and is not one.
func NewReader(r io.Reader) (*Reader, error) {
	lines := bufio.NewReaderSize(r, maxLine)
	magic, err := lines.Peek(2)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if !bytes.Equal(magic, []byte{0x1f, 0x8b}) {
		return &Reader{lines: lines}, nil
	}
	unzipped, err := gzip.NewReader(lines)
	if err != nil {
		return nil, fmt.Errorf("it begins like a gzip file, but is not one: %w", err)
	}
	return &Reader{lines: bufio.NewReaderSize(unzipped, maxLine)}, nil
}

// Summary returns what Next has counted so far.
func (r *Reader) Summary() Summary { return r.summary }

// Next reads the next record into rec. It skips lines that are no records, and counts them. It returns io.EOF at the
// end, also if the last line or the compressed file is not complete, and else the error of the stream.
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
			return nil
		}
		if line[len(line)-1] != '\n' { // only the last line may lack its end
			r.summary.CutOff = true
			continue
		}
		r.refuse(line, why)
	}
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
		case len(bytes.TrimSpace(line)) > 0 && (err == nil || isEnd(err)):
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

// isEnd reports whether nothing more can be read, while what was read before is good.
func isEnd(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || isCorrupt(err)
}

// isCorrupt reports whether a compressed file is damaged.
func isCorrupt(err error) bool {
	return errors.Is(err, gzip.ErrChecksum) || errors.Is(err, gzip.ErrHeader) || errors.As(err, new(flate.CorruptInputError))
}

// end returns io.EOF for an error of isEnd, and notes whether the stream was cut off; any other error it returns as it is.
func (r *Reader) end(err error) error {
	switch {
	case errors.Is(err, io.EOF):
	case isEnd(err):
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

// decode reads a line into rec. why is empty, or the reason why the line is no record.
func decode(line []byte, rec *Record) (why string) {
	*rec = Record{}
	switch err := json.Unmarshal(line, rec); {
	case errors.Is(err, errTime):
		return errTime.Error()
	case errors.As(err, new(*json.UnmarshalTypeError)):
		var wrong *json.UnmarshalTypeError
		errors.As(err, &wrong)
		return "the value of " + record.Printable(wrong.Field) + " is a " + wrong.Value
	case err != nil && !utf8.Valid(line):
		return "it is not UTF-8"
	case err != nil:
		return "it is not JSON"
	case rec.Type == "":
		return "it has no type: a recording is in the native schema"
	case rec.Time == 0:
		return "it has no time"
	}
	return ""
}
