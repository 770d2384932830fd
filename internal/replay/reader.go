package replay

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/tcpshift/tcpshift/internal/recording"
)

// maxLine bounds a line, in bytes. The longest input has all sockets in FIN_WAIT2 of one namespace.
const maxLine = 128 << 20

// LineError is an error in a line of a recording.
type LineError struct {
	Line int // its number, from 1
	Err  error
}

// Error returns the message, which begins with the number of the line.
func (e *LineError) Error() string { return fmt.Sprintf("line %d: %v", e.Line, e.Err) }

// Unwrap returns what is wrong with the line.
func (e *LineError) Unwrap() error { return e.Err }

// Reader reads lines, and knows their numbers. It does not return a last line without a '\n': that line is not complete.
type Reader struct {
	in   *bufio.Reader
	line []byte // its own memory, for a line that is longer than the buffer of in
	n    int    // of the last line
	cut  bool
	next []byte // what Peek has returned
}

// NewReader returns a reader of in.
func NewReader(in io.Reader) *Reader {
	return &Reader{in: bufio.NewReaderSize(in, 256<<10)}
}

// Next returns the next line that is not empty, without the white space around it; it is valid until the next call. It
// returns io.EOF at the end, and a [*LineError] for a line of more than maxLine bytes and for an error of the stream.
// After a LineError it must not be called again.
func (r *Reader) Next() ([]byte, error) {
	if line := r.next; line != nil {
		r.next = nil
		return line, nil
	}
	for {
		line, err := r.read()
		if err != nil {
			return nil, err
		}
		if line = bytes.TrimSpace(line); len(line) > 0 {
			return line, nil
		}
	}
}

// Peek returns the line that Next is going to return.
func (r *Reader) Peek() ([]byte, error) {
	line, err := r.Next()
	r.next = line
	return line, err
}

// read returns the next line with its '\n'.
func (r *Reader) read() ([]byte, error) {
	r.n++
	r.line = r.line[:0]
	for {
		part, err := r.in.ReadSlice('\n')
		switch {
		case err == nil && len(r.line) == 0:
			return part, nil
		case len(r.line)+len(part) > maxLine:
			return nil, r.Errorf("is longer than %d MiB", maxLine>>20)
		}
		r.line = append(r.line, part...)
		switch {
		case err == nil:
			return r.line, nil
		case errors.Is(err, io.EOF):
			r.cut = len(r.line) > 0
			return nil, io.EOF
		case recording.IsCutOff(err):
			r.cut = true
			return nil, io.EOF
		case !errors.Is(err, bufio.ErrBufferFull):
			return nil, &LineError{r.n, err}
		}
	}
}

// Line returns the number of the line that was read last, from 1; also of a last line that is not complete.
func (r *Reader) Line() int { return r.n }

// Cut reports, after Next has returned io.EOF, whether the end of the file is missing, as after a writer was killed: the last
// line had no '\n' and was left out, or the compressed file is not complete.
func (r *Reader) Cut() bool { return r.cut }

// Errorf returns a [*LineError] about the line that was read last.
func (r *Reader) Errorf(format string, args ...any) error {
	return &LineError{r.n, fmt.Errorf(format, args...)}
}
