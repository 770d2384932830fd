package kernel_test

import (
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/test/kernel/harness"
	"github.com/tcpshift/tcpshift/test/tcplab"
)

// longSleep is longer than a test may take: a Sleep of it that ends was woken.
const longSleep = 20 * time.Second

func (w *writer) sleep(limit time.Duration) (woken bool, took time.Duration) {
	w.t.Helper()
	began := time.Now()
	woken, err := w.reader.Sleep(limit)
	if err != nil {
		w.t.Fatal(err)
	}
	return woken, time.Since(began)
}

// A sleep ends at once if there is a sample, and at its limit if there is none.
func TestRing_SleepLimits(t *testing.T) {
	w := newWriter(t, 2)
	if woken, took := w.sleep(20 * time.Millisecond); woken || took < 20*time.Millisecond {
		t.Errorf("a sleep beside an empty ring: woken %v after %v, want the limit", woken, took)
	}
	w.write(numbered(1, 16))
	if woken, _ := w.sleep(longSleep); !woken {
		t.Error("a sleep beside a sample was not woken")
	}
	if got := w.read(); len(got) != 1 {
		t.Errorf("%d samples after the sleep, want 1", len(got))
	}
	if woken, _ := w.sleep(20 * time.Millisecond); woken {
		t.Error("a sleep after the sample was read was woken")
	}
	w.reader.Wake()
	if woken, _ := w.sleep(longSleep); !woken {
		t.Error("a sleep after Wake was not woken")
	}
	time.AfterFunc(20*time.Millisecond, w.reader.Wake)
	if woken, _ := w.sleep(longSleep); !woken {
		t.Error("Wake did not end a sleep")
	}
	if woken, _ := w.sleep(20 * time.Millisecond); woken {
		t.Error("a sleep long after Wake was woken")
	}
}

// However close a sample comes to the moment at which the reader goes to sleep, it is never lost.
func TestRing_NoLostWakeUp(t *testing.T) {
	w := newWriter(t, 1)
	w.program(place{0, 16}) // loads it
	const samples = 3000
	began := time.Now()
	go func() {
		for n := range samples {
			for pause := n % 64 * 500; pause > 0; pause-- {
				runtime.KeepAlive(pause)
			}
			for !w.write(numbered(n, 16)) {
				time.Sleep(time.Millisecond) // until the reader has made room
			}
		}
	}()
	for got := 0; got < samples; {
		if woken, took := w.sleep(longSleep); !woken {
			t.Fatalf("after %d samples, %v after the start: a sleep of %v was not woken", got, time.Since(began), took)
		}
		got += len(w.read())
	}
}

// Programs do not wake a reader that is awake: it reads many samples at once.
func TestRing_AwakeReaderIsNotWoken(t *testing.T) {
	w := newWriter(t, 1)
	w.write(numbered(0, 16))
	w.read()
	done := make(chan struct{})
	const samples = 500
	go func() {
		defer close(done)
		for n := range samples {
			w.write(numbered(n, 16))
			time.Sleep(200 * time.Microsecond)
		}
	}()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before, got := switches(t), 0
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		if err := w.reader.ReadFor(40*time.Millisecond, func([]byte) error { got++; return nil }); err != nil {
			t.Fatal(err)
		}
	}
	if got != samples {
		t.Errorf("%d samples, want %d", got, samples)
	}
	if waits := switches(t) - before; waits > samples/4 {
		t.Errorf("the reader has waited %d times for %d samples, want one wait for many", waits, samples)
	}
}

// switches is how often this thread has waited.
func switches(t *testing.T) int64 {
	t.Helper()
	var usage unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_THREAD, &usage); err != nil {
		t.Fatal(err)
	}
	return usage.Nvcsw
}

// A connection on a quiet host wakes the tracer: its records come long before a sleep would end by
// itself.
func TestRing_TrickleWakesTracer(t *testing.T) {
	n := tcplab.NewNetns(t)
	listener := n.Listen(tcplab.V4.At(7600))
	tr := harness.StartTracer(t, harness.InNamespace(n))
	for i := range 3 {
		time.Sleep(1200 * time.Millisecond) // by then the second sleep has begun, whose limit is 2 s
		began := time.Now()
		client := n.Dial(tcplab.V4.At(7600))
		child := listener.Accept()
		tr.Await(func(text string) bool { return strings.Count(text, `"old_state":"SYN_SENT"`) > i })
		if late := time.Since(began); late > time.Second {
			t.Errorf("the records of connection %d came %v after it", i, late)
		}
		client.Close()
		child.Close()
	}
}
