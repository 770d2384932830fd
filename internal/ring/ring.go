// Package ring reads a BPF ring buffer where it lies: samples are handed over in
// place, and the kernel is told how far the reader is once for many of them. It must
// not know what samples say.
package ring

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"
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

// Reader reads one ring buffer. It is for one goroutine.
type Reader struct {
	consumer, producer *uint64 // counts of bytes that never wrap
	data               []byte  // the ring, twice in a row, so that no record is in two pieces
	mask               uint64

	position   uint64 // up to where samples have been handed over
	unreleased uint64 // how much of that the kernel has not been told

	epoll int
	maps  [][]byte
}

// New maps the ring buffer with this descriptor and size in bytes. The caller must
// Close the reader.
func New(fd, size int) (*Reader, error) {
	r := &Reader{epoll: -1, mask: uint64(size) - 1}
	if err := r.open(fd, size); err != nil {
		return nil, errors.Join(fmt.Errorf("open ring buffer: %w", err), r.Close())
	}
	return r, nil
}

// open: the first page is the reader's, the second the kernel's; then comes the ring
// (kernel/bpf/ringbuf.c, struct bpf_ringbuf).
func (r *Reader) open(fd, size int) error {
	page := os.Getpagesize()
	own, err := r.mmap(fd, 0, page, unix.PROT_READ|unix.PROT_WRITE)
	if err != nil {
		return err
	}
	kernels, err := r.mmap(fd, int64(page), page+2*size, unix.PROT_READ)
	if err != nil {
		return err
	}
	r.consumer, r.producer = (*uint64)(unsafe.Pointer(&own[0])), (*uint64)(unsafe.Pointer(&kernels[0]))
	r.data = kernels[page:]
	r.position = atomic.LoadUint64(r.consumer)
	if r.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return err
	}
	// Edge-triggered: a wait ends when a program wakes it, not when there is a sample.
	return unix.EpollCtl(r.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET})
}

func (r *Reader) mmap(fd int, offset int64, length, protection int) ([]byte, error) {
	m, err := unix.Mmap(fd, offset, length, protection, unix.MAP_SHARED)
	if err == nil {
		r.maps = append(r.maps, m)
	}
	return m, err
}

// Read waits until a program wakes it, at most as long as wait, and hands over each
// sample that there is, in order; handle must not keep the slice. It returns when
// the time is over and the ring has been read, or after twice that time under load,
// or with handle's error, after which the sample counts as read.
func (r *Reader) Read(wait time.Duration, handle func(sample []byte) error) error {
	deadline := time.Now().Add(wait)
	for {
		left := time.Until(deadline)
		if err := r.wait(left); err != nil {
			return fmt.Errorf("wait for the ring buffer: %w", err)
		}
		var latest time.Time
		if wait > 0 {
			latest = deadline.Add(wait)
		}
		if err := r.drain(latest, handle); err != nil || left <= 0 || !time.Now().Before(deadline) {
			return err
		}
	}
}

func (r *Reader) wait(atMost time.Duration) error {
	if atMost <= 0 {
		return nil
	}
	var events [1]unix.EpollEvent
	ms := (atMost + time.Millisecond - 1) / time.Millisecond
	if _, err := unix.EpollWait(r.epoll, events[:], int(ms)); err != nil && !errors.Is(err, unix.EINTR) {
		return err
	}
	return nil
}

// drain hands over what there is, until the latest time, if any. It stops before a
// record that is being written: the next time it will be complete.
func (r *Reader) drain(latest time.Time, handle func(sample []byte) error) error {
	defer r.release()
	const checkEvery = 256
	for n := 1; ; n++ {
		sample := r.next()
		if sample == nil {
			return nil
		}
		if err := handle(sample); err != nil {
			return err
		}
		if r.unreleased >= min(mostUnreleased, r.mask/4) {
			r.release()
		}
		if n%checkEvery == 0 && !latest.IsZero() && time.Now().After(latest) {
			return nil
		}
	}
}

// next goes on to the next sample; nil: there is none yet.
func (r *Reader) next() []byte {
	for r.position != atomic.LoadUint64(r.producer) {
		at := r.position & r.mask
		// Atomic, since the kernel's xchg of it makes the sample's bytes visible.
		head := atomic.LoadUint32((*uint32)(unsafe.Pointer(&r.data[at])))
		if head&busy != 0 {
			return nil
		}
		length := uint64(head &^ (busy | discarded))
		whole := (headBytes + length + 7) &^ 7
		r.position += whole
		r.unreleased += whole
		if head&discarded == 0 {
			return r.data[at+headBytes : at+headBytes+length : at+headBytes+length]
		}
	}
	return nil
}

// release lets the kernel write where samples have been handed over.
func (r *Reader) release() {
	atomic.StoreUint64(r.consumer, r.position)
	r.unreleased = 0
}

// Close gives everything back. It may be called twice.
func (r *Reader) Close() error {
	var errs []error
	for _, m := range r.maps {
		errs = append(errs, unix.Munmap(m))
	}
	r.maps, r.data, r.consumer, r.producer = nil, nil, nil, nil
	if r.epoll >= 0 {
		errs = append(errs, unix.Close(r.epoll))
		r.epoll = -1
	}
	return errors.Join(errs...)
}
