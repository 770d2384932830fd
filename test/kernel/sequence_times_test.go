package kernel_test

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/test/kernel/harness"
	"github.com/tcpshift/tcpshift/test/tcplab"
)

// span is the time in which a transition happened by the test's clock: from the start
// of the step that caused it until the test saw its effect.
type span struct {
	from, until harness.Moment
}

func during(step func()) span {
	from := harness.Now()
	step()
	return span{from, harness.Now()}
}

func (s span) has(at time.Time) bool {
	return s.from-harness.ClockSlack <= harness.Moment(at.UnixNano()) && harness.Moment(at.UnixNano()) <= s.until+harness.ClockSlack
}

// hasBetween reports whether a state that began in one span and ended in the other can
// have lasted so long.
func hasBetween(begin, end span, lasted uint64) bool {
	d := harness.Moment(lasted)
	return end.from-begin.until-harness.ClockSlack <= d && d <= end.until-begin.from+harness.ClockSlack
}

// time, in_state_ns, opened, duration_ns and established_ns agree with the test's own
// clock.
func TestSequence_Times(t *testing.T) {
	for _, f := range tcplab.Families {
		t.Run(f.String(), func(t *testing.T) { checkClock(t, f) })
	}
}

func checkClock(t *testing.T, f tcplab.Family) {
	var conns map[string]string
	var opened, half, shut span
	lines := harness.RecordsByCookie(t, func(n *tcplab.Netns) {
		listener := n.Listen(f.Anywhere(7100))
		c := n.Socket(f.Loopback())
		var child *tcplab.Socket
		opened = during(func() {
			c.Connect(f.At(7100))
			child = listener.Accept()
			child.Await(tcplab.Established)
		})
		conns = map[string]string{harness.ConnID(c.Cookie()): "client", harness.ConnID(child.Cookie()): "child"}
		half = during(func() {
			c.Shutdown(unix.SHUT_WR)
			child.Await(tcplab.CloseWait)
			c.Await(tcplab.FinWait2)
		})
		shut = during(func() { child.Shutdown(unix.SHUT_WR); c.Await(tcplab.Close); child.Await(tcplab.Close) })
		c.Close()
		child.Close()
		listener.Close()
	})
	// The span of each transition. The spans follow one another.
	spans := map[string]span{
		"CLOSE SYN_SENT": opened, "SYN_SENT ESTABLISHED": opened, "LISTEN SYN_RECV": opened, "SYN_RECV ESTABLISHED": opened,
		"ESTABLISHED FIN_WAIT1": half, "FIN_WAIT1 FIN_WAIT2": half, "ESTABLISHED CLOSE_WAIT": half,
		"FIN_WAIT2 TIME_WAIT": shut, "CLOSE_WAIT LAST_ACK": shut, "LAST_ACK CLOSE": shut,
	}
	seen := 0
	entered := map[string]span{}
	for _, l := range lines {
		switch who := conns[l.Conn]; {
		case who == "":
		case l.Type == "transition":
			seen++
			at, known := spans[l.Old+" "+l.New]
			if !known || !at.has(l.Time) {
				t.Errorf("the time is wrong, the %s did this between %v and %v: %s", who, at.from, at.until, l.Raw)
			}
			if begin, known := entered[who]; known && (l.InState == nil || !hasBetween(begin, at, *l.InState)) {
				t.Errorf("in_state_ns is wrong, the state lasted from %v to %v: %s", begin, at, l.Raw)
			}
			entered[who] = at
		case l.Type == "connection":
			if l.Duration == nil || !hasBetween(opened, shut, *l.Duration) || l.Established == nil || !hasBetween(opened, half, *l.Established) ||
				l.Opened == nil || !opened.has(*l.Opened) {
				t.Errorf("wrong times, the %s was opened in %v, ESTABLISHED until %v, closed in %v: %s", who, opened, half, shut, l.Raw)
			}
		}
	}
	if seen != 10 {
		t.Errorf("%d transitions, want 10", seen)
	}
}
