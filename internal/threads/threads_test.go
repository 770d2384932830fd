package threads

import (
	"os"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func count(t *testing.T) int {
	t.Helper()
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	return len(tasks)
}

// After Reserve, goroutines that lock their threads and wait in system calls start no thread.
func TestReserve_NoFurtherThread(t *testing.T) {
	Reserve()
	before := count(t)
	if before < runtime.GOMAXPROCS(0)+blocked {
		t.Fatalf("%d threads, want at least %d", before, runtime.GOMAXPROCS(0)+blocked)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	fd := int(r.Fd()) // a read of it blocks the thread
	waiting := make(chan struct{}, blocked)
	for range blocked {
		go func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			waiting <- struct{}{}
			_, _ = unix.Read(fd, make([]byte, 1))
		}()
	}
	for range blocked {
		<-waiting
	}
	for began := time.Now(); time.Since(began) < 100*time.Millisecond; {
		runtime.GC()
	}
	if after := count(t); after > before {
		t.Errorf("%d threads after %d", after, before)
	}
}
