package kernel_test

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/internal/filter"
	"github.com/tcpshift/tcpshift/internal/probe"
	"github.com/tcpshift/tcpshift/test/kernel/harness"
	"github.com/tcpshift/tcpshift/test/kernelmatrix/expect"
	"github.com/tcpshift/tcpshift/test/tcplab"
)

// ending is a TIME_WAIT that has ended.
type ending struct {
	name        string
	how         string
	netns       uint32
	endpoint    *tcplab.Endpoint
	least, most time.Duration  // bounds of its duration
	from, until harness.Moment // bounds of its end by the test's clock; 0: unknown
}

const (
	minute = 60 * time.Second // TCP_TIMEWAIT_LEN, include/net/tcp.h
	// The kernel's timers are coarser the further away they end: by an eighth at most.
	coarse = minute / 8
)

type endingCase struct {
	name, how   string
	least, most time.Duration
	run         func(t *testing.T, n *tcplab.Netns, a *ending)
}

// endings are the kernel's six ways to end a TIME_WAIT, with different states of the
// socket before.
var endings = []endingCase{
	{"its timer, after tcp_fin_timeout", "expired", time.Second * 9 / 10, 30 * time.Second, func(_ *testing.T, n *tcplab.Netns, a *ending) {
		n.Sysctl("net.ipv4.tcp_fin_timeout", "1")
		a.endpoint = tcplab.OrphanInFinWait2(n, tcplab.V6).Client
		n.AwaitTimewaitEnd(a.endpoint)
		a.until = harness.Now()
	}},
	{"a SYN", "early", 0, minute / 2, func(_ *testing.T, n *tcplab.Netns, a *ending) {
		listener, client := server(n)
		a.endpoint = listener.ServerTimeWait(client)
		a.from = harness.Now()
		listener.Supersede(client)
		a.until = harness.Now()
	}},
	{"a connect()", "early", 0, minute / 2, func(_ *testing.T, n *tcplab.Netns, a *ending) {
		n.Sysctl("net.ipv4.tcp_tw_reuse", "1")
		listener, client := server(n)
		a.endpoint = listener.ClientTimeWait(client)
		a.from = harness.Now()
		listener.Reconnect(client)
		a.until = harness.Now()
	}},
	{"a reset", "early", 0, minute / 2, func(_ *testing.T, n *tcplab.Netns, a *ending) {
		listener, client := server(n)
		a.endpoint = listener.ServerTimeWait(client)
		n.Sysctl("net.ipv4.tcp_rfc1337", "0") // not earlier: see tcplab.NewNetns
		a.from = harness.Now()
		n.StraySegment(a.endpoint)
		n.AwaitTimewaitEnd(a.endpoint)
		a.until = harness.Now()
	}},
	{"ss -K", "early", 0, minute / 2, func(t *testing.T, n *tcplab.Netns, a *ending) {
		listener, client := server(n)
		a.endpoint = listener.ServerTimeWait(client)
		a.from = harness.Now()
		if err := n.Destroy(a.endpoint); err != nil {
			if !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.ENOENT) {
				t.Fatalf("destroy: %v", err)
			}
			t.Logf("this kernel does not destroy timewait sockets: %v", err)
			listener.Supersede(client)
		}
		n.AwaitTimewaitEnd(a.endpoint)
		a.until = harness.Now()
	}},
	{"the end of its namespace", "early", 0, minute / 2, func(_ *testing.T, n *tcplab.Netns, a *ending) {
		a.endpoint = tcplab.SimultaneousClose(n, tcplab.V6).Client
		a.from = harness.Now()
	}},
}

// server makes a listener and returns an address for a client of it. The ports are used
// nowhere else, because a later namespace may get the inode of one that is gone.
func server(n *tcplab.Netns) (listener *tcplab.Socket, client netip.AddrPort) {
	return n.Listen(tcplab.V4.At(tcplab.FreshPort())), tcplab.V4.At(tcplab.FreshPort())
}

// time_wait_end shows how a TIME_WAIT ended, and in_state_ns how long it lasted.
func TestTimewait_EndReasonAndDuration(t *testing.T) {
	checkEndings(t, endings)
}

// Without any event a TIME_WAIT ends by its timer after a minute. Guests run this test
// beside the others.
func TestTimewait_LastsOneMinute(t *testing.T) {
	if row, known := harness.ThisKernel(t); known && row.Lacks(expect.LongTimeWait) {
		harness.SkipUnlessRequired(t, expect.LongTimeWait, "the table chooses one kernel of each kind for it")
	}
	checkEndings(t, []endingCase{{"its timer", "expired", minute, minute + coarse, func(_ *testing.T, n *tcplab.Netns, a *ending) {
		a.endpoint = tcplab.ServerCloses(n, tcplab.V4).Child
		n.AwaitTimewaitEndLater(a.endpoint, minute+coarse)
		a.until = harness.Now()
	}}})
}

