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
	began := time.Now()
	for timer.Elapsed() < waited+5*time.Millisecond {
		if time.Since(began) > time.Minute {
			t.Fatal("a minute of work takes less than 5ms of CPU time")
		}
	}
}

// On another thread the CPU time of the process counts: more than that of the goroutine, and
// nothing of other processes.
func TestTimer_OtherThread(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	timer := Start()
	timer.thread = -1
	own := Start()
	for own.Elapsed() < 5*time.Millisecond {
	}
	used := timer.Elapsed()
	if used < 5*time.Millisecond {
		t.Errorf("the thread has used 5ms, and the process %v", used)
	}
	time.Sleep(50 * time.Millisecond)
	if waited := timer.Elapsed() - used; waited > 25*time.Millisecond {
		t.Errorf("a wait of 50ms takes %v of CPU time", waited)
	}
}
