package cli_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// inUserNamespace runs the binary as root of a new user namespace.
func inUserNamespace(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{Size: 1}},
	}
}

// withBoundingSet runs the binary as root with these capabilities only, as a container
// does.
func withBoundingSet(capabilities ...int) func(*exec.Cmd) {
	var without []string
	for c := range unix.CAP_LAST_CAP + 1 {
		if !slices.Contains(capabilities, c) {
			without = append(without, fmt.Sprintf("-cap_%d", c))
		}
	}
	return func(cmd *exec.Cmd) {
		cmd.Args = append([]string{"setpriv", "--inh-caps=-all", "--bounding-set=" + strings.Join(without, ","), cmd.Path}, cmd.Args[1:]...)
		cmd.Path = "/usr/bin/setpriv"
	}
}

// refuseSystemCall makes a system call of the processes that this thread starts fail, by a
// seccomp filter.
func refuseSystemCall(number uint32, errno syscall.Errno) error {
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS}, // the number is first in struct seccomp_data
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: number, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(errno)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	_, _, failed := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&program)))
	if failed != 0 {
		return os.NewSyscallError("seccomp", failed)
	}
	return nil
}

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
