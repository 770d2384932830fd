package output

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/internal/safeopen"
)

// MinSpoolSize is the least Size of a Spool in bytes. Up to half of a spool is for what a new connection may have to
// get again.
const MinSpoolSize = 16 << 20

// Spool is where an output keeps on disk what its reader did not take.
type Spool struct {
	Root *os.Root // the directory of all spools
	Name string   // of the directory in it
	Size int64    // bytes
}

// segmentName matches the names of segments.
var segmentName = regexp.MustCompile(`^([0-9a-f]{16})\.lines$`)

// segmentsInSpool is about how many segments a full spool has.
const segmentsInSpool = 32

// open opens the spool and checks its lines. It calls notify if it has dropped any, and if there are lines
// to send. The error reports that another process uses the spool, that the directory or a file in it may be
// there on another user's behalf ([safeopen.ErrRefused]), or that ctx was done before a disk that
// hangs answered.
func (o *Spool) open(ctx context.Context, notify func(message string)) (*spool, error) {
	type result struct {
		spool *spool
		err   error
	}
	opened := make(chan result)
	go func() {
		s, err := o.openNow(notify)
		select {
		case opened <- result{s, err}:
		case <-ctx.Done():
			if err == nil {
				_ = s.close()
			}
		}
	}()
	select {
	case r := <-opened:
		return r.spool, r.err
	case <-ctx.Done():
		return nil, fmt.Errorf("open the spool %s in %s: stopped waiting at %w", o.Name, o.Root.Name(), context.Cause(ctx))
	}
}

func (o *Spool) openNow(notify func(message string)) (*spool, error) {
	root, err := safeopen.PrivateRootIn(o.Root, o.Name)
	if err != nil {
		return nil, err
	}
	s := &spool{root: root, path: root.Name(), limit: o.Size, segmentSize: min(max(o.Size/segmentsInSpool, 256<<10), 16<<20)}
	if s.position, err = safeopen.OwnFile(root, positionName); err != nil {
		return nil, errors.Join(err, root.Close())
	}
	if err := s.load(notify); err != nil {
		return nil, errors.Join(err, s.close())
	}
	if s.size > 0 {
		notify(fmt.Sprintf("the spool %s has up to %d bytes from before, which are sent first", s.path, s.size))
	}
	return s, nil
}

// load opens the segments.
func (s *spool) load(notify func(message string)) error {
	if err := unix.Flock(int(s.position.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			return fmt.Errorf("%s is in use by another process: give this output another name", s.path)
		}
		return fmt.Errorf("lock %s: %w", s.path, err)
	}
	numbers, err := s.list()
	if err != nil {
		return err
	}
	first, offset := s.readPosition()
	for _, number := range numbers {
		s.last = number
		each := &segment{number: number}
		if number < first { // the process was killed before it removed this one
			if err := remove(s.root, each.name()); err != nil {
				return err
			}
			continue
		}
		if each.file, err = safeopen.OwnFile(s.root, each.name()); err != nil {
			return err
		}
		s.segments = append(s.segments, each)
		if err := s.check(each, notify); err != nil {
			return err
		}
		s.size += each.size
	}
	if len(s.segments) > 0 && s.segments[0].number == first && s.isLineStart(offset) {
		s.next.offset = offset
		s.kept = s.next
	}
	return nil
}

// list returns the numbers of the segments in their order.
func (s *spool) list() (numbers []uint64, err error) {
	names, err := namesIn(s.root)
	for _, name := range names {
		if found := segmentName.FindStringSubmatch(name); found != nil {
			number, _ := strconv.ParseUint(found[1], 16, 64)
			numbers = append(numbers, number)
		}
	}
	slices.Sort(numbers)
	return numbers, err
}

// readPosition returns the number of the segment and the offset of the first line that is needed; 0 if there
// is no such note.
func (s *spool) readPosition() (number uint64, offset int64) {
	b := make([]byte, 64)
	n, _ := s.position.ReadAt(b, 0)
	if _, err := fmt.Sscanf(string(b[:n]), positionFormat, &number, &offset); err != nil {
		return 0, 0
	}
	return number, offset
}

// isLineStart reports whether a line of the first segment begins at offset, or its last one ends there.
func (s *spool) isLineStart(offset int64) bool {
	first, b := s.segments[0], make([]byte, 1)
	if offset <= 0 || offset > first.size {
		return offset == 0
	}
	_, err := first.file.ReadAt(b, offset-1)
	return err == nil && b[0] == '\n'
}

// check reads a segment and sets its size to that of its whole lines. A process that is killed leaves part
// of a line at the end. A host that fails leaves zeros instead of lines that had not reached the disk: the
// segment ends before them.
func (s *spool) check(each *segment, notify func(message string)) error {
	buffer := make([]byte, 256<<10)
	var at int64
	for {
		n, err := each.file.ReadAt(buffer, at)
		piece := buffer[:n]
		zero := bytes.IndexByte(piece, 0)
		if zero >= 0 {
			piece = piece[:zero]
		}
		if whole := wholeLines(piece); whole > 0 {
			each.size = at + int64(whole)
		}
		at += int64(n)
		switch {
		case err != nil && !errors.Is(err, io.EOF):
			return err
		case err == nil && zero < 0:
			continue
		}
		break
	}
	info, err := each.file.Stat()
	if err != nil || info.Size() == each.size {
		return err
	}
	notify(fmt.Sprintf("the spool %s: the last %d bytes of %s are not whole lines and are dropped", s.path, info.Size()-each.size, each.name()))
	return each.file.Truncate(each.size)
}
