package kernel_test

import (
	"slices"
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/internal/probe"
	"github.com/tcpshift/tcpshift/test/kernel/harness"
	"github.com/tcpshift/tcpshift/test/tcplab"
)

// The transitions of one socket stand in the stream in their order; each leaves the
// state that the one before entered. Those of different sockets may be inverted for a
// short time, when several processors made them at once.
func TestStorm_OrderPerSocket(t *testing.T) {
	harness.RequireFeature(t, probe.SocketCookie)
	var problems []string
	for range tcplab.Attempts() {
		if problems = orderOfAStorm(t); len(problems) == 0 {
			return
		}
		t.Log(problems)
	}
	t.Error(problems)
}

func orderOfAStorm(t *testing.T) (problems []string) {
	t.Helper()
	if err := harness.StopSharedTracers(); err != nil {
		t.Error(err)
	}
	n := tcplab.NewNetns(t)
	n.Sysctl("net.ipv4.tcp_max_tw_buckets", "1000000")
	tr := harness.StartTracer(t, harness.InNamespace(n))
	connections := harness.StormConnections(t) / 5
	tcplab.Storm(n, tcplab.StormConfig{Connections: connections})
	last := map[string]harness.Record{}
	var newest, latest time.Time
	var late []time.Duration
	broken := 0
	lines := tr.Stop()
	for _, l := range harness.OfType(lines, "transition") {
		before, known := last[l.Conn]
		if known && l.Old != before.New {
			broken++ // a transition is missing before this one
		}
		if known && l.Time.Before(before.Time) || known && l.InState == nil {
			t.Errorf("earlier than the record before it of the same socket, or without in_state_ns:\n%s%s", before.Raw, l.Raw)
		}
		if l.Time.Before(newest) {
			late = append(late, newest.Sub(l.Time))
		} else {
			newest = l.Time
		}
		latest, last[l.Conn] = l.Time, l
	}
	slices.Sort(late)
	if len(late) > 0 {
		t.Logf("%d of %d stand after a later one of another socket, half of them by at most %v, all by at most %v",
			len(late), len(lines), late[len(late)/2], late[len(late)-1])
	}
	if latest.IsZero() || len(last) < 2*connections {
		t.Errorf("records of %d sockets, want %d and two listeners", len(last), 2*connections)
	}
	stop := lines[len(lines)-1]
	lost := stop.LostRingFull + stop.LostRingBusy + stop.LostReentry
	return harness.CompareCount("sockets without a gap", uint64(len(last)-broken)+min(lost, uint64(broken)), uint64(len(last)))
}
