// Package output writes finished lines to files, pipes and sockets, and decides
// what happens while the reader of an output stalls. It must not know what the
// lines mean, and it never leaves part of a line in a regular file, unless another
// process writes to the file too or the file cannot be truncated.
//
// # When a reader stalls
//
// The loop that makes the lines must not wait for a reader. Each output therefore
// has an [Output] (the destination; one file of this package per kind), a [Queue]
// (bounded, written by a goroutine of its own) and a [Stream] (used by the loop).
//
//  1. A Stream gathers lines into a batch. The loop flushes it when it is large
//     enough, and at the end of each turn.
//  2. While its queue is empty, a Queue writes a batch at once, on the loop's own
//     CPU, if the destination takes it without waiting. Otherwise the batch is
//     queued, and small batches are merged.
//  3. A Queue is full from its limit on, until at most half of the limit is queued.
//  4. A full queue first leaves events in the kernel's ring buffer: for at most
//     250 ms, and only until the ring is crowded. A burst has room in both.
//  5. After that the stream is stalled. The loop counts transitions and connections
//     instead of encoding them, and defers loss and stats records. Records that
//     must not be lost (start, alert, stop) may exceed the limit by a reserve of
//     4 MiB; beyond the reserve, and nowhere else, [Queue.Put] waits.
//  6. When the queue has room again, the loss comes first, so that it stands where
//     the records are missing.
//  7. A full disk is a reader that stalls: the write is retried until [Queue.Drain]
//     is called, and is an error from then on.
package output

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/tcpshift/tcpshift/internal/safeopen"
)

// ErrReaderGone means that the reader of the output closed its end. It ends the
// output, but is not a failure.
var ErrReaderGone = errors.New("the reader of the output went away")

// Output is an open destination of lines. Except for ReaderGone its methods must
// not be called concurrently.
type Output interface {
	// Write writes whole lines and waits until they are written. It returns the
	// number of bytes that the destination keeps: in a regular file, whole lines
	// only. It fails with [ErrReaderGone], or with the system's error and the file's
	// name. After a failure no further Write makes sense, unless the disk was full.
	Write(lines []byte) (int, error)

	// ReaderGone reports whether the reader of a pipe or socket has closed its end.
	// It asks the kernel, so no write is needed to find out.
	ReaderGone() bool

	// Close closes what Open has opened; standard output stays open. Some file
	// systems report a failed write only here.
	Close() error

	// batchSize is the number of bytes that one write should have under load.
	batchSize() int

	// writeNow writes as much as the destination takes without waiting for a reader,
	// which may end within a line, and returns the number of bytes. slow means that
	// a recent write took long.
	writeNow(lines []byte, slow bool) (int, error)

	// retryable reports whether a Write that failed with err can succeed later
	// without a restart.
	retryable(err error) bool
}

// Open opens the file at path for appending, so that a restart loses no record, and
// creates it with mode 0640 if it does not exist. "-" is standard output. Opening a
// FIFO waits until a process reads it, or ctx is done.
func Open(ctx context.Context, path string) (Output, error) {
	if path == "-" {
		return newOutput(os.Stdout, false)
	}
	f, err := safeopen.Append(ctx, path, 0o640)
	if err != nil {
		return nil, err
	}
	return newOutput(f, true)
}

// newOutput makes the output for the kind of file that f is. If owned, Close closes f.
func newOutput(f *os.File, owned bool) (Output, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("stat output: %w", err)
	}
	d := newDescriptor(f, owned)
	switch mode := info.Mode(); {
	case mode.IsRegular():
		return &regularFile{d}, nil
	case mode&os.ModeNamedPipe != 0:
		return newPipe(d), nil
	case mode&os.ModeSocket != 0:
		return &socket{d}, nil
	}
	return &device{d}, nil
}
