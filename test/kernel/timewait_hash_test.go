package kernel_test

import (
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/internal/probe"
	"github.com/tcpshift/tcpshift/test/kernel/harness"
	"github.com/tcpshift/tcpshift/test/kernelmatrix/expect"
	"github.com/tcpshift/tcpshift/test/tcplab"
)

// crowdedBucket is connections that end in a hash bucket with many others: one that is
// older than those, which puts it elsewhere in the bucket, and some that are younger.
type crowdedBucket struct {
	netns *tcplab.Netns
	old   string // conn of the older one
	young []harness.ScenarioRun
	none  harness.ScenarioRun // leaves no TIME_WAIT
}

func newCrowdedNetns(t *testing.T) *tcplab.Netns {
	t.Helper()
	if err := tcplab.CheckOwnTable(); err != nil {
		harness.SkipUnlessRequired(t, expect.OwnTable, err)
	}
	return tcplab.NewCrowdedNetns(t)
}

func runCrowd(n *tcplab.Netns, f tcplab.Family, size int) *crowdedBucket {
	n.Sysctl("net.ipv4.tcp_max_tw_buckets", "1000") // default: half of the buckets
	listener := n.Listen(f.Anywhere(7100))
	client := n.Dial(f.At(7100))
	child := listener.Accept()
	for range size {
		n.Dial(f.At(7100))
		listener.Accept()
	}
	c := &crowdedBucket{netns: n, old: harness.ConnID(client.Cookie())}
	client.Shutdown(unix.SHUT_WR)
	child.ReadEOF()
	child.Close()
	client.ReadEOF()
	client.Await(tcplab.Close)
	client.Close()
	c.young = []harness.ScenarioRun{
		{Name: "half close", Family: f, Netns: n.Inode(), Out: tcplab.HalfClose(n, f)},
		{Name: "simultaneous close", Family: f, Netns: n.Inode(), Out: tcplab.SimultaneousClose(n, f)},
	}
	c.none = harness.ScenarioRun{Name: "time wait overflow", Family: f, Netns: n.Inode(), Out: tcplab.TimeWaitOverflow(n, f)}
	return c
}

// The timewait socket is found among many connections in one bucket, whether the kernel
// puts it at the head or in the place of the socket. Without one, the end of the bucket
// proves it.
func TestTimewait_CrowdedHashBucket(t *testing.T) {
	n := map[tcplab.Family]*tcplab.Netns{}
	o := harness.Options{Options: probe.Options{Ends: true}}
	for _, f := range tcplab.Families {
		n[f] = newCrowdedNetns(t)
		o.Filter.Netns = append(o.Filter.Netns, n[f].Inode())
	}
	tr := harness.StartTracer(t, o)
	crowds := map[tcplab.Family]*crowdedBucket{}
	for f := range n {
		crowds[f] = runCrowd(n[f], f, 20)
	}
	lines := tr.Stop()
	for f, c := range crowds {
		t.Run(f.String(), func(t *testing.T) {
			for _, s := range append(c.young, c.none) {
				harness.CheckSequence(t, s, harness.OfType(s.Of(lines), "transition"))
			}
			if last := c.lastOfOld(t, lines); last.New != "TIME_WAIT" {
				t.Errorf("want new_state TIME_WAIT, it left a timewait socket: %s", last.Raw)
			}
			if unknown := c.countUnknown(t, lines); unknown != 0 {
				t.Errorf("%d records with time_wait_unknown, want 0", unknown)
			}
		})
	}
}

// The walk through the bucket is bounded. Beyond the bound the record has
// time_wait_unknown, and the event is counted.
func TestTimewait_HashWalkBound(t *testing.T) {
	n := newCrowdedNetns(t)
	tr := harness.StartTracer(t, harness.InNamespace(n))
	c := runCrowd(n, tcplab.V4, 100)
	lines := tr.Stop()
	none, _ := harness.SplitBySocket(c.none.Of(harness.OfType(lines, "transition")), c.none.Out.Client)
	if len(none) == 0 || none[len(none)-1].TimeWaitUnknown != true {
		t.Errorf("want time_wait_unknown with 200 sockets in the bucket: %v", none)
	}
	if last := c.lastOfOld(t, lines); last.New != "TIME_WAIT" && last.TimeWaitUnknown != true {
		t.Errorf("want new_state TIME_WAIT, it left a timewait socket: %s", last.Raw)
	}
	t.Logf("%d records with time_wait_unknown", c.countUnknown(t, lines))
}

func (c *crowdedBucket) lastOfOld(t *testing.T, lines []harness.Record) harness.Record {
	t.Helper()
	for _, l := range slices.Backward(harness.OfType(lines, "transition")) {
		if l.Conn == c.old {
			return l
		}
	}
	t.Fatal("no transition of the older connection")
	return harness.Record{}
}

func (c *crowdedBucket) countUnknown(t *testing.T, lines []harness.Record) int {
	t.Helper()
	unknown := 0
	for _, l := range harness.OfType(lines, "transition") {
		if l.TimeWaitUnknown == nil {
			continue
		}
		unknown++
		if l.TimeWaitUnknown != true || l.New != "CLOSE" || l.Old != "FIN_WAIT2" && l.Old != "CLOSING" || l.Substate != "" {
			t.Errorf("time_wait_unknown is wrong here: %s", l.Raw)
		}
	}
	if stop := lines[len(lines)-1]; stop.TimeWaitUnknown != float64(unknown) {
		t.Errorf("%d records with time_wait_unknown, but stop has another count: %s", unknown, stop.Raw)
	}
	return unknown
}
