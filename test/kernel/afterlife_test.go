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
	"github.com/tcpshift/tcpshift/test/kernelmatrix/expect"
	"github.com/tcpshift/tcpshift/test/tcplab"
)

// afterlife is a TIME_WAIT that has ended.
type afterlife struct {
	name        string
	how         string
	netns       uint32
	endpoint    *tcplab.Endpoint
	least, most time.Duration // that it may have lasted
	from, until moment        // between which it ended, by the test's clock; 0: not known
}

const (
	minute = 60 * time.Second // TCP_TIMEWAIT_LEN, include/net/tcp.h
	// The further away the end, the coarser the kernel's timers: by an eighth at most.
	coarse = minute / 8
)

type way struct {
	name, how   string
	least, most time.Duration
	live        func(t *testing.T, n *tcplab.Netns, a *afterlife)
}

// The kernel's six ways to end a TIME_WAIT, each as often as the socket's states
// differ; nothing else may be told of the socket.
var afterlives = []way{
	{"its timer, after tcp_fin_timeout", "expired", time.Second * 9 / 10, 30 * time.Second, func(_ *testing.T, n *tcplab.Netns, a *afterlife) {
		n.Sysctl("net.ipv4.tcp_fin_timeout", "1")
		a.endpoint = tcplab.OrphanInFinWait2(n, tcplab.V6).Client
		n.AwaitGone(a.endpoint)
		a.until = now()
	}},
	{"a SYN", "early", 0, minute / 2, func(_ *testing.T, n *tcplab.Netns, a *afterlife) {
		listener, client := server(n)
		a.endpoint = listener.ServerTimeWait(client)
		a.from = now()
		listener.Supersede(client)
		a.until = now()
	}},
	{"a connect()", "early", 0, minute / 2, func(_ *testing.T, n *tcplab.Netns, a *afterlife) {
		n.Sysctl("net.ipv4.tcp_tw_reuse", "1")
		listener, client := server(n)
		a.endpoint = listener.ClientTimeWait(client)
		a.from = now()
		listener.Reconnect(client)
		a.until = now()
	}},
	{"a reset", "early", 0, minute / 2, func(_ *testing.T, n *tcplab.Netns, a *afterlife) {
		listener, client := server(n)
		a.endpoint = listener.ServerTimeWait(client)
		n.Sysctl("net.ipv4.tcp_rfc1337", "0") // not before: see tcplab.NewNetns
		a.from = now()
		n.StraySegment(a.endpoint)
		n.AwaitGone(a.endpoint)
		a.until = now()
	}},
	{"ss -K", "early", 0, minute / 2, func(t *testing.T, n *tcplab.Netns, a *afterlife) {
		listener, client := server(n)
		a.endpoint = listener.ServerTimeWait(client)
		a.from = now()
		if err := n.Destroy(a.endpoint); err != nil {
			if !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.ENOENT) {
				t.Fatalf("destroy: %v", err)
			}
			t.Logf("this kernel does not destroy timewait sockets: %v", err)
			listener.Supersede(client)
		}
		n.AwaitGone(a.endpoint)
		a.until = now()
	}},
	{"the end of its namespace", "early", 0, minute / 2, func(_ *testing.T, n *tcplab.Netns, a *afterlife) {
		a.endpoint = tcplab.SimultaneousClose(n, tcplab.V6).Client
		a.from = now()
	}},
}

// server gives a listener, and where a client of it may connect from: with ports that
// nothing else has, since the inode of a namespace that is gone is given to another.
func server(n *tcplab.Netns) (listener *tcplab.Socket, client netip.AddrPort) {
	return n.Listen(tcplab.V4.At(tcplab.FreshPort())), tcplab.V4.At(tcplab.FreshPort())
}

func TestTimewait_EndReasonAndDuration(t *testing.T) {
	checkAfterlives(t, afterlives)
}

