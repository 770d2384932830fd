package kernel_test

import (
	"testing"

	"github.com/tcpshift/tcpshift/internal/probe"
	"github.com/tcpshift/tcpshift/test/kernel/harness"
	"github.com/tcpshift/tcpshift/test/tcplab"
)

// The smallest ring fills up because the reader of the output does not read. Every
// transition that does not fit is counted, a loss record reports it, and the stream goes
// on when the reader reads again.
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
	run := harness.ScenarioRun{Name: "client closes", Family: tcplab.V4, Netns: n.Inode(), Out: tcplab.ClientCloses(n, tcplab.V4)}
	lines := tr.Stop()
	stop := lines[len(lines)-1]
	t.Logf("the full ring lost %d of %d transitions", stop.LostRingFull, 10*connections+2*workers)

	if stop.LostRingFull == 0 || stop.LostRingBusy > stop.LostRingFull/100 {
		t.Errorf("want lost_ring_full, and lost_ring_busy at most 1 %% of it: %s", stop.Raw)
	}
	lost := map[string]uint64{}
	for _, l := range harness.OfType(lines, "loss") {
		lost[l.Cause] += l.Lost
	}
	if lost["ring_full"] != stop.LostRingFull || lost["ring_busy"] != stop.LostRingBusy || lost["reentry"] != stop.LostReentry {
		t.Errorf("the loss records add up to %v: %s", lost, stop.Raw)
	}
	// The stream is complete after the gap.
	harness.CheckSequence(t, run, run.Of(harness.OfType(lines, "transition")))
	all := stop.LostRingFull + stop.LostRingBusy + stop.LostReentry + uint64(len(harness.OfType(lines, "transition")))
	return harness.CompareCount("transitions in records and lost", all, uint64(10*connections+2*workers+run.Out.Transitions()))
}

// A reset whose event finds no room in the ring is counted: closed_by is then inferred.
func TestLoss_ResetsInFullRing(t *testing.T) {
	harness.RequireFeature(t, probe.ResetSent)
	const connections, resets, smallest = 400, 100, 64 << 10
	if err := harness.StopSharedTracers(); err != nil {
		t.Error(err)
	}
	n := tcplab.NewNetns(t)
	reading := make(chan struct{})
	o := harness.InNamespace(n)
	o.BufferSize, o.Reading = smallest, reading
	tr := harness.StartTracer(t, o)
	tcplab.Storm(n, tcplab.StormConfig{Connections: connections, Workers: 1}) // fills the ring
	listener := n.Listen(tcplab.V4.Anywhere(7100))
	for range resets {
		c := n.Dial(tcplab.V4.At(7100))
		child := listener.Accept()
		c.SetLinger(0)
		c.Close()
		child.Await(tcplab.Close)
	}
	close(reading)
	tr.Await(func(text string) bool { return harness.CountType(text, "loss") > 0 })
	lines := tr.Stop()
	// The event of a reset is smaller than a transition, so one may find room where a
	// transition did not.
	if stop := lines[len(lines)-1]; stop.LostResets != resets && stop.LostResets != resets-1 {
		t.Errorf("want %d lost_resets or one less: %s", resets, stop.Raw)
	}
}
