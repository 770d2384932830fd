package output

import (
	"errors"
	"fmt"
	"os"
	"slices"
)

const (
	// spoolPiece is how many bytes are read at once, at least one line.
	spoolPiece = 256 << 10
	// longestSpooled bounds a line. What is longer is no line that this program has written.
	longestSpooled = 1 << 20
	// positionName is the file with the first line that is still needed.
	positionName = "position"
	// positionFormat is its content: the number of a segment, and an offset in it.
	positionFormat = "%016x %016x\n"
)

// errSpoolFull means that the spool has its full size.
var errSpoolFull = errors.New("the spool is full")

// spoolError is a failure of the spool, which may be over later.
type spoolError struct {
	path string
	err  error
}

// Error is the path of the spool and the error.
func (e *spoolError) Error() string { return fmt.Sprintf("spool %s: %v", e.path, e.err) }

// Unwrap is the error without the path.
func (e *spoolError) Unwrap() error { return e.err }

// spool keeps whole lines on disk, in the order in which they are added, until the reader of the
// output has them. The lines are in segments, files that are numbered; a segment goes when none of its
// lines is needed. Nothing is synced: the lines survive the end of the process, not that of the host.
// After each method the files are such that a process which is killed then loses no line that add has
// taken. Only the goroutine of the queue uses a spool.
type spool struct {
	root        *os.Root // nil after close
	path        string   // for messages
	limit       int64    // bytes
	segmentSize int64
	segments    []*segment // the oldest first; the last one gets new lines
	last        uint64     // number of the newest segment so far
	size        int64      // of all segments
	next        spoolPosition
	position    *os.File // its lock keeps other processes away
	kept        spoolPosition
	piece       []byte // lines from next on
	buffer      []byte // of piece
}

// segment is a file of the spool.
type segment struct {
	file   *os.File
	number uint64
	size   int64 // whole lines; the file may have part of one behind them
}

func (s *segment) name() string { return fmt.Sprintf("%016x.lines", s.number) }

// spoolPosition is a place in a spool: before the byte at offset in segments[segment].
type spoolPosition struct {
	segment int
	offset  int64
}

// add appends whole lines. It returns the number of bytes that the spool has taken, and a [*spoolError] if
// these are not all.
func (s *spool) add(lines []byte) (taken int, err error) {
	fit := lines
	if len(lines) == 0 {
		return 0, nil
	}
	if room := s.limit - s.size; int64(len(fit)) > room {
		fit, err = fit[:wholeLines(fit[:max(0, room)])], errSpoolFull
	}
	if len(fit) > 0 {
		current, openErr := s.writable(int64(len(fit)))
		if openErr != nil {
			return 0, &spoolError{s.path, openErr}
		}
		n, writeErr := current.file.WriteAt(fit, current.size)
		taken = wholeLines(fit[:n]) // the next write replaces the rest
		current.size += int64(taken)
		s.size += int64(taken)
		if writeErr != nil {
			err = writeErr
		}
	}
	if err != nil {
		return taken, &spoolError{s.path, err}
	}
	return taken, nil
}

// writable returns the segment for so many new bytes.
func (s *spool) writable(size int64) (*segment, error) {
	if last := len(s.segments) - 1; last >= 0 && (s.segments[last].size == 0 || s.segments[last].size+size <= s.segmentSize) {
		return s.segments[last], nil
	}
	created := &segment{number: s.last + 1}
	file, err := s.root.OpenFile(created.name(), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	s.last++
	created.file = file
	s.segments = append(s.segments, created)
	return created, nil
}

// unsent reports whether there are lines that have not been sent.
func (s *spool) unsent() bool {
	return len(s.piece) > 0 || s.next.segment < len(s.segments)-1 ||
		len(s.segments) > 0 && s.next.offset < s.segments[s.next.segment].size
}

// lines returns the next whole lines to send; none if all are sent. The result is valid until sent or
// rewind is called.
func (s *spool) lines() ([]byte, error) {
	for len(s.piece) == 0 && s.unsent() {
		current := s.segments[s.next.segment]
		if s.next.offset >= current.size {
			s.next = spoolPosition{s.next.segment + 1, 0}
			continue
		}
		if err := s.read(current, spoolPiece); err != nil {
			return nil, &spoolError{s.path, err}
		}
	}
	return s.piece, nil
}

// read sets piece to whole lines at the next position, size bytes of them or a little less.
func (s *spool) read(from *segment, size int64) error {
	size = min(size, from.size-s.next.offset)
	s.buffer = slices.Grow(s.buffer[:0], int(size))[:size]
	if _, err := from.file.ReadAt(s.buffer, s.next.offset); err != nil {
		return err // io.EOF: somebody has cut the file
	}
	s.piece = s.buffer[:wholeLines(s.buffer)]
	if len(s.piece) > 0 {
		return nil
	}
	if size < longestSpooled {
		return s.read(from, 2*size)
	}
	return errors.New("it has a line without an end")
}

// sent notes that the first n bytes of lines are sent.
func (s *spool) sent(n int) {
	s.piece = s.piece[n:]
	s.next.offset += int64(n)
}

// skip leaves out the rest of a segment that cannot be read.
func (s *spool) skip() {
	s.piece = nil
	s.next.offset = s.segments[s.next.segment].size
}

// before returns the position n bytes before the next one, or that of the first line.
func (s *spool) before(n int64) spoolPosition {
	at := s.next
	for n > at.offset && at.segment > 0 {
		n -= at.offset
		at.segment--
		at.offset = s.segments[at.segment].size
	}
	at.offset = max(0, at.offset-n)
	return at
}

// rewind makes the last n bytes that were sent the next ones.
func (s *spool) rewind(n int) {
	s.next, s.piece = s.before(int64(n)), nil
}

// keep gives up what was sent, except for the last n bytes. A failure costs only disk space, and lines that
// come twice after a restart.
func (s *spool) keep(n int) error {
	if len(s.segments) == 0 {
		return nil
	}
	at := s.before(int64(n))
	if at.offset == s.segments[at.segment].size && at.segment == len(s.segments)-1 {
		return s.removeBefore(len(s.segments))
	}
	if at == s.kept {
		return nil
	}
	s.kept = at
	_, err := s.position.WriteAt(fmt.Appendf(nil, positionFormat, s.segments[at.segment].number, at.offset), 0)
	return errors.Join(err, s.removeBefore(at.segment))
}

// removeBefore removes the first count segments.
func (s *spool) removeBefore(count int) error {
	var errs []error
	for _, old := range s.segments[:count] {
		errs = append(errs, old.file.Close(), remove(s.root, old.name()))
		s.size -= old.size
	}
	s.segments = slices.Delete(s.segments, 0, count)
	s.next.segment -= count
	s.kept.segment -= count
	if len(s.segments) == 0 {
		s.next, s.kept, s.piece = spoolPosition{}, spoolPosition{}, nil
	}
	return errors.Join(errs...)
}

// close leaves the lines on disk.
func (s *spool) close() error {
	if s.root == nil {
		return nil
	}
	errs := []error{s.position.Close(), s.root.Close()}
	for _, each := range s.segments {
		errs = append(errs, each.file.Close())
	}
	s.root = nil
	return errors.Join(errs...)
}