// Left alone it ends by its timer after a minute. Guests run this test beside the others.
func TestTimewait_LastsOneMinute(t *testing.T) {
	if row, known := thisKernel(t); known && row.Lacks(expect.LongTimeWait) {
		lacks(t, expect.LongTimeWait, "one kernel of each kind waits for it")
	}
	checkAfterlives(t, []way{{"its timer", "expired", minute, minute + coarse, func(_ *testing.T, n *tcplab.Netns, a *afterlife) {
		a.endpoint = tcplab.ServerCloses(n, tcplab.V4).Child
		n.AwaitGoneLater(a.endpoint, minute+coarse)
		a.until = now()
	}}})
}

func checkAfterlives(t *testing.T, ways []way) {
	t.Helper()
	requireFeature(t, probe.TimeWaitEnds)
	o := options{Options: probe.Options{TimeWaitEnds: true}}
	o.Filter.Ports = []filter.PortRange{{First: tcplab.FirstFreshPort, Last: tcplab.LastFreshPort}}
	tr := startTracer(t, o)
	checkInstructions(t, tr)
	var ended []*afterlife
	var mu sync.Mutex
	t.Run("end", func(t *testing.T) {
		for _, row := range ways {
			t.Run(row.name, func(t *testing.T) {
				t.Parallel()
				n := tcplab.NewNetns(t)
				a := &afterlife{name: row.name, how: row.how, netns: n.Inode(), least: row.least, most: row.most}
				row.live(t, n, a)
				mu.Lock()
				defer mu.Unlock()
				ended = append(ended, a)
			})
		}
	})
	// The last one goes with its namespace, in the kernel's own time.
	tr.await(func(text string) bool {
		return !slices.ContainsFunc(ended, func(a *afterlife) bool {
			return !slices.ContainsFunc(strings.Split(text, "\n"), func(l string) bool {
				return strings.Contains(l, fmt.Sprintf(`"local_port":%d,`, a.endpoint.Local.Port())) && strings.Contains(l, `"time_wait_end":`)
			})
		})
	})
	lines := ofType(tr.stop(), "transition")
	for _, a := range ended {
		t.Run(a.name, func(t *testing.T) { a.check(t, lines) })
	}
}

func (a *afterlife) check(t *testing.T, lines []line) {
	begins, ends := a.of(lines)
	if len(begins) != 1 || len(ends) != 1 {
		t.Fatalf("%d TIME_WAITs begin and %d end, want one: %v %v", len(begins), len(ends), begins, ends)
	}
	entered, end := begins[0], ends[0]
	if entered.Seq > end.Seq || entered.Conn != end.Conn || end.New != "CLOSE" || end.TimeWaitEnd != a.how {
		t.Fatalf("want the end of a TIME_WAIT, %s, got\n%s%s", a.how, entered.raw, end.raw)
	}
	if end.Conn != "" {
		mine, _ := take(lines, a.endpoint)
		checkPath(t, a.endpoint, mine[:len(mine)-1])
	}
	if end.Netns != a.netns || end.PID != nil || end.Substate != "" {
		t.Errorf("of netns %d, nobody's and without a substate, is wanted: %s", a.netns, end.raw)
	}
	for _, d := range []struct{ got, want any }{ // whose it is, from the one record to the other
		{end.LocalAddr, entered.LocalAddr}, {end.LocalPort, entered.LocalPort}, {end.PeerAddr, entered.PeerAddr},
		{end.PeerPort, entered.PeerPort}, {end.Role, entered.Role}, {*end.UID, *entered.UID},
	} {
		if d.got != d.want {
			t.Errorf("%v is not %v, as when it began: %s", d.got, d.want, end.raw)
		}
	}
	lasted := end.Time.Sub(entered.Time)
	if lasted < a.least || lasted > a.most || (lasted-time.Duration(*end.InState)).Abs() > time.Millisecond {
		t.Errorf("lasted %v by the times, %v by in_state_ns, want %v to %v: %s",
			lasted, time.Duration(*end.InState), a.least, a.most, end.raw)
	}
	at := moment(end.Time.UnixNano())
	if at < a.from-clockSlack || a.until != 0 && at > a.until+clockSlack {
		t.Errorf("%d, but it ended between %d and %d: %s", at, a.from, a.until, end.raw)
	}
}

// of finds the transitions into and out of TIME_WAIT; the other connections of its
// ports make none.
func (a *afterlife) of(lines []line) (begins, ends []line) {
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
