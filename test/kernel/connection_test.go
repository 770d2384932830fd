package kernel_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/internal/probe"
	"github.com/tcpshift/tcpshift/test/kernel/harness"
	"github.com/tcpshift/tcpshift/test/tcplab"
)

// closedBy is closed_by of each scenario's client and child; "" for an endpoint that is
// not there.
var closedBy = map[string][2]string{
	"client closes":        {"local", "peer"},
	"server closes":        {"peer", "local"},
	"simultaneous close":   {"local", "local"},
	"half close":           {"local", "peer"},
	"close in FIN_WAIT1":   {"local", "peer"},
	"close in FIN_WAIT2":   {"local", "peer"},
	"linger2 negative":     {"reset_sent", "reset_received"},
	"time wait overflow":   {"local", "peer"},
	"reset by linger 0":    {"reset_sent", "reset_received"},
	"reset received":       {"reset_received", "reset_sent"},
	"reset in CLOSE_WAIT":  {"reset_sent", "reset_received"},
	"disconnect":           {"reset_sent", "reset_received"},
	"unread data at close": {"reset_sent", "reset_received"},
	"unaccepted child":     {"reset_received", "reset_sent"},
	"established timeout":  {"timeout", "reset_received"},
	"refused":              {"refused", ""},
	"no port":              {"no_port", ""},
	"connect timeout":      {"timeout", ""},
	"defer accept":         {"local", "peer"},
}

// Every socket has one connection record, with closed_by, durations and the substate of
// the timewait socket it left.
func TestConnection_EndAndClosedBy(t *testing.T) {
	harness.RequireFeature(t, probe.SocketStorage)
	runs, records := harness.RunScenarios(t)
	for _, s := range runs {
		t.Run(fmt.Sprintf("%s %v", s.Name, s.Family), func(t *testing.T) {
			mine := s.Of(records[0])
			ends := harness.OfType(mine, "connection")
			checkEnds(t, s, ends)
			for _, p := range s.Out.Endpoints() {
				transitions, _ := harness.SplitBySocket(harness.OfType(mine, "transition"), p)
				checkDurations(t, transitions)
				checkSubstate(t, s.Name, transitions)
			}
		})
	}
}

func checkEnds(t *testing.T, s harness.ScenarioRun, ends []harness.Record) {
	t.Helper()
	want, known := closedBy[s.Name]
	if s.Name == "established timeout" && !harness.TracesResets() {
		want[1] = "" // without the tracepoint the reset in FIN_WAIT1 may come from either side
	}
	for i, p := range []*tcplab.Endpoint{s.Out.Client, s.Out.Child} {
		if p == nil || len(p.Path) < 2 {
			continue
		}
		mine, _ := harness.SplitBySocket(ends, p)
		if len(mine) != 1 {
			t.Errorf("%v > %v: %d connection records, want one", p.Local, p.Remote, len(mine))
			continue
		}
		if known && mine[0].ClosedBy != want[i] {
			t.Errorf("closed_by %q, want %q: %s", mine[0].ClosedBy, want[i], mine[0].Raw)
		}
		checkWhole(t, mine[0])
	}
}

func checkWhole(t *testing.T, l harness.Record) {
	t.Helper()
	if l.Partial || l.Opened == nil || l.Duration == nil || l.Established == nil {
		t.Errorf("partial or without times, although the tracer saw its start: %s", l.Raw)
		return
	}
	if got := l.Time.Sub(*l.Opened); (got - time.Duration(*l.Duration)).Abs() > time.Millisecond {
		t.Errorf("duration_ns %d, but from opened to time it is %d: %s", *l.Duration, got, l.Raw)
	}
	if *l.Established > *l.Duration {
		t.Errorf("established_ns is greater than duration_ns: %s", l.Raw)
	}
}

// checkDurations compares in_state_ns with the times of the records. The tracer
// compares the two clocks from time to time, so a millisecond is allowed.
func checkDurations(t *testing.T, lines []harness.Record) {
	t.Helper()
	var entered time.Time
	for i, l := range lines {
		if i == 0 {
			if l.InState != nil {
				t.Errorf("in_state_ns of a state whose start the tracer did not see: %s", l.Raw)
			}
		} else if l.InState == nil || (l.Time.Sub(entered)-time.Duration(*l.InState)).Abs() > time.Millisecond {
			t.Errorf("in_state_ns is wrong, want %v: %s", l.Time.Sub(entered), l.Raw)
		}
		if !l.Self {
			entered = l.Time
		}
	}
}

// checkSubstate: a client that has shut down both directions waits for the peer's FIN
// as a timewait socket in substate FIN_WAIT2. Otherwise the full socket waits for it.
func checkSubstate(t *testing.T, scenario string, lines []harness.Record) {
	t.Helper()
	if len(lines) == 0 || lines[len(lines)-1].New != "TIME_WAIT" {
		return
	}
	last := lines[len(lines)-1]
	var want string
	switch scenario {
	case "half close", "simultaneous close":
		want = "TIME_WAIT"
	case "orphan in FIN_WAIT2", "close in FIN_WAIT2":
		want = "FIN_WAIT2"
	default:
		return // depends on whether the ACK or the FIN comes first
	}
	if last.Substate != want {
		t.Errorf("time_wait_substate %q, want %q: %s", last.Substate, want, last.Raw)
	}
}

// sent_bytes and received_bytes are the bytes that the processes wrote and read.
func TestConnection_Bytes(t *testing.T) {
	harness.RequireFeature(t, probe.SocketStorage)
	for _, f := range tcplab.Families {
		t.Run(f.String(), func(t *testing.T) {
			request, answer := strings.Repeat("q", 30_001), strings.Repeat("a", 2_503)
			lines := harness.RecordsByCookie(t, func(n *tcplab.Netns) { converse(n, f, request, answer) })
			for _, l := range harness.OfType(lines, "connection") {
				sent, received := len(request), len(answer)
				switch l.Role {
				case "listener":
					sent, received = 0, 0
				case "server":
					sent, received = received, sent
				}
				if l.Sent != uint64(sent) || l.Received != uint64(received) {
					t.Errorf("sent %d and received %d, want %d and %d: %s", l.Sent, l.Received, sent, received, l.Raw)
				}
				if (l.RTT == 0) != (l.Role == "listener") {
					t.Errorf("rtt_ns %d: %s", l.RTT, l.Raw)
				}
			}
		})
	}
}

// converse sends a request and an answer over one connection and closes it in order.
func converse(n *tcplab.Netns, f tcplab.Family, request, answer string) {
	listener := n.Listen(tcplab.V4.At(7100))
	if f != tcplab.V4 {
		listener.Close()
		listener = n.Listen(tcplab.V6.Anywhere(7100))
	}
	client := n.Socket(f.Loopback())
	client.Connect(f.At(7100))
	child := listener.Accept()
	client.Write(request)
	readAll(child, len(request))
	child.Write(answer)
	readAll(client, len(answer))
	client.Shutdown(unix.SHUT_WR)
	child.ReadEOF()
	child.Close()
	client.ReadEOF()
	client.Close()
	listener.Close()
	n.Settle(0)
}

func readAll(s *tcplab.Socket, size int) {
	for size > 0 {
		size -= len(s.Read())
	}
}
