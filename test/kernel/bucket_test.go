package kernel_test

import (
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/internal/probe"
	"github.com/tcpshift/tcpshift/test/kernelmatrix/expect"
	"github.com/tcpshift/tcpshift/test/tcplab"
)

// crowded is connections that end in one bucket with many that stay: one that is older
// than those, which is where it was in the bucket, and some that are younger.
type crowded struct {
	n     *tcplab.Netns
	old   string // conn
	young []story
	none  story // leaves no TIME_WAIT
}

func newCrowdedNetns(t *testing.T) *tcplab.Netns {
	t.Helper()
	if err := tcplab.MayHaveOwnTable(); err != nil {
		lacks(t, expect.OwnTable, err)
	}
	return tcplab.NewCrowdedNetns(t)
}

func playInCrowd(n *tcplab.Netns, f tcplab.Family, size int) *crowded {
	n.Sysctl("net.ipv4.tcp_max_tw_buckets", "1000") // by default half the buckets
	listener := n.Listen(f.Anywhere(7100))
	client := n.Dial(f.At(7100))
	child := listener.Accept()
	for range size {
		n.Dial(f.At(7100))
		listener.Accept()
	}
	c := &crowded{n: n, old: conn(client.Cookie())}
	client.Shutdown(unix.SHUT_WR)
	child.ReadEOF()
	child.Close()
	client.ReadEOF()
	client.Await(tcplab.Close)
	client.Close()
	c.young = []story{
		{"half close", f, n.Inode(), tcplab.HalfClose(n, f)},
		{"simultaneous close", f, n.Inode(), tcplab.SimultaneousClose(n, f)},
	}
	c.none = story{"time wait overflow", f, n.Inode(), tcplab.TimeWaitOverflow(n, f)}
	return c
}

// However many connections share a bucket, the timewait socket is found, whether the
// kernel puts it at the head or where the socket was; and where there is none, the end
// of the bucket proves it.
func TestTimewait_CrowdedHashBucket(t *testing.T) {
	n := map[tcplab.Family]*tcplab.Netns{}
	o := options{Options: probe.Options{Ends: true}}
	for _, f := range tcplab.Families {
		n[f] = newCrowdedNetns(t)
		o.Filter.Netns = append(o.Filter.Netns, n[f].Inode())
	}
	tr := startTracer(t, o)
	crowds := map[tcplab.Family]*crowded{}
	for f := range n {
		crowds[f] = playInCrowd(n[f], f, 20)
	}
	lines := tr.stop()
	for f, c := range crowds {
		t.Run(f.String(), func(t *testing.T) {
			for _, s := range append(c.young, c.none) {
				checkStory(t, s, ofType(s.of(lines), "transition"))
			}
			if last := c.lastOfOld(t, lines); last.New != "TIME_WAIT" {
				t.Errorf("it left a TIME_WAIT: %s", last.raw)
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
	tr := startTracer(t, in(n))
	c := playInCrowd(n, tcplab.V4, 100)
	lines := tr.stop()
	none, _ := take(c.none.of(ofType(lines, "transition")), c.none.out.Client)
	if len(none) == 0 || none[len(none)-1].Unknown != true {
		t.Errorf("that there is no TIME_WAIT among 200 cannot be known, but is said: %v", none)
	}
	if last := c.lastOfOld(t, lines); last.New != "TIME_WAIT" && last.Unknown != true {
		t.Errorf("it left a TIME_WAIT: %s", last.raw)
	}
	t.Logf("%d times not known", c.countUnknown(t, lines))
}

func (c *crowded) lastOfOld(t *testing.T, lines []line) line {
	t.Helper()
	for _, l := range slices.Backward(ofType(lines, "transition")) {
		if l.Conn == c.old {
			return l
		}
	}
	t.Fatal("nothing is told of the old connection")
	return line{}
}

func (c *crowded) countUnknown(t *testing.T, lines []line) int {
	t.Helper()
	unknown := 0
	for _, l := range ofType(lines, "transition") {
		if l.Unknown == nil {
			continue
		}
		unknown++
		if l.Unknown != true || l.New != "CLOSE" || l.Old != "FIN_WAIT2" && l.Old != "CLOSING" || l.Substate != "" {
			t.Errorf("not to be unknown: %s", l.raw)
		}
	}
	if stop := lines[len(lines)-1]; stop.Unknown != float64(unknown) {
		t.Errorf("%d times not known: %s", unknown, stop.raw)
	}
	return unknown
}
