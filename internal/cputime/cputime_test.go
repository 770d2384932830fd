package cputime

import (
	"runtime"
	"testing"
	"time"
)

// Waiting takes no CPU time, computing does.
func TestTimer_WorkAndWait(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	timer := Start()
	time.Sleep(50 * time.Millisecond)
	waited := timer.Elapsed()
	if waited > 25*time.Millisecond {
		t.Errorf("a wait of 50ms takes %v of CPU time", waited)
	}
	for timer.Elapsed() < waited+5*time.Millisecond {
		if time.Since(timer.started) > time.Minute {
			t.Fatal("a minute of work takes less than 5ms of CPU time")
		}
	}
}

// On another thread the time that has passed counts.
func TestTimer_OtherThread(t *testing.T) {
	timer := Start()
	timer.thread = -1
	time.Sleep(10 * time.Millisecond)
	if used := timer.Elapsed(); used < 10*time.Millisecond {
		t.Errorf("after a wait of 10ms it is %v", used)
	}
}
