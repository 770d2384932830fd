// Package output writes finished lines to files, pipes and sockets, and decides
// what happens while the reader of an output stalls. It must not know what the
// lines mean, and it never leaves part of a line in a regular file, unless another
// process writes to the file too or the file cannot be truncated.
//
// # When a reader stalls
//
// The loop that makes the lines must not wait for a reader, a disk or a terminal. Each
// output therefore has an [Output] (the destination; one file of this package per kind), a
// [Queue] (bounded, written by a goroutine of its own) and a [Stream] (used by the loop).
//
//  1. A Stream gathers lines into a batch. The loop flushes it when it is large
//     enough, and at the end of each turn.
//  2. A Queue takes the batch. Only its goroutine calls write(2), and it holds no lock
//     meanwhile: a disk that hangs keeps the thread in the kernel, and nothing else.
//     Small batches are merged while they wait.
//  3. A Queue is full from its limit on, until at most half of the limit is queued.
//  4. A full queue first leaves events in the kernel's ring buffer: for at most
//     250 ms, and only until the ring is crowded. A burst has room in both. With several outputs
//     no events are left there: the other outputs would wait, too.
//  5. After that the stream is stalled. The loop counts transitions and connections
//     instead of encoding them, and defers loss and stats records. Alerts may exceed the
//     limit by a reserve of 4 MiB; beyond the reserve ([Stream.HasRoom]) they are
//     counted, too. Nothing waits.
//  6. When the queue has room again, the loss comes first, so that it stands where
//     the records are missing.
//  7. A full disk is a reader that stalls: the write is retried until [Queue.Drain]
//     is called, and is an error from then on. EAGAIN, on any kind of output, is always retried.
//  8. An output to a socket may have a [Spool] on disk. What the connection does not take moves there, so
//     that the queue stays empty. The queue is full, then, from 95 % of the spool's size on; the rest is
//     the reserve of alerts. A spool whose disk hangs holds up the queue's goroutine, and nothing else.
//  9. Drain waits for the reader. After [Queue.Abandon] it goes on while the output takes
//     something every 300 ms, and then fails with the number of bytes that were not written.
package output

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

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
	// only, unless truncating fails. It fails with [ErrReaderGone], or with the system's
	// error and the file's name. After a failure no further Write makes sense, unless the
	// disk was full.
	Write(lines []byte) (int, error)

	// ReaderGone reports whether the reader of a pipe or socket has closed its end, or a
	// terminal has hung up. No write is needed to find out. It is false for an output of
	// [OpenRemote], which connects again.
	ReaderGone() bool

	// Reopens reports whether Reopen can open something: the output is a regular file
	// with a path.
	Reopens() bool

	// Reopen opens the path again, for a file that was renamed. The error reports which of
	// the two files is in use.
	Reopen() error

	// Close closes what Open has opened; standard output stays open. Some file
	// systems report a failed write only here. A second Close does nothing.
	Close() error

	// batchSize is the number of bytes that one write should have under load.
	batchSize() int

	// try writes what it can, and returns the number of bytes. EAGAIN means that the rest
	// must be written after awaitRoom has returned. Other errors are those of Write.
	try(lines []byte) (int, error)

	// awaitRoom waits until try may be called again. It returns after a second at the latest.
	awaitRoom()

	// retryable reports whether a Write that failed with err can succeed later
	// without a restart.
	retryable(err error) bool
}

// FileOptions are the options of [OpenFile].
type FileOptions struct {
	// Follow permits a symbolic link as the last part of the path, a file of another user, and one
	// with several names, which are refused otherwise ([safeopen.ErrRefused]).
	Follow bool
	// Mode has the permissions of a file that OpenFile creates, less the umask; 0: 0600.
	Mode os.FileMode
}

// Open is [OpenFile] with the mode 0600.
func Open(ctx context.Context, path string, follow bool) (Output, error) {
	return OpenFile(ctx, path, FileOptions{Follow: follow})
}

// OpenFile opens the file at path for appending, so that a restart loses no record, and
// creates it if it does not exist. "-" is standard output. Opening a
// FIFO waits until a process reads it, or ctx is done. It refuses what [safeopen.Append] refuses, such as
// a socket or a block device. A path that stands for a descriptor of this process, such as /dev/fd/3 or
// /dev/stderr, is that descriptor, of whatever kind.
func OpenFile(ctx context.Context, path string, options FileOptions) (Output, error) {
	if path == "-" {
		return newOutput(descriptor{fd: int(os.Stdout.Fd()), name: os.Stdout.Name()}, "", options)
	}
	if options.Mode == 0 {
		options.Mode = 0o600
	}
	f, inherited, err := safeopen.Append(ctx, path, uint32(options.Mode), options.Follow)
	if err != nil {
		return nil, err
	}
	d := descriptor{file: f, fd: int(f.Fd()), name: path}
	if inherited {
		path = ""
	}
	out, err := newOutput(d, path, options)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return out, nil
}

// Same reports whether two outputs are one file, pipe or socket, so that their lines would mix. It is
// false for two outputs to the same device, such as /dev/null, and for outputs of [OpenRemote].
func Same(a, b Output) bool {
	first, ok := a.(interface{ identity() fileID })
	if !ok {
		return false
	}
	second, ok := b.(interface{ identity() fileID })
	return ok && first.identity() != fileID{} && first.identity() == second.identity()
}

// fileID identifies a file on this host.
type fileID struct{ device, inode uint64 }

// identity is zero for devices.
func (d *descriptor) identity() fileID {
	var info unix.Stat_t
	if unix.Fstat(d.fd, &info) != nil || info.Mode&unix.S_IFMT == unix.S_IFCHR {
		return fileID{}
	}
	return fileID{info.Dev, info.Ino}
}

// newOutput makes the output for the kind of file that d is. path is that of a file that can
// be opened again; empty: none.
func newOutput(d descriptor, path string, options FileOptions) (Output, error) {
	var info unix.Stat_t
	if err := unix.Fstat(d.fd, &info); err != nil {
		return nil, fmt.Errorf("stat %s: %w", d.name, err)
	}
	d.pause = firstPause
	switch info.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return &regularFile{descriptor: d, path: path, options: options}, nil
	case unix.S_IFIFO:
		return newPipe(d), nil
	case unix.S_IFSOCK:
		return &socket{d}, nil
	}
	return newDevice(d), nil
}
