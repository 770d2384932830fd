package sandbox

import (
	"errors"
	"fmt"
	"math"
	"os"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/internal/safeopen"
)

// errNoSignals is why a system call is not made in every thread.
var errNoSignals = errors.New("too many signals are queued for this user: raise its limit " +
	"(prlimit --sigpending=SOFT:HARD, LimitSIGPENDING= of systemd), or end the process that has them (SigQ in /proc/PID/status)")

// raiseSignalLimit raises RLIMIT_SIGPENDING for this process: without CAP_SYS_RESOURCE to the hard
// limit. An error changes nothing: roomForSignals looks at what remains.
func raiseSignalLimit() {
	if unix.Setrlimit(unix.RLIMIT_SIGPENDING, &unix.Rlimit{Cur: math.MaxUint64, Max: math.MaxUint64}) == nil {
		return
	}
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_SIGPENDING, &limit) == nil && limit.Cur < limit.Max {
		limit.Cur = limit.Max
		_ = unix.Setrlimit(unix.RLIMIT_SIGPENDING, &limit)
	}
}

// roomForSignals returns an error if the kernel would not queue a signal to each thread of this
// process now. Go makes a system call in every thread by such signals (syscall.AllThreadsSyscall).
// It waits for ever for a thread whose signal the kernel refuses, and all other goroutines wait with
// it. All processes of this user share the limit, in the user namespaces above this one, too.
//
// A timer takes the room of one signal (posix_timer_create in kernel/time/posix-timers.c), so
// timers find out whether there is enough. It must be called right before the system call: another
// process may take the room in between.
func roomForSignals() error {
	threads, err := countThreads()
	if err != nil {
		return fmt.Errorf("count the threads: %w", err)
	}
	timers := make([]int32, 0, 2*threads+8) // other threads may start, and other processes queue signals
	defer func() {
		for _, id := range timers {
			deleteTimer(id)
		}
	}()
	for len(timers) < cap(timers) {
		id, errno := createTimer()
		if errno == unix.EAGAIN {
			return errNoSignals
		}
		if errno != 0 { // this kernel or a filter of system calls does without timers
			return nil
		}
		timers = append(timers, id)
	}
	return nil
}

func countThreads() (int, error) {
	dir, err := safeopen.ProcDir("/proc/" + strconv.Itoa(os.Getpid()) + "/task")
	if err != nil {
		return 0, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	return len(names), err
}

// createTimer creates a timer that does nothing when it expires, and is never set.
func createTimer() (id int32, errno unix.Errno) {
	const sigevNone = 1                    // SIGEV_NONE in include/uapi/asm-generic/siginfo.h
	event := [8]uint64{1: sigevNone << 32} // struct sigevent; sigev_notify is at offset 12
	_, _, errno = unix.Syscall(unix.SYS_TIMER_CREATE, unix.CLOCK_MONOTONIC, uintptr(unsafe.Pointer(&event)), uintptr(unsafe.Pointer(&id)))
	return id, errno
}

func deleteTimer(id int32) { _, _, _ = unix.Syscall(unix.SYS_TIMER_DELETE, uintptr(id), 0, 0) }
