package ring

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// # Sleeping
//
// A program that submits a sample wakes the reader only if the reader's position is exactly where the
// sample begins (bpf_ringbuf_commit() in kernel/bpf/ringbuf.c): then the reader has read all and may
// sleep. A reader that is awake must not be woken, because that costs more than all the rest of a
// sample. So it shows the kernel a position one record behind its own, and no sample ever begins there.
// Only Sleep shows the true position.
//
// No wake-up is lost. The program publishes its sample and then reads the position, with a full barrier
// between the two. Sleep publishes the position and then reads whether there is a sample; Go's atomic
// operations are sequentially consistent. So at least one of them sees what the other has done.

// alarms are what ends a Sleep, besides the programs: an eventfd that Wake writes to, and a timer that the
// kernel cancels when the wall clock is set. The timer expires in 2038, which ends one Sleep.
type alarms struct {
	wake, clockSet int         // descriptors
	woken          atomic.Bool // Wake was called, and no Sleep has ended since
	closing        sync.Mutex  // a Wake must not write to a descriptor that is closed
}

func (a *alarms) open() (err error) {
	if a.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return fmt.Errorf("make an eventfd: %w", err)
	}
	if a.clockSet, err = unix.TimerfdCreate(unix.CLOCK_REALTIME, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK); err != nil {
		return fmt.Errorf("make a timer: %w", err)
	}
	never := unix.ItimerSpec{Value: unix.Timespec{Sec: math.MaxInt32}}
	const flags = unix.TFD_TIMER_ABSTIME | unix.TFD_TIMER_CANCEL_ON_SET
	if err = unix.TimerfdSettime(a.clockSet, flags, &never, nil); err != nil {
		return fmt.Errorf("set a timer: %w", err)
	}
	return nil
}

// reset empties the descriptors, so that a signal that a Sleep has taken does not end the next one.
func (a *alarms) reset() {
	var count [8]byte
	_, _ = unix.Read(a.wake, count[:])     // EAGAIN: nobody called Wake
	_, _ = unix.Read(a.clockSet, count[:]) // EAGAIN: the clock was not set
}

func (a *alarms) close() error {
	a.closing.Lock()
	defer a.closing.Unlock()
	var errs []error
	for _, fd := range []*int{&a.wake, &a.clockSet} {
		if *fd >= 0 {
			errs = append(errs, unix.Close(*fd))
			*fd = -1
		}
	}
	return errors.Join(errs...)
}

// Wake ends the Sleep that is in progress, or else the next one. Any goroutine may call it at any time.
func (r *Reader) Wake() {
	r.alarms.closing.Lock()
	defer r.alarms.closing.Unlock()
	if r.alarms.wake < 0 {
		return
	}
	r.alarms.woken.Store(true)
	_, _ = unix.Write(r.alarms.wake, binary.NativeEndian.AppendUint64(nil, 1))
}

// Sleep waits until there is a sample, Wake is called, the wall clock is set, or limit is over. It
// reports whether something other than limit ended it. A sample that is not submitted yet ends it, too.
func (r *Reader) Sleep(limit time.Duration) (woken bool, err error) {
	defer r.alarms.woken.Store(false)
	if r.alarms.woken.Load() {
		r.alarms.reset()
		return true, nil
	}
	for _, m := range r.rings {
		m.releaseAll()
	}
	for _, m := range r.rings {
		if atomic.LoadUint64(m.producer) != m.position {
			return true, nil
		}
	}
	events, err := r.wakes.await(limit)
	if err != nil {
		return false, fmt.Errorf("wait for the ring buffer: %w", err)
	}
	for _, e := range events {
		if e.Fd == int32(r.alarms.wake) || e.Fd == int32(r.alarms.clockSet) {
			r.alarms.reset()
		}
	}
	return len(events) > 0, nil
}
