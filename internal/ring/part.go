package ring

import (
	"errors"
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The head of a record: a length with two flags, and four bytes that are the kernel's
// own (include/uapi/linux/bpf.h, BPF_RINGBUF_*).
const (
	headBytes = 8
	busy      = 1 << 31 // still being written
	discarded = 1 << 30 // given up by its writer
)

// Every program that writes looks at the reader's position, on whichever CPU: to
// write it for each sample costs both sides a cache miss each time.
const mostUnreleased = 256 << 10

// part is one ring buffer, and the sample that is next in it.
type part struct {
	consumer, producer *uint64 // counts of bytes that never wrap
	data               []byte  // the ring, twice in a row, so that no record is in two pieces
	mask               uint64
	maps               [][]byte

	position uint64 // up to where samples have been taken
	told     uint64 // up to where the kernel has been told so
	limit    uint64 // up to where there is something, when last looked

	sample []byte // the next one; nil: there is none up to the limit, or it is being written
	after  uint64 // its end
	made   uint64 // its time; 0 where samples have none
}

// newPart: the first page is the reader's, the second the kernel's; then comes the
// ring (kernel/bpf/ringbuf.c, struct bpf_ringbuf).
func newPart(b Buffer) (*part, error) {
	page := os.Getpagesize()
	own, err := unix.Mmap(b.FD, 0, page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, err
	}
	kernels, err := unix.Mmap(b.FD, int64(page), page+2*b.Size, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, errors.Join(err, unix.Munmap(own))
	}
	p := &part{
		consumer: (*uint64)(unsafe.Pointer(&own[0])), producer: (*uint64)(unsafe.Pointer(&kernels[0])),
		data: kernels[page:], mask: uint64(b.Size) - 1, maps: [][]byte{own, kernels},
	}
	p.position = atomic.LoadUint64(p.consumer)
	p.told = p.position
	return p, nil
}

// look finds out how much there is, and the next sample of it.
func (p *part) look() {
	p.limit = atomic.LoadUint64(p.producer)
	p.next()
}

// take gives the next sample, and goes on to the one after it. What is taken may be
// looked at until the next release.
func (p *part) take() []byte {
	taken := p.sample
	if p.position-p.told >= min(mostUnreleased, p.mask/4) {
		p.release()
	}
	p.position = p.after
	p.next()
	return taken
}

// next leaves a record that is being written, and all behind it, for another look.
func (p *part) next() {
	p.sample = nil
	for p.position != p.limit {
		at := p.position & p.mask
		// Atomic, since the kernel's xchg of it makes the sample's bytes visible.
		head := atomic.LoadUint32((*uint32)(unsafe.Pointer(&p.data[at])))
		if head&busy != 0 {
			return
		}
		length := uint64(head &^ (busy | discarded))
		p.after = p.position + (headBytes+length+7)&^7
		if head&discarded == 0 {
			p.sample = p.data[at+headBytes : at+headBytes+length : at+headBytes+length]
			if length >= 8 {
				p.made = timeOf(p.sample)
			}
			return
		}
		p.position = p.after
	}
}

// held says whether the next record is still being written.
func (p *part) held() bool {
	return p.sample == nil && p.position != p.limit
}

// release lets the kernel write where samples have been taken.
func (p *part) release() {
	if p.told != p.position {
		atomic.StoreUint64(p.consumer, p.position)
		p.told = p.position
	}
}

func (p *part) close() error {
	var errs []error
	for _, m := range p.maps {
		errs = append(errs, unix.Munmap(m))
	}
	p.maps = nil
	return errors.Join(errs...)
}
