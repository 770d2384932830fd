package ring

import (
	"bytes"
	"encoding/binary"
	"os"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/internal/boottime"
)

// writer writes records as the kernel does, but leaves them busy until a test submits
// them; a BPF program cannot be stopped between the two.
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

// reserve writes a busy record and returns the function that submits it.
func (w *writer) reserve(sample []byte) (submit func()) {
	page := os.Getpagesize()
	record := w.memory[2*page+w.position:]
	binary.NativeEndian.PutUint32(record, busyBit|uint32(len(sample)))
	w.position += (headerBytes + len(sample) + 7) &^ 7
	binary.NativeEndian.PutUint64(w.memory[page:], uint64(w.position))
	return func() {
		copy(record[headerBytes:], sample)
		binary.NativeEndian.PutUint32(record, uint32(len(sample)))
	}
}

// newReader returns a Reader of the writers' rings; the last one is the priority ring.
func newReader(t *testing.T, writers ...*writer) *Reader {
	t.Helper()
	r := &Reader{} // a memfd cannot be added to an epoll set
	t.Cleanup(func() { r.Close() })
	for i, w := range writers {
		m, err := newMapping(w.buffer)
		if err != nil {
			t.Fatal(err)
		}
		if i < len(writers)-1 {
			r.rings = append(r.rings, m)
		} else {
			r.priority = m
		}
	}
	return r
}

func (r *Reader) expect(t *testing.T, when string, want ...[]byte) {
	t.Helper()
	var got [][]byte
	err := r.ReadFor(0, func(sample []byte) error {
		got = append(got, bytes.Clone(sample))
		return nil
	})
	if err != nil || !slices.EqualFunc(got, want, bytes.Equal) {
		t.Errorf("%s: got %q, %v, want %q", when, got, err, want)
	}
}

func sampleAt(at time.Duration, what string) []byte {
	return append(binary.NativeEndian.AppendUint64(nil, uint64(at)), what...)
}

// No sample overtakes an older one that is behind a busy record in another ring. A record
// of another socket may be busy because its CPU was interrupted, or because another CPU
// of the ring's group is writing it.
func TestOrder_BehindBusyRecord(t *testing.T) {
	one, other, priority := newWriter(t), newWriter(t), newWriter(t)
	r := newReader(t, one, other, priority)
	began := boottime.Now() - time.Second
	before, unrelated := sampleAt(began, "before"), sampleAt(began+1, "unrelated")
	first, second := sampleAt(began+2, "first"), sampleAt(began+3, "second")
	one.reserve(before)()
	submit := one.reserve(unrelated)
	one.reserve(first)()
	other.reserve(second)()
	r.expect(t, "while it is busy", before)
	submit()
	r.expect(t, "after it is submitted", unrelated, first, second)
}

// No sample overtakes a sample of the priority ring that is behind a busy record.
func TestOrder_BehindBusyPriorityRecord(t *testing.T) {
	one, other, priority := newWriter(t), newWriter(t), newWriter(t)
	r := newReader(t, one, other, priority)
	submit := priority.reserve([]byte("another path"))
	priority.reserve([]byte("its path"))()
	event := sampleAt(boottime.Now()-time.Second, "event")
	other.reserve(event)()
	r.expect(t, "while it is busy")
	submit()
	r.expect(t, "after it is submitted", []byte("another path"), []byte("its path"), event)
}
