package harness

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"
)

// loadVariable makes a new process of this binary compete for the processors. Its value is
// the pid of the parent: the process ends when the parent kills it or has exited.
const loadVariable = "TCPSHIFT_LOAD"

// init runs before any test. In a process of [StormLoad] it never returns. Each wakeup
// may preempt another task anywhere, in a tracing program too where the kernel allows it.
func init() {
	if os.Getenv(loadVariable) == "" {
		return
	}
	defer os.Exit(0)
	for os.Getenv(loadVariable) == strconv.Itoa(os.Getppid()) {
		for began := time.Now(); time.Since(began) < 2*time.Millisecond; {
		}
		time.Sleep(200 * time.Microsecond)
	}
}

// StormLoad starts as many processes as TCPSHIFT_STORM_LOAD says, 0 by default. They compete
// with the storm of the test for the processors until the test ends.
func StormLoad(t *testing.T) {
	t.Helper()
	text := os.Getenv("TCPSHIFT_STORM_LOAD")
	if text == "" {
		return
	}
	count, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("TCPSHIFT_STORM_LOAD: %v", err)
	}
	for range count {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = []string{fmt.Sprintf("%s=%d", loadVariable, os.Getpid())}
		if err := cmd.Start(); err != nil {
			t.Fatalf("start a competing process: %v", err)
		}
		t.Cleanup(func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		})
	}
}