func checkEndings(t *testing.T, ways []endingCase) {
	t.Helper()
	harness.RequireFeature(t, probe.TimeWaitEnds)
	o := harness.Options{Options: probe.Options{TimeWaitEnds: true}}
	o.Filter.Ports = []filter.PortRange{{First: tcplab.FirstFreshPort, Last: tcplab.LastFreshPort}}
	tr := harness.StartTracer(t, o)
	harness.CheckInstructions(t, tr)
	var ended []*ending
	var mu sync.Mutex
	t.Run("end", func(t *testing.T) {
		for _, row := range ways {
			t.Run(row.name, func(t *testing.T) {
				t.Parallel()
				n := tcplab.NewNetns(t)
				a := &ending{name: row.name, how: row.how, netns: n.Inode(), least: row.least, most: row.most}
				row.run(t, n, a)
				mu.Lock()
				defer mu.Unlock()
				ended = append(ended, a)
			})
		}
	})
	// The last TIME_WAIT ends with its namespace, which the kernel removes
	// asynchronously.
	tr.Await(func(text string) bool {
		return !slices.ContainsFunc(ended, func(a *ending) bool {
			return !slices.ContainsFunc(strings.Split(text, "\n"), func(l string) bool {
				return strings.Contains(l, fmt.Sprintf(`"local_port":%d,`, a.endpoint.Local.Port())) && strings.Contains(l, `"time_wait_end":`)
			})
		})
	})
	lines := harness.OfType(tr.Stop(), "transition")
	for _, a := range ended {
		t.Run(a.name, func(t *testing.T) { a.check(t, lines) })
	}
}

func (a *ending) check(t *testing.T, lines []harness.Record) {
	begins, ends := a.of(lines)
	if len(begins) != 1 || len(ends) != 1 {
		t.Fatalf("%d records begin a TIME_WAIT and %d end one, want 1 and 1: %v %v", len(begins), len(ends), begins, ends)
	}
	entered, end := begins[0], ends[0]
	if entered.Seq > end.Seq || entered.Conn != end.Conn || end.New != "CLOSE" || end.TimeWaitEnd != a.how {
		t.Fatalf("want the end of a TIME_WAIT with time_wait_end %s, got\n%s%s", a.how, entered.Raw, end.Raw)
	}
	if end.Conn != "" {
		mine, _ := harness.SplitBySocket(lines, a.endpoint)
		harness.CheckPath(t, a.endpoint, mine[:len(mine)-1])
	}
	if end.Netns != a.netns || end.PID != nil || end.Substate != "" {
		t.Errorf("want netns %d, no owner and no substate: %s", a.netns, end.Raw)
	}
	for _, d := range []struct{ got, want any }{ // unchanged between the two records
		{end.LocalAddr, entered.LocalAddr}, {end.LocalPort, entered.LocalPort}, {end.PeerAddr, entered.PeerAddr},
		{end.PeerPort, entered.PeerPort}, {end.Role, entered.Role}, {*end.UID, *entered.UID},
	} {
		if d.got != d.want {
			t.Errorf("got %v, want %v as when it began: %s", d.got, d.want, end.Raw)
		}
	}
	lasted := end.Time.Sub(entered.Time)
	if lasted < a.least || lasted > a.most || (lasted-time.Duration(*end.InState)).Abs() > time.Millisecond {
		t.Errorf("lasted %v by the times, %v by in_state_ns, want %v to %v: %s",
			lasted, time.Duration(*end.InState), a.least, a.most, end.Raw)
	}
	at := harness.Moment(end.Time.UnixNano())
	if at < a.from-harness.ClockSlack || a.until != 0 && at > a.until+harness.ClockSlack {
		t.Errorf("time %d, but it ended between %d and %d: %s", at, a.from, a.until, end.Raw)
	}
}

// of returns the transitions into and out of TIME_WAIT. Other connections of these
// ports have none.
func (a *ending) of(lines []harness.Record) (begins, ends []harness.Record) {
	for _, l := range lines {
		if l.Netns != a.netns || l.LocalPort != a.endpoint.Local.Port() || l.PeerPort != a.endpoint.Remote.Port() {
			continue
		}
		if l.New == "TIME_WAIT" {
			begins = append(begins, l)
		}
		if l.Old == "TIME_WAIT" {
			ends = append(ends, l)
		}
	}
	return begins, ends
}
