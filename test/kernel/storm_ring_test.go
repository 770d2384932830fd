package kernel_test

import (
	"errors"
	"testing"

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
	if err := errors.Join(retireShared(), retireStormTracer()); err != nil {
		t.Error(err)
	}
	n := tcplab.NewNetns(t)
	n.Sysctl("net.ipv4.tcp_max_tw_buckets", "1000000")
	reading := make(chan struct{})
	o := in(n)
	o.BufferSize, o.reading = smallest, reading
	tr := startTracer(t, o)
	tcplab.Storm(n, tcplab.StormConfig{Connections: connections, Workers: workers})
	close(reading)
	tr.await(func(text string) bool { return countType(text, "loss") > 0 })
	story := story{"client closes", tcplab.V4, n.Inode(), tcplab.ClientCloses(n, tcplab.V4)}
	lines := tr.stop()
	stop := lines[len(lines)-1]
	t.Logf("%d of %d transitions lost for want of room", stop.LostRingFull, 10*connections+2*workers)

	if stop.LostRingFull == 0 || stop.LostRingBusy > stop.LostRingFull/100 {
		t.Errorf("not for want of room: %s", stop.raw)
	}
	lost := map[string]uint64{}
	for _, l := range ofType(lines, "loss") {
		lost[l.Cause] += l.Lost
	}
	if lost["ring_full"] != stop.LostRingFull || lost["ring_busy"] != stop.LostRingBusy || lost["reentry"] != stop.LostReentry {
		t.Errorf("the loss records add up to %v: %s", lost, stop.raw)
	}
	// What came after the gap is whole again.
	checkStory(t, story, story.of(ofType(lines, "transition")))
	all := stop.LostRingFull + stop.LostRingBusy + stop.LostReentry + uint64(len(ofType(lines, "transition")))
	return miscount("transitions told and lost", all, uint64(10*connections+2*workers+story.out.Transitions()))
}
