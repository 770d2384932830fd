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

// crowdedBucket is connections that end in one bucket with many that stay: one that is older
// than those, which is where it was in the bucket, and some that are younger.
type crowdedBucket struct {
	netns *tcplab.Netns
	old   string // conn
	young []harness.ScenarioRun
	none  harness.ScenarioRun // leaves no TIME_WAIT
}

func newCrowdedNetns(t *testing.T) *tcplab.Netns {
	t.Helper()
	if err := tcplab.MayHaveOwnTable(); err != nil {
		harness.Lacks(t, expect.OwnTable, err)
	}
	return tcplab.NewCrowdedNetns(t)
}

func runCrowd(n *tcplab.Netns, f tcplab.Family, size int) *crowdedBucket {
	n.Sysctl("net.ipv4.tcp_max_tw_buckets", "1000") // by default half the buckets
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

// However many connections share a bucket, the timewait socket is found, whether the
// kernel puts it at the head or where the socket was; and where there is none, the end
// of the bucket proves it.
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
				t.Errorf("it left a TIME_WAIT: %s", last.Raw)
			}
			if unknown := c.countUnknown(t, lines); unknown != 0 {
				t.Errorf("%d times not known", unknown)
			}
		})
	}
}

// The walk is bounded. Past the bound nothing is guessed: the record says that it is not
// known whether that CLOSE left a TIME_WAIT, and it is counted.
func TestTimewait_HashWalkBound(t *testing.T) {
	n := newCrowdedNetns(t)
	tr := harness.StartTracer(t, harness.InNamespace(n))
	c := runCrowd(n, tcplab.V4, 100)
	lines := tr.Stop()
	none, _ := harness.SplitBySocket(c.none.Of(harness.OfType(lines, "transition")), c.none.Out.Client)
	if len(none) == 0 || none[len(none)-1].Unknown != true {
		t.Errorf("that there is no TIME_WAIT among 200 cannot be known, but is said: %v", none)
	}
	if last := c.lastOfOld(t, lines); last.New != "TIME_WAIT" && last.Unknown != true {
		t.Errorf("it left a TIME_WAIT: %s", last.Raw)
	}
	t.Logf("%d times not known", c.countUnknown(t, lines))
}

func (c *crowdedBucket) lastOfOld(t *testing.T, lines []harness.Record) harness.Record {
	t.Helper()
	for _, l := range slices.Backward(harness.OfType(lines, "transition")) {
		if l.Conn == c.old {
			return l
		}
	}
	t.Fatal("nothing is told of the old connection")
	return harness.Record{}
}

func (c *crowdedBucket) countUnknown(t *testing.T, lines []harness.Record) int {
	t.Helper()
	unknown := 0
	for _, l := range harness.OfType(lines, "transition") {
		if l.Unknown == nil {
			continue
		}
		unknown++
		if l.Unknown != true || l.New != "CLOSE" || l.Old != "FIN_WAIT2" && l.Old != "CLOSING" || l.Substate != "" {
			t.Errorf("not to be unknown: %s", l.Raw)
		}
	}
	if stop := lines[len(lines)-1]; stop.Unknown != float64(unknown) {
		t.Errorf("%d times not known: %s", unknown, stop.Raw)
	}
	return unknown
}
