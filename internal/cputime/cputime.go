// Package cputime measures the CPU time of short pieces of work, which other processes on the
// host do not prolong. The package must not decide how much CPU time is too much.
package cputime

import (
	"time"

	"golang.org/x/sys/unix"
)

// Timer measures from its Start.
type Timer struct {
	started time.Time
	thread  int
	used    time.Duration // by the thread, at the start
}

// Start starts a Timer for work of the calling goroutine.
func Start() Timer {
	return Timer{started: time.Now(), thread: unix.Gettid(), used: threadTime()}
}

// Elapsed is the CPU time of the thread since Start. Unless the caller has locked the thread
// (runtime.LockOSThread), it includes the time of other goroutines that ran there. If the
// goroutine is on another thread now, Elapsed is the time that has passed, which is longer.
func (t Timer) Elapsed() time.Duration {
	passed := time.Since(t.started)
	if unix.Gettid() != t.thread {
		return passed
	}
	return min(passed, threadTime()-t.used)
}

// threadTime is the CPU time of the calling thread.
func threadTime() time.Duration {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t) // never fails for this clock
	return time.Duration(t.Nano())
}
