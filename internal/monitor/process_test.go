package monitor

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/internal/boottime"
	"github.com/tcpshift/tcpshift/internal/detect"
)

// A process is gone once it has ended, whether its parent has waited for it or not; another
// process with its pid is not that process.
func TestIsGone_RealProcesses(t *testing.T) {
	if !inInitialPidns() {
		t.Skip("the pids here are not those of the initial pid namespace")
	}
	own := uint32(os.Getpid())
	if isGone(detect.Process{PID: own, At: boottime.Now()}) {
		t.Error("this process is gone")
	}
	if !isGone(detect.Process{PID: own, At: time.Second}) {
		t.Error("a process that lived with this pid a second after the host's start is not gone")
	}
	child := exec.Command("cat") // until its standard input ends
	in, err := child.StdinPipe()
	if err == nil {
		err = child.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	p := detect.Process{PID: uint32(child.Process.Pid), At: boottime.Now()}
	if isGone(p) {
		t.Error("the child is gone while it runs")
	}
	in.Close()
	for deadline := time.Now().Add(10 * time.Second); !isGone(p); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("a zombie is not gone")
		}
	}
	if err := child.Wait(); err != nil {
		t.Error(err)
	}
	if !isGone(p) {
		t.Error("the child is not gone after it was waited for")
	}
}

// The text of /proc/PID/stat decides, whatever name the process has given itself.
func TestIsGone_Stat(t *testing.T) {
	stat := func(name, state string, threads, started int) string {
		return fmt.Sprintf("7 (%s) %s%s %d 0 %d 1 2", name, state, strings.Repeat(" 1", 16), threads, started)
	}
	for _, tt := range []struct {
		name, stat string
		want       bool
	}{
		{"it lives", stat("curl", "S", 1, 1000), false},
		{"it has started in that moment", stat("curl", "S", 1, 1050), false},
		{"another process", stat("curl", "S", 1, 1051), true},
		{"a zombie", stat("curl", "Z", 1, 1000), true},
		{"a zombie with living threads", stat("curl", "Z", 3, 1000), false},
		{"dead", stat("curl", "X", 0, 1000), true},
		{"a hostile name", stat(") Z 1 (", "S", 1, 1000), false},
		{"another hostile name", stat("x) S 1 1 1 1", "Z", 1, 1000), true},
		{"a text that was cut", "7 (curl) Z 1", false},
		{"nothing", "", false},
	} {
		if got := statShowsEnd([]byte(tt.stat), 10500*time.Millisecond); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}
