package kernel_test

import (
	"testing"

	"github.com/tcpshift/tcpshift/test/kernel/harness"
	"github.com/tcpshift/tcpshift/test/tcplab"
)

// The reader of the output does not read, and the smallest ring fills up: what does not
// fit is counted to the last one, the stream says it, and goes on when the reader does.
func TestLoss_FullRing(t *testing.T) {
	var problems []string
	for range tcplab.Attempts() {
		if problems = overflow(t); len(problems) == 0 {
			return
		}
		t.Log(problems)
	}
	t.Error(problems)
}

func overflow(t *testing.T) (problems []string) {
	t.Helper()
	const connections, workers, smallest = 2000, 2, 64 << 10
	if err := harness.StopSharedTracers(); err != nil {
		t.Error(err)
	}
	n := tcplab.NewNetns(t)
	n.Sysctl("net.ipv4.tcp_max_tw_buckets", "1000000")
	reading := make(chan struct{})
	o := harness.InNamespace(n)
	o.BufferSize, o.Reading = smallest, reading
	tr := harness.StartTracer(t, o)
	tcplab.Storm(n, tcplab.StormConfig{Connections: connections, Workers: workers})
	close(reading)
	tr.Await(func(text string) bool { return harness.CountType(text, "loss") > 0 })
	story := harness.ScenarioRun{Name: "client closes", Family: tcplab.V4, Netns: n.Inode(), Out: tcplab.ClientCloses(n, tcplab.V4)}
	lines := tr.Stop()
	stop := lines[len(lines)-1]
	t.Logf("%d of %d transitions lost for want of room", stop.LostRingFull, 10*connections+2*workers)

	if stop.LostRingFull == 0 || stop.LostRingBusy > stop.LostRingFull/100 {
		t.Errorf("not for want of room: %s", stop.Raw)
	}
	lost := map[string]uint64{}
	for _, l := range harness.OfType(lines, "loss") {
		lost[l.Cause] += l.Lost
	}
	if lost["ring_full"] != stop.LostRingFull || lost["ring_busy"] != stop.LostRingBusy || lost["reentry"] != stop.LostReentry {
		t.Errorf("the loss records add up to %v: %s", lost, stop.Raw)
	}
	// What came after the gap is whole again.
	harness.CheckSequence(t, story, story.Of(harness.OfType(lines, "transition")))
	all := stop.LostRingFull + stop.LostRingBusy + stop.LostReentry + uint64(len(harness.OfType(lines, "transition")))
	return harness.Miscount("transitions told and lost", all, uint64(10*connections+2*workers+story.Out.Transitions()))
}
