// Package ring reads BPF ring buffers where they lie: samples are handed over in
// place, and the kernel is told how far the reader is once for many of them. It knows
// when a sample was made, and must not know what else it says.
package ring

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/internal/monotonic"
)

// Buffer names one ring buffer.
type Buffer struct {
	FD   int
	Size int // bytes
}

// readings of the clock here and in a program may differ by less, even while the
// kernel adjusts it (kernel/time/timekeeping.c, ktime_get_mono_fast_ns).
const readings = time.Microsecond

// Reader reads several ring buffers as if they were one. A sample begins with the
// time when its program began, in nanoseconds of CLOCK_MONOTONIC. It is for one
// goroutine.
type Reader struct {
	parts []*part
	ahead *part // nil: none
	whole bool  // nobody writes any more
	epoll int
}

// New maps the parts, and, if it is not nil, one whose samples go before all others
// that were made after them, and which have no time. The caller must Close the reader.
func New(parts []Buffer, ahead *Buffer) (*Reader, error) {
	r := &Reader{epoll: -1}
	if err := r.open(parts, ahead); err != nil {
		return nil, errors.Join(fmt.Errorf("open ring buffer: %w", err), r.Close())
	}
	return r, nil
}

func (r *Reader) open(parts []Buffer, ahead *Buffer) (err error) {
	if r.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return err
	}
	for _, b := range parts {
		p, err := newPart(b)
		if err != nil {
			return err
		}
		r.parts = append(r.parts, p)
		// Edge-triggered: a wait ends when a program wakes it, not when there is a sample.
		event := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET}
		if err := unix.EpollCtl(r.epoll, unix.EPOLL_CTL_ADD, b.FD, &event); err != nil {
			return err
		}
	}
	if ahead != nil {
		r.ahead, err = newPart(*ahead)
	}
	return err
}

// Read waits until a program wakes it, at most as long as wait, and hands over each
// sample that there is; handle must not keep the slice. It returns when the time is
// over and the rings have been read, or after twice that time under load, or with
// handle's error, after which the sample counts as read.
//
// Samples of one part come in its order. Between parts the times decide, so that what
// was made once another had been submitted comes after it.
func (r *Reader) Read(wait time.Duration, handle func(sample []byte) error) error {
	deadline := time.Now().Add(wait)
	b := batch{handle: handle}
	if wait > 0 {
		b.latest = deadline.Add(wait)
	}
	for {
		left := time.Until(deadline)
		if err := r.wait(left); err != nil {
			return fmt.Errorf("wait for the ring buffer: %w", err)
		}
		if err := r.drain(&b); err != nil || left <= 0 || !time.Now().Before(deadline) {
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

// batch is what one Read hands over.
type batch struct {
	handle func(sample []byte) error
	latest time.Time // zero: there is time enough
	count  int
}

func (b *batch) take(p *part) error {
	b.count++
	return b.handle(p.take())
}

// over is asked for each sample, and looks at the clock for some.
func (b *batch) over() bool {
	const checkEvery = 256
	return b.count%checkEvery == 0 && !b.latest.IsZero() && time.Now().After(b.latest)
}

// drain looks at the rings until there is nothing new, or no time.
func (r *Reader) drain(b *batch) error {
	defer func() {
		for _, p := range r.parts {
			p.release()
		}
	}()
	for {
		before := b.count
		if err := r.look(b); err != nil || b.count == before || b.over() {
			return err
		}
	}
}

// look hands over what the rings hold now, in the order of its times.
//
// If B was made after A had been submitted to another ring, as two transitions of a
// socket are, and B is older than this look, then A was there before this look at A's
// ring. So nothing that is younger than the look is handed over, and the times put A
// before B. The samples that go ahead are looked for last for the same reason. Where A
// cannot be read yet, for it stands behind a record that is being written, B waits.
func (r *Reader) look(b *batch) error {
	until := uint64(math.MaxUint64)
	if len(r.parts) > 1 && !r.whole {
		until = uint64(monotonic.Now() - readings)
	}
	for _, p := range r.parts {
		p.look()
	}
	if r.ahead != nil {
		defer r.ahead.release()
		for r.ahead.look(); r.ahead.sample != nil; {
			if err := b.take(r.ahead); err != nil {
				return err
			}
		}
		if r.ahead.held() {
			return nil
		}
	}
	for {
		p, bound := r.earliest(until)
		if p == nil {
			return nil
		}
		for p.sample != nil && p.made <= bound {
			if err := b.take(p); err != nil {
				return err
			}
			if b.over() {
				return nil
			}
		}
	}
}

// earliest is the part whose next sample is the oldest, and the time up to which it
// stays so; nil if that sample is not older than until, or cannot be told yet.
func (r *Reader) earliest(until uint64) (first *part, bound uint64) {
	oldest, bound := until, until
	for _, p := range r.parts {
		switch {
		case p.held():
			return nil, 0 // what is behind that record may be older than all others
		case p.sample == nil:
		case p.made < oldest:
			first, oldest, bound = p, p.made, oldest
		case p.made < bound:
			bound = p.made
		}
	}
	return first, bound
}

// timeOf reads when a sample was made.
func timeOf(sample []byte) uint64 {
	return binary.NativeEndian.Uint64(sample)
}

// Crowded says whether half of one part is taken, as the kernel sees it. It may be
// asked while a sample is being handled.
func (r *Reader) Crowded() bool {
	for _, p := range r.parts {
		if atomic.LoadUint64(p.producer)-atomic.LoadUint64(p.consumer) > p.mask/2 {
			return true
		}
	}
	return false
}

// Finish says that nobody writes any more: the next Read hands over all there is.
func (r *Reader) Finish() { r.whole = true }

// Close gives everything back. It may be called twice.
func (r *Reader) Close() error {
	var errs []error
	for _, p := range r.parts {
		errs = append(errs, p.close())
	}
	if r.ahead != nil {
		errs = append(errs, r.ahead.close())
	}
	r.parts, r.ahead = nil, nil
	if r.epoll >= 0 {
		errs = append(errs, unix.Close(r.epoll))
		r.epoll = -1
	}
	return errors.Join(errs...)
}
