package detection_test

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"
	"testing"
	"time"
)

var busyLoops = flag.Int("busy-loops", 0, "how many busy loops of a high priority run beside the soak, each in a session of its own; 0: none")

// busyNice is the nice value of a busy loop: by the kernel's weights it leaves a tenth of its CPU to all other processes
// together.
const busyNice = -10

// startBusyLoops starts busy loops that run until the test ends.
func startBusyLoops(t *testing.T, count int) {
	t.Helper()
	began := time.Now()
	for range count {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), workloadEnv+`={"Busy":true}`)
		cmd.Stderr = os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if err := cmd.Start(); err != nil {
			t.Fatalf("start a busy loop: %v", err)
		}
		t.Cleanup(func() {
			if err := cmd.Process.Kill(); err != nil {
				t.Errorf("a busy loop has ended before the test: %v", err)
			}
			_ = cmd.Wait() // it was killed
			took := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
			t.Logf("a busy loop took %v of CPU time in %v", took.Round(time.Second), time.Since(began).Round(time.Second))
		})
	}
}

// runBusyLoop takes the time of one CPU until the parent of this process ends. The kernel may divide the CPUs among
// sessions first (CONFIG_SCHED_AUTOGROUP): then the nice value of the session counts as well as that of the thread.
func runBusyLoop() error {
	err := os.WriteFile("/proc/self/autogroup", []byte(strconv.Itoa(busyNice)), 0)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("set the priority of the session: %w", err)
	}
	runtime.LockOSThread()
	if err := syscall.Setpriority(syscall.PRIO_PROCESS, 0, busyNice); err != nil {
		return fmt.Errorf("set the priority: %w", err)
	}
	for parent := os.Getppid(); os.Getppid() == parent; {
		_ = time.Now()
	}
	return nil
}
