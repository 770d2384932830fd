package cli_test

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// onThread runs f on a new thread, which ends with f. What f does to the thread affects
// the processes that f starts, and no other test.
func onThread(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // not unlocked, so that the thread ends with the goroutine
		done <- f()
	}()
	return <-done
}

// privateMount mounts an empty tmpfs on dir, for this thread and the processes it
// starts.
func privateMount(dir, options string) error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return os.NewSyscallError("unshare", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return os.NewSyscallError("make mounts private", err)
	}
	return os.NewSyscallError("mount tmpfs on "+dir, unix.Mount("tmpfs", dir, "tmpfs", 0, options))
}

// dropCapabilities drops all capabilities of the processes that this thread starts,
// also of root's.
func dropCapabilities() error {
	for capability := uintptr(0); ; capability++ {
		err := unix.Prctl(unix.PR_CAPBSET_DROP, capability, 0, 0, 0)
		if errors.Is(err, unix.EINVAL) && capability > unix.CAP_LAST_CAP {
			return nil // the kernel has no more capabilities
		}
		if err != nil {
			return fmt.Errorf("drop capability %d: %w", capability, err)
		}
	}
}
