package kernel_test

import (
	"errors"
	"os"
	"strings"
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
// The steps add up to 0, and no parallel test runs beside this one, so no other test sees
// them.
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
			harness.AwaitRecord(t, child.Cookie()) // the step must not come before the stream has it
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

// A connection lasts while the host is suspended, and the first event after it has the
// right time. Only a guest is suspended, if its machine can be; elsewhere the test runs
// without.
func TestConnection_Suspended(t *testing.T) {
	var cookie uint64
	var opened, closed span
	var suspended time.Duration
	lines := harness.RecordsByCookie(t, func(n *tcplab.Netns) {
		listener := n.Listen(tcplab.V4.Anywhere(7100))
		var c, child *tcplab.Socket
		opened = during(func() {
			c = n.Dial(tcplab.V4.At(7100))
			child = listener.Accept()
		})
		cookie = c.Cookie()
		suspended = suspend(t)
		closed = during(func() { c.Close(); child.Await(tcplab.CloseWait) })
		child.Close()
		listener.Close()
	})
	t.Logf("suspended for %v", suspended)
	for _, l := range harness.RecordsWith(lines, "transition", cookie) {
		if l.New == "FIN_WAIT1" && (!closed.has(l.Time) || l.InState == nil || time.Duration(*l.InState) < suspended) {
			t.Errorf("want a time from %v to %v, and in_state_ns at least %v: %s", closed.from, closed.until, suspended, l.Raw)
		}
	}
	connections := harness.RecordsWith(lines, "connection", cookie)
	if len(connections) != 1 {
		t.Fatalf("%d connection records, want 1", len(connections))
	}
	checkWhole(t, connections[0]) // duration_ns is what lies between opened and time
	if l := connections[0]; l.Opened == nil || !opened.has(*l.Opened) || l.Duration == nil || time.Duration(*l.Duration) < suspended {
		t.Errorf("want opened from %v to %v, and duration_ns at least %v: %s", opened.from, opened.until, suspended, l.Raw)
	}
}

// suspend suspends a guest to memory for some seconds, and returns for how long. Machines
// that can only idle (arm64) are not suspended: their clocks go on. Guests with Linux 6.1 do
// not wake up.
func suspend(t *testing.T) time.Duration {
	t.Helper()
	const alarm, state, events = "/sys/class/rtc/rtc0/wakealarm", "/sys/power/state", "/sys/power/wakeup_count"
	depth, _ := os.ReadFile("/sys/power/mem_sleep")
	if _, err := os.Stat(alarm); err != nil || os.Args[0] != guest.TestBinary || harness.IsBefore(t, 6, 12) ||
		!strings.Contains(string(depth), "[deep]") {
		return 0
	}
	before := suspendedUntilNow()
	count, err := os.ReadFile(events)
	err = errors.Join(err, os.WriteFile(alarm, []byte("+8"), 0), os.WriteFile(events, count, 0))
	if err != nil {
		t.Fatal(err)
	}
	// By the count, the kernel gives up if the alarm comes before this machine is asleep.
	if err := os.WriteFile(state, []byte("mem"), 0); errors.Is(err, unix.EBUSY) {
		t.Log("the guest was too slow to fall asleep before the alarm")
		return 0
	} else if err != nil {
		t.Fatal(err)
	}
	lasted := suspendedUntilNow() - before
	if lasted < time.Second {
		t.Fatalf("the guest was suspended for %v, want a second at least", lasted)
	}
	return lasted
}

// suspendedUntilNow is the time since boot for which the host was suspended, to some
// microseconds.
func suspendedUntilNow() time.Duration {
	var boot, running unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &boot)
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &running)
	return time.Duration(boot.Nano() - running.Nano()).Truncate(time.Millisecond)
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
