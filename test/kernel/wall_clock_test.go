package kernel_test

import (
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/test/kernel/harness"
	"github.com/tcpshift/tcpshift/test/kernelmatrix/guest"
	"github.com/tcpshift/tcpshift/test/tcplab"
)

// opened is the very time that the stream gave to the socket's first transition, and
// durations have no step in them, however the wall clock is set meanwhile. Only a guest's
// clock is set; elsewhere the clock stays.
//
// The tests of this file come last: none that compares wall-clock times runs beside them.
func TestConnection_OpenedAfterClockSteps(t *testing.T) {
	var cookies []uint64
	began := time.Now()
	lines := harness.RecordsByCookie(t, func(n *tcplab.Netns) {
		var ends []*tcplab.Socket
		listener := n.Listen(tcplab.V4.Anywhere(7100))
		for _, step := range []time.Duration{time.Hour, -2 * time.Hour, time.Hour} {
			c := n.Dial(tcplab.V4.At(7100))
			child := listener.Accept()
			child.Await(tcplab.Established)
			harness.AwaitRead(t, child.Cookie()) // the step must not come before the stream has it
			ends, cookies = append(ends, c, child), append(cookies, c.Cookie(), child.Cookie())
			setClock(t, step)
			time.Sleep(100 * time.Millisecond) // the tracer sees the step
		}
		for _, s := range ends {
			s.Close()
		}
		listener.Close()
	})
	longest := uint64(time.Since(began)) // by the monotonic clock
	for _, cookie := range cookies {
		transitions := harness.RecordsWith(lines, "transition", cookie)
		connections := harness.RecordsWith(lines, "connection", cookie)
		if len(transitions) < 5 || len(connections) != 1 {
			t.Fatalf("%d transitions and %d connection records of one socket, want 5 and 1", len(transitions), len(connections))
		}
		first, l := transitions[0], connections[0]
		if l.Opened == nil || !l.Opened.Equal(first.Time) {
			t.Errorf("opened is not the time of the first transition:\n%s%s", first.Raw, l.Raw)
		}
		if l.Duration == nil || *l.Duration > longest {
			t.Errorf("duration_ns is longer than the %d ns of the test: %s", longest, l.Raw)
		}
	}
}

// setClock sets the wall clock by a step, if this is a guest.
func setClock(t *testing.T, step time.Duration) {
	t.Helper()
	if os.Args[0] != guest.TestBinary {
		return
	}
	now := unix.NsecToTimespec(time.Now().Add(step).UnixNano())
	if err := unix.ClockSettime(unix.CLOCK_REALTIME, &now); err != nil {
		t.Fatalf("set the wall clock: %v", err)
	}
}
