// Package ring reads several BPF ring buffers as one, in the order of time. It hands over
// samples in place, without a copy, and releases many of them at once. It knows the
// timestamp at the start of a sample; it must not interpret anything else.
package ring

import (
	"errors"
	"fmt"
	"math"
	"sync/atomic"
	"time"

	"github.com/tcpshift/tcpshift/internal/boottime"
)

// Buffer is a BPF ring buffer.
type Buffer struct {
	FD   int // of the map
	Size int // bytes
}

// maxClockDifference bounds the difference between CLOCK_BOOTTIME as read here and as read
// by a program at the same moment, even while the kernel adjusts the clock
// (kernel/time/timekeeping.c, ktime_get_mono_fast_ns).
const maxClockDifference = time.Microsecond

// Reader reads several ring buffers. Each sample begins with a time in nanoseconds of CLOCK_BOOTTIME,
// except the samples of the priority buffer, which have none. It is a time at which the sample's program
// ran, or an earlier one: a deferred transition has the time at which it happened. A Reader must not be
// used by several goroutines, except for Wake.
type Reader struct {
	rings    []*mapping
	priority *mapping // nil: none
	finished bool     // no program writes any more
	wakes    wakes
	alarms   alarms
}

// New maps the buffers. Samples of priority, which may be nil, have no timestamp. A
// sample of priority is handed over before every sample made after its submission. The caller
// must Close the Reader.
func New(buffers []Buffer, priority *Buffer) (*Reader, error) {
	r := &Reader{alarms: alarms{wake: -1, clockSet: -1}}
	if err := r.open(buffers, priority); err != nil {
		return nil, errors.Join(fmt.Errorf("open ring buffer: %w", err), r.Close())
	}
	return r, nil
}

func (r *Reader) open(buffers []Buffer, priority *Buffer) (err error) {
	if err := r.wakes.open(); err != nil {
		return err
	}
	for _, b := range buffers {
		m, err := newMapping(b)
		if err != nil {
			return err
		}
		r.rings = append(r.rings, m)
		if err := r.wakes.add(b.FD); err != nil {
			return err
		}
	}
	if err := r.alarms.open(); err != nil {
		return err
	}
	for _, fd := range []int{r.alarms.wake, r.alarms.clockSet} {
		if err := r.wakes.add(fd); err != nil {
			return err
		}
	}
	if priority != nil {
		r.priority, err = newMapping(*priority)
	}
	return err
}

// ReadFor calls handle for each sample until wait is over and the rings are empty, under load for
// at most twice wait. With a wait of 0 it returns as soon as the rings are empty. It sleeps while
// no program wakes it. handle must not keep the slice. If handle fails, ReadFor returns its
// error, and the sample counts as read.
//
// Samples of one ring come in the ring's order. Between rings the timestamps decide: if
// sample B was made after sample A was submitted, A comes first.
func (r *Reader) ReadFor(wait time.Duration, handle func(sample []byte) error) error {
	waitUntil := time.Now().Add(wait)
	b := batch{handle: handle}
	if wait > 0 {
		b.deadline = waitUntil.Add(wait)
	}
	for {
		left := time.Until(waitUntil)
		if left > 0 {
			if _, err := r.wakes.await(left); err != nil {
				return fmt.Errorf("wait for the ring buffer: %w", err)
			}
		}
		if err := r.drain(&b); err != nil || left <= 0 || !time.Now().Before(waitUntil) {
			return err
		}
	}
}

// batch is what one call of ReadFor hands over.
type batch struct {
	handle   func(sample []byte) error
	deadline time.Time // zero: none
	count    int
}

func (b *batch) take(m *mapping) error {
	b.count++
	return b.handle(m.take())
}

// expired reports whether the deadline has passed. It is called for each sample and reads
// the clock for some.
func (b *batch) expired() bool {
	const checkEvery = 256
	return b.count%checkEvery == 0 && !b.deadline.IsZero() && time.Now().After(b.deadline)
}

// drain makes passes over the rings until one finds no sample, or the batch expires.
func (r *Reader) drain(b *batch) error {
	defer func() {
		for _, m := range r.rings {
			m.release()
		}
	}()
	for {
		before := b.count
		if err := r.pass(b); err != nil || b.count == before || b.expired() {
			return err
		}
	}
}

// pass hands over what the rings hold now, merged by time.
//
// Let B be a sample that was made after a sample A was submitted to another ring, as two
// transitions of one socket are. If B is older than the start of this pass, then A was
// in its ring before the pass refreshed that ring. So the pass hands over only samples
// that are older than its start, and their timestamps put A before B. It refreshes the
// priority ring last, for the same reason. If A is behind a busy record, B waits with it.
func (r *Reader) pass(b *batch) error {
	before := uint64(math.MaxUint64)
	if len(r.rings) > 1 && !r.finished {
		before = uint64(boottime.Now() - maxClockDifference)
	}
	for _, m := range r.rings {
		m.refresh()
	}
	if r.priority != nil {
		defer r.priority.releaseAll()
		for r.priority.refresh(); r.priority.sample != nil; {
			if err := b.take(r.priority); err != nil {
				return err
			}
		}
		if r.priority.blocked() {
			return nil
		}
	}
	for {
		m, bound := r.oldest(before)
		if m == nil {
			return nil
		}
		for m.sample != nil && m.time <= bound {
			if err := b.take(m); err != nil {
				return err
			}
			if b.expired() {
				return nil
			}
		}
	}
}

// oldest returns the ring whose next sample is the oldest, and the time up to which its
// samples stay older than those of the other rings. It returns nil if no sample is older
// than before, or if a ring is blocked, because the sample behind the busy record may be
// older than all others.
func (r *Reader) oldest(before uint64) (first *mapping, bound uint64) {
	oldest, bound := before, before
	for _, m := range r.rings {
		switch {
		case m.blocked():
			return nil, 0
		case m.sample == nil:
		case m.time < oldest:
			first, oldest, bound = m, m.time, oldest
		case m.time < bound:
			bound = m.time
		}
	}
	return first, bound
}

// Crowded reports whether one ring is at least half full, as the kernel sees it. handle
// may call it during ReadFor.
func (r *Reader) Crowded() bool {
	for _, m := range r.rings {
		if atomic.LoadUint64(m.producer)-atomic.LoadUint64(m.consumer) > m.mask/2 {
			return true
		}
	}
	return false
}

// Finish declares that no program writes any more: the next ReadFor hands over all samples.
func (r *Reader) Finish() { r.finished = true }

// Close unmaps the buffers. It may be called twice.
func (r *Reader) Close() error {
	var errs []error
	for _, m := range r.rings {
		errs = append(errs, m.close())
	}
	if r.priority != nil {
		errs = append(errs, r.priority.close())
	}
	r.rings, r.priority = nil, nil
	errs = append(errs, r.wakes.close(), r.alarms.close())
	return errors.Join(errs...)
}
