package process

import (
	"os"
	"testing"
	"time"
)

// A process whose arguments cannot be read keeps nobody from reading those of other users. Once they
// can be read, or not be read for good, those of its user can be read again.
func TestArguments_Stuck(t *testing.T) {
	var r argsReader
	release := make(map[uint32]*os.File)
	stick := func(uid uint32) {
		t.Helper()
		reading, writing, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { writing.Close() })
		release[uid] = writing
		if b, ok := r.readFile(reading, uid); ok {
			t.Fatalf("of user %d, %q was read from a pipe that nobody writes to", uid, b)
		}
	}
	canRead := func(uid uint32) bool {
		t.Helper()
		file, err := os.Open("/proc/self/cmdline")
		if err != nil {
			t.Fatal(err)
		}
		b, ok := r.readFile(file, uid)
		return ok && len(b) > 0
	}
	stick(1)
	if canRead(1) {
		t.Error("a second goroutine waits for the arguments of one user")
	}
	for uid := uint32(2); uid <= maxStuck; uid++ {
		if !canRead(uid) {
			t.Errorf("the arguments of user %d are not read", uid)
		}
		stick(uid)
	}
	if canRead(maxStuck + 1) {
		t.Errorf("%d goroutines wait", maxStuck+1)
	}
	release[1].Close()
	for began := time.Now(); !canRead(1); time.Sleep(time.Millisecond) {
		if time.Since(began) > 10*time.Second {
			t.Fatal("the arguments of a user are never read again")
		}
	}
}
