package output

import (
	"bytes"
	"errors"
	"io"

	"golang.org/x/sys/unix"
)

// fileBatch is the batch of a regular file. A file system stores data in pieces as large
// as the writes, and has a fixed cost for each piece. Larger batches than this gain
// little (BenchmarkWrite).
const fileBatch = 256 << 10

// regularFile is a file on disk. It contains whole lines only, even after a write
// that failed, unless another process writes to it too or truncating it fails.
type regularFile struct{ descriptor }

func (f *regularFile) Write(lines []byte) (int, error) {
	n, err := f.descriptor.Write(lines)
	if err == nil || errors.Is(err, ErrReaderGone) {
		return n, err
	}
	whole := bytes.LastIndexByte(lines[:n], '\n') + 1
	if whole < n {
		err = errors.Join(err, f.truncateTail(int64(n-whole)))
	}
	return whole, err
}

// truncateTail removes the last count bytes, the beginning of a line, unless another
// process has written behind them.
func (f *regularFile) truncateTail(count int64) error {
	info, err := f.file.Stat()
	if err != nil {
		return err
	}
	at, err := f.file.Seek(0, io.SeekCurrent)
	if err != nil || at != info.Size() {
		return err
	}
	if err := f.file.Truncate(at - count); err != nil {
		return err
	}
	// Another process may share the offset and write next, as in
	// ( tcpshift; echo done ) >file
	_, err = f.file.Seek(at-count, io.SeekStart)
	return err
}

func (f *regularFile) batchSize() int { return fileBatch }

// writeNow writes to the page cache, which takes microseconds unless the disk is slow.
func (f *regularFile) writeNow(lines []byte, slow bool) (int, error) {
	if slow {
		return 0, nil
	}
	return f.Write(lines)
}

// retryable is true for a full disk or quota: files may be deleted or rotated meanwhile.
func (f *regularFile) retryable(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)
}
