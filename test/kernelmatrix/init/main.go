// Command init is process 1 of a guest. It mounts /proc, /sys and other file systems,
// runs the tests, reports their exit status, and reboots. A test can use nothing else
// but the kernel.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/test/kernelmatrix/guest"
)

func main() {
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "init: this program must be process 1 of a guest")
		os.Exit(2)
	}
	status, err := run(guest.Runs(os.Args[1:]))
	if err != nil {
		status = guest.SetupFailed
		fmt.Println("init:", err)
	}
	report(guest.Ended, strconv.Itoa(status))
	drain()
	// Process 1 must not exit: the kernel would panic.
	for {
		fmt.Println("init: reboot:", unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART))
		time.Sleep(time.Second)
	}
}

func report(kind guest.Kind, value string) {
	fmt.Print(guest.Message{Kind: kind, Value: value}.Line())
}

// drain waits until the serial line has sent everything.
func drain() {
	const untilSent = 1 // tcdrain(3)
	_ = unix.IoctlSetInt(int(os.Stdout.Fd()), unix.TCSBRK, untilSent)
}

func run(runs []guest.Run) (status int, err error) {
	if err := mountAll(); err != nil {
		return 0, err
	}
	report(guest.Booted, release())
	// All runs begin at the same time. Their output is written one after the other.
	results := make([]chan result, len(runs))
	for i, r := range runs[1:] {
		results[i+1] = make(chan result, 1)
		go func() {
			var kept bytes.Buffer
			exit, err := runTests(r, &kept)
			results[i+1] <- result{exit, err, kept.Bytes()}
		}()
	}
	for i, r := range runs {
		report(guest.Running, strings.Join(r.Env, " "))
		var now result
		if i == 0 {
			now.status, now.err = runTests(r, os.Stdout)
		} else {
			now = <-results[i]
			_, _ = os.Stdout.Write(now.output)
		}
		if now.err != nil {
			return 0, now.err
		}
		status = max(status, now.status)
	}
	return status, nil
}

type result struct {
	status int
	err    error
	output []byte
}

// mounts is in the order of mounting: a mount point may be in an earlier file system.
var mounts = []struct{ fs, at string }{
	{"proc", "/proc"},
	{"sysfs", "/sys"},
	{"devtmpfs", "/dev"},
	{"tracefs", "/sys/kernel/tracing"},
	{"bpf", "/sys/fs/bpf"},
	{"cgroup2", "/sys/fs/cgroup"},
	{"tmpfs", "/tmp"},
}

func mountAll() error {
	for _, m := range mounts {
		if err := os.MkdirAll(m.at, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.fs, m.at, m.fs, 0, ""); err != nil {
			return fmt.Errorf("mount %s on %s: %w", m.fs, m.at, err)
		}
	}
	return nil
}

func release() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(u.Release[:])
}

func runTests(r guest.Run, output io.Writer) (status int, err error) {
	tests := exec.Command(guest.TestBinary, r.Arguments...)
	tests.Env = append(os.Environ(), r.Env...)
	tests.Dir = "/tmp"
	tests.Stdout, tests.Stderr = output, output
	err = tests.Run()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		fmt.Fprintln(output, "init: the tests:", err)
		return max(exit.ExitCode(), 1), nil // the exit code is -1 after a signal
	}
	return 0, err
}
