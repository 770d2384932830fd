// Package threads makes this process independent of new threads once it has started. The Go
// runtime ends a process for which it can start no thread: a user who fills the host's table of
// processes (kernel.pid_max), or the cgroup's (pids.max), would end it.
package threads

import (
	"runtime"
	"sync"
)

const (
	// maxProcs bounds GOMAXPROCS. The goroutine that reads the stream is the only one that computes
	// much; the garbage collector uses the others. With all CPUs of a large host it would want as
	// many threads at once.
	maxProcs = 8
	// blocked is how many threads may wait in system calls at a time: for the ring buffers, the
	// output, a second output that hangs, signals, the kernel's tables (three), files in /proc,
	// arguments that processes keep from being read (four), standard error, the runtime's monitor and
	// its template thread.
	blocked = 15
	// reserved is how many threads are started for them, with some to spare.
	reserved = 26
)

// Reserve lowers GOMAXPROCS to 8 if it is higher, and starts as many threads as this process can need
// at a time: GOMAXPROCS and 26 for system calls that wait. It returns when all of them have run. The
// runtime never ends a thread, except one that a goroutine leaves locked.
func Reserve() {
	if runtime.GOMAXPROCS(0) > maxProcs {
		runtime.GOMAXPROCS(maxProcs)
	}
	var started, done sync.WaitGroup
	release := make(chan struct{})
	for range runtime.GOMAXPROCS(0) + reserved {
		started.Add(1)
		done.Go(func() {
			runtime.LockOSThread() // so that all of them need a thread at the same time
			defer runtime.UnlockOSThread()
			started.Done()
			<-release
		})
	}
	started.Wait()
	close(release)
	done.Wait()
}
