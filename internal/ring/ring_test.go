package ring

import (
	"bytes"
	"encoding/binary"
	"os"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/internal/monotonic"
)

// writer writes as the kernel does, but can be stopped within a record: no program
// can be made to stay there for as long as a test wants.
type writer struct {
	memory   []byte
	position int
	buffer   Buffer
}

func newWriter(t *testing.T) *writer {
	t.Helper()
	const size = 64 << 10
	fd, err := unix.MemfdCreate("ring", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	length := 2*os.Getpagesize() + 2*size
	if err := unix.Ftruncate(fd, int64(length)); err != nil {
		t.Fatal(err)
	}
	memory, err := unix.Mmap(fd, 0, length, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Munmap(memory) })
	return &writer{memory: memory, buffer: Buffer{fd, size}}
}

// reserve gives what submits the sample.
func (w *writer) reserve(sample []byte) (submit func()) {
	page := os.Getpagesize()
	record := w.memory[2*page+w.position:]
	binary.NativeEndian.PutUint32(record, busy|uint32(len(sample)))
	w.position += (headBytes + len(sample) + 7) &^ 7
	binary.NativeEndian.PutUint64(w.memory[page:], uint64(w.position))
	return func() {
		copy(record[headBytes:], sample)
		binary.NativeEndian.PutUint32(record, uint32(len(sample)))
	}
}

// newReader reads the writers' rings, the last of which goes ahead of the others.
func newReader(t *testing.T, writers ...*writer) *Reader {
	t.Helper()
	r := &Reader{epoll: -1} // a file that is no ring cannot be waited for
	t.Cleanup(func() { r.Close() })
	for i, w := range writers {
		p, err := newPart(w.buffer)
		if err != nil {
			t.Fatal(err)
		}
		if i < len(writers)-1 {
			r.parts = append(r.parts, p)
		} else {
			r.ahead = p
		}
	}
	return r
}

func (r *Reader) expect(t *testing.T, when string, want ...[]byte) {
	t.Helper()
	var got [][]byte
	err := r.Read(0, func(sample []byte) error {
		got = append(got, bytes.Clone(sample))
		return nil
	})
	if err != nil || !slices.EqualFunc(got, want, bytes.Equal) {
		t.Errorf("%s: got %q, %v, want %q", when, got, err, want)
	}
}

func made(at time.Duration, what string) []byte {
	return append(binary.NativeEndian.AppendUint64(nil, uint64(at)), what...)
}

// A transition may stand behind another socket's record that is still being written:
// its CPU was interrupted there, or another CPU of its group is at work.
func TestNothingOvertakesWhatStandsBehindARecordThatIsBeingWritten(t *testing.T) {
	one, other, ahead := newWriter(t), newWriter(t), newWriter(t)
	r := newReader(t, one, other, ahead)
	began := monotonic.Now() - time.Second
	before, stranger := made(began, "before"), made(began+1, "stranger")
	first, second := made(began+2, "first"), made(began+3, "second")
	one.reserve(before)()
	submit := one.reserve(stranger)
	one.reserve(first)()
	other.reserve(second)()
	r.expect(t, "while it is written", before)
	submit()
	r.expect(t, "then", stranger, first, second)
}

func TestNothingOvertakesAPathBehindOneThatIsBeingWritten(t *testing.T) {
	one, other, ahead := newWriter(t), newWriter(t), newWriter(t)
	r := newReader(t, one, other, ahead)
	submit := ahead.reserve([]byte("another path"))
	ahead.reserve([]byte("its path"))()
	event := made(monotonic.Now()-time.Second, "event")
	other.reserve(event)()
	r.expect(t, "while it is written")
	submit()
	r.expect(t, "then", []byte("another path"), []byte("its path"), event)
}
