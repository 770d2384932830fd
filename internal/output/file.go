package output

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/sys/unix"
)

// fileBatch is the batch of a regular file. A file system stores data in pieces as large
// as the writes, and has a fixed cost for each piece. Larger batches than this gain
// little (BenchmarkWrite).
const fileBatch = 256 << 10

// regularFile is a file on disk. It contains whole lines only, even after a write
// that failed, unless another process writes to it too or truncating it fails.
type regularFile struct {
	descriptor
	path    string // empty: standard output, or a descriptor that was inherited
	options FileOptions
}

// Write writes all lines. If it fails it tries to cut off the incomplete line that it has written.
func (f *regularFile) Write(lines []byte) (int, error) { return writeAll(f, lines) }

// try retries EAGAIN itself (FUSE may return it), so that keepWholeLines sees the whole line that
// a failed write cut.
func (f *regularFile) try(lines []byte) (written int, err error) {
	for {
		n, err := f.descriptor.try(lines[written:])
		written += n
		if errors.Is(err, unix.EAGAIN) {
			time.Sleep(longestPause)
			continue
		}
		if err == nil || errors.Is(err, ErrReaderGone) {
			return written, err
		}
		return f.keepWholeLines(lines[:written], err)
	}
}

// keepWholeLines removes what a write that failed with err has left of its last line. If
// that fails, all bytes stay.
func (f *regularFile) keepWholeLines(written []byte, err error) (int, error) {
	whole := wholeLines(written)
	if whole == len(written) {
		return whole, err
	}
	if truncateErr := f.truncateTail(int64(len(written) - whole)); truncateErr != nil {
		return len(written), errors.Join(err, truncateErr)
	}
	return whole, err
}

// truncateTail removes the last count bytes, the beginning of a line, unless another
// process has written behind them.
func (f *regularFile) truncateTail(count int64) error {
	var info unix.Stat_t
	if err := unix.Fstat(f.fd, &info); err != nil {
		return fmt.Errorf("stat %s: %w", f.name, err)
	}
	at, err := unix.Seek(f.fd, 0, io.SeekCurrent)
	if err != nil || at != info.Size {
		return err
	}
	if err := unix.Ftruncate(f.fd, at-count); err != nil {
		return fmt.Errorf("truncate %s: %w", f.name, err)
	}
	// Another process may share the offset and write next, as in
	// ( tcpshift; echo done ) >file
	_, err = unix.Seek(f.fd, at-count, io.SeekStart)
	return err
}

// Reopens reports whether the file has a path by which Reopen opens it again.
func (f *regularFile) Reopens() bool { return f.path != "" }

// reopenLimit bounds the time that Reopen takes.
const reopenLimit = time.Second

// Reopen opens the path again, where another file may be by now. The file that was open
// stays in use if that fails.
func (f *regularFile) Reopen() error {
	// A FIFO may be there by now, and opening it waits for a reader.
	ctx, cancel := context.WithTimeout(context.Background(), reopenLimit)
	defer cancel()
	other, err := OpenFile(ctx, f.path, f.options)
	if err == nil && !other.Reopens() {
		err = errors.Join(fmt.Errorf("%s is not a regular file any more", f.path), other.Close())
	}
	if err != nil {
		return fmt.Errorf("%w: the file that is open stays in use", err)
	}
	before := f.descriptor
	*f = *other.(*regularFile)
	if err := before.Close(); err != nil { // some file systems write only then
		return fmt.Errorf("the file that was open until now may not be complete: %w", err)
	}
	return nil
}

func (f *regularFile) batchSize() int { return fileBatch }

// retryable is true for a full disk or quota: files may be deleted or rotated meanwhile.
func (f *regularFile) retryable(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)
}

// Size is how many bytes the file has.
func (f *regularFile) Size() (int64, error) {
	var info unix.Stat_t
	err := unix.Fstat(f.fd, &info)
	return info.Size, err
}
