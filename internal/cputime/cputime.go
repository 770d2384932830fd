// Package cputime measures the CPU time of short pieces of work, which other processes on the
// host do not prolong. The package must not decide how much CPU time is too much.
package cputime

import (
	"time"

	"golang.org/x/sys/unix"
)

// Timer measures from its Start.
type Timer struct {
	thread          int
	ofThread, ofAll time.Duration // CPU time of the thread and of the process, at the start
}

// Start starts a Timer for work of the calling goroutine.
func Start() Timer {
	return Timer{unix.Gettid(), read(unix.CLOCK_THREAD_CPUTIME_ID), read(unix.CLOCK_PROCESS_CPUTIME_ID)}
}

// HasMoved reports whether the goroutine is on another thread than at the start.
func (t Timer) HasMoved() bool { return unix.Gettid() != t.thread }

// Elapsed is the CPU time of the thread since Start. Unless the caller has locked the thread
// (runtime.LockOSThread), it includes the time of other goroutines that ran there. If the
// goroutine is on another thread now, as on a busy host, it is the CPU time of the whole process,
// which is more.
func (t Timer) Elapsed() time.Duration {
	if t.HasMoved() {
		return read(unix.CLOCK_PROCESS_CPUTIME_ID) - t.ofAll
	}
	return read(unix.CLOCK_THREAD_CPUTIME_ID) - t.ofThread
}

func read(clock int32) time.Duration {
	var t unix.Timespec
	_ = unix.ClockGettime(clock, &t) // never fails for these clocks
	return time.Duration(t.Nano())
}
