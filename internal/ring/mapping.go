package ring

import (
	"encoding/binary"
	"errors"
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A record begins with its length and two flags in four bytes, and with four bytes that
// are private to the kernel (include/uapi/linux/bpf.h, BPF_RINGBUF_*).
const (
	headerBytes = 8
	busyBit     = 1 << 31 // the program has not submitted the record yet
	discardBit  = 1 << 30 // the program has discarded the record
)

// maxUnreleased bounds the bytes that are read but not yet released. Every program that
// reserves a record reads the consumer position, on any CPU, so writing it for each
// sample would cost both sides a cache miss each time.
const maxUnreleased = 256 << 10

// mapping is one ring buffer, mapped into memory, and its next sample.
type mapping struct {
	consumer, producer *uint64 // positions: counts of bytes, which never wrap
	data               []byte  // the ring mapped twice in a row, so that every record is contiguous
	mask               uint64
	maps               [][]byte

	position uint64 // read up to here
	last     uint64 // where the last record before position begins
	released uint64 // the consumer position that the kernel sees
	limit    uint64 // the producer position at the last refresh

	sample []byte // the next one; nil: none up to limit, or its record is busy
	end    uint64 // the position after the next sample
	time   uint64 // of the next sample; meaningless in the priority ring
}

// newMapping maps a ring buffer: a page with the consumer position, a page with the
// producer position, then the data (kernel/bpf/ringbuf.c, struct bpf_ringbuf).
func newMapping(b Buffer) (*mapping, error) {
	page := os.Getpagesize()
	consumer, err := unix.Mmap(b.FD, 0, page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, err
	}
	producer, err := unix.Mmap(b.FD, int64(page), page+2*b.Size, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, errors.Join(err, unix.Munmap(consumer))
	}
	m := &mapping{
		consumer: (*uint64)(unsafe.Pointer(&consumer[0])), producer: (*uint64)(unsafe.Pointer(&producer[0])),
		data: producer[page:], mask: uint64(b.Size) - 1, maps: [][]byte{consumer, producer},
	}
	m.position = atomic.LoadUint64(m.consumer)
	m.released, m.last = m.position, m.position
	return m, nil
}

// refresh reads the producer position and finds the next sample.
func (m *mapping) refresh() {
	m.limit = atomic.LoadUint64(m.producer)
	m.findNext()
}

// take returns the next sample and finds the one after it. The sample is valid until the
// next call of release.
func (m *mapping) take() []byte {
	sample := m.sample
	if m.position-m.released >= min(maxUnreleased, m.mask/4) {
		m.release()
	}
	m.advance()
	m.findNext()
	return sample
}

// findNext sets sample, end and time. It skips discarded records and stops at a busy one.
func (m *mapping) findNext() {
	m.sample = nil
	for m.position != m.limit {
		at := m.position & m.mask
		// Atomic: the kernel's xchg of the header makes the sample's bytes visible.
		header := atomic.LoadUint32((*uint32)(unsafe.Pointer(&m.data[at])))
		if header&busyBit != 0 {
			return
		}
		length := uint64(header &^ (busyBit | discardBit))
		m.end = m.position + (headerBytes+length+7)&^7
		if header&discardBit == 0 {
			m.sample = m.data[at+headerBytes : at+headerBytes+length : at+headerBytes+length]
			if length >= 8 {
				m.time = binary.NativeEndian.Uint64(m.sample)
			}
			return
		}
		m.advance()
	}
}

// advance moves behind the record that ends at m.end.
func (m *mapping) advance() {
	m.last, m.position = m.position, m.end
}

// blocked reports whether the next record is busy, so that nothing behind it can be read.
func (m *mapping) blocked() bool {
	return m.sample == nil && m.position != m.limit
}

// release lets the kernel overwrite all records before the last one that was read. It keeps that one,
// so that the kernel takes the reader for awake: see Sleep.
func (m *mapping) release() {
	m.releaseUpTo(m.last)
}

// releaseAll lets the kernel overwrite all records that were read.
func (m *mapping) releaseAll() {
	m.releaseUpTo(m.position)
}

func (m *mapping) releaseUpTo(position uint64) {
	if m.released < position {
		atomic.StoreUint64(m.consumer, position)
		m.released = position
	}
}

func (m *mapping) close() error {
	var errs []error
	for _, b := range m.maps {
		errs = append(errs, unix.Munmap(b))
	}
	m.maps = nil
	return errors.Join(errs...)
}
