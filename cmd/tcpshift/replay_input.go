package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/tcpshift/tcpshift/internal/safeopen"
)

// openReplayed opens the file at path, or standard input for -. When ctx is done, each wait for a writer ends, also
// the wait in open(2), and the error is the cause of ctx.
func openReplayed(ctx context.Context, path string) (in io.ReadCloser, name string, err error) {
	if path == "-" {
		return interruptible(ctx, os.Stdin), "standard input", nil
	}
	type opened struct {
		file *os.File
		err  error
	}
	done := make(chan opened, 1)
	go func() {
		f, err := safeopen.Read(path)
		done <- opened{f, err}
	}()
	var o opened
	select {
	case o = <-done:
	case <-ctx.Done(): // the process ends
		return nil, path, context.Cause(ctx)
	}
	if errors.Is(o.err, safeopen.ErrOtherKind) {
		o.err = fmt.Errorf("%w: name a file or a FIFO, or - for standard input", o.err)
	}
	if o.err != nil {
		return nil, path, o.err
	}
	return interruptible(ctx, o.file), path, nil
}

// interruptible returns a reader of f whose Read ends when ctx is done. A regular file needs none: its reads do not wait for a
// writer.
func interruptible(ctx context.Context, f *os.File) io.ReadCloser {
	if info, err := f.Stat(); err == nil && info.Mode().IsRegular() {
		return f
	}
	p := &interruptibleReader{Closer: f, ctx: ctx, pieces: make(chan piece)}
	go p.fill(f)
	return p
}

// interruptibleReader returns what its goroutine has read from a file. Read fails with the cause of ctx when ctx is done.
type interruptibleReader struct {
	io.Closer
	ctx    context.Context
	pieces chan piece
	rest   []byte
	err    error // what Read returns after rest
}

type piece struct {
	bytes []byte // valid until the next piece is taken
	err   error
}

// fill reads from in until it fails. It has two buffers: one is read while the other is filled.
func (p *interruptibleReader) fill(in io.Reader) {
	buffers := [2][64 << 10]byte{}
	for i := 0; ; i ^= 1 {
		n, err := in.Read(buffers[i][:])
		select {
		case p.pieces <- piece{buffers[i][:n], err}:
		case <-p.ctx.Done():
			return
		}
		if err != nil {
			return
		}
	}
}

// Read implements [io.Reader].
func (p *interruptibleReader) Read(b []byte) (int, error) {
	if len(p.rest) == 0 && p.err == nil {
		select {
		case next := <-p.pieces:
			p.rest, p.err = next.bytes, next.err
		case <-p.ctx.Done():
			p.err = context.Cause(p.ctx)
		}
	}
	n := copy(b, p.rest)
	p.rest = p.rest[n:]
	if n > 0 {
		return n, nil
	}
	return 0, p.err
}
