package harness

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/test/tcplab"
)

// ScenarioRun is a scenario that has been played in a namespace of its own.
type ScenarioRun struct {
	Name   string
	Family tcplab.Family
	Netns  uint32
	Out    tcplab.Outcome
}

// Of gives the story's own lines: an inode is given to another namespace once
// this one is gone, but the lab's own ports are not; the ephemeral ones are.
func (s *ScenarioRun) Of(lines []Record) []Record {
	ports := map[uint16]bool{}
	for _, p := range s.Out.Endpoints() {
		ports[p.Local.Port()], ports[p.Remote.Port()] = true, true
	}
	const firstEphemeral = 32768
	maps.DeleteFunc(ports, func(port uint16, _ bool) bool { return port == 0 || port >= firstEphemeral })
	var mine []Record
	for _, l := range lines {
		if l.Netns == s.Netns && (ports[l.LocalPort] || ports[l.PeerPort]) {
			mine = append(mine, l)
		}
	}
	return mine
}

// scenarioRuns is every scenario in every family, played once for all tests, and what each
// of the shared tracers says of them.
var scenarioRuns struct {
	stories []ScenarioRun
	told    [][]Record
}

func RunScenarios(t *testing.T) (stories []ScenarioRun, told [][]Record) {
	t.Helper()
	if scenarioRuns.told != nil {
		return scenarioRuns.stories, scenarioRuns.told
	}
	last := tcplab.NewNetns(t)
	var watches []capture
	for _, tr := range SharedTracers(t) {
		watches = append(watches, capture{tr, true, tr.size()})
	}
	stories = runEachScenario(t)
	if err := fence(last); err != nil {
		t.Fatal(err)
	}
	var inodes []uint32
	for _, s := range stories {
		inodes = append(inodes, s.Netns)
	}
	for _, c := range watches {
		if err := c.Tracer.awaitFence(last, c.from); err != nil {
			t.Fatal(err)
		}
		lines, err := parseRecords(ofNamespaces(c.Tracer.since(c.from), inodes...))
		if err != nil {
			t.Fatal(err)
		}
		told = append(told, lines)
	}
	scenarioRuns.stories, scenarioRuns.told = stories, told
	return stories, told
}

// runEachScenario plays some at a time, since most of them wait for the kernel's timers.
func runEachScenario(t *testing.T) (stories []ScenarioRun) {
	t.Helper()
	var mu sync.Mutex
	t.Run("play", func(t *testing.T) {
		for _, s := range tcplab.Scenarios {
			for _, f := range tcplab.Families {
				t.Run(fmt.Sprintf("%s %v", s.Name, f), func(t *testing.T) {
					t.Parallel()
					n := tcplab.NewNetns(t)
					out := s.Run(n, f)
					mu.Lock()
					defer mu.Unlock()
					stories = append(stories, ScenarioRun{s.Name, f, n.Inode(), out})
				})
			}
		}
	})
	return stories
}

// CheckSequence compares whole ordered sequences, each socket's for itself: between
// sockets there is no order.
func CheckSequence(t *testing.T, s ScenarioRun, got []Record) {
	t.Helper()
	of, rest := bySocket(s.Out.Endpoints(), got)
	for _, p := range s.Out.Endpoints() {
		mine := of[p]
		CheckPath(t, p, mine)
		for _, l := range mine {
			checkIdentity(t, s.Family, p, l)
		}
		checkTimes(t, mine)
	}
	for _, l := range rest {
		t.Errorf("a transition that nobody made: %s", l.Raw)
	}
}

func bySocket(endpoints []*tcplab.Endpoint, lines []Record) (of map[*tcplab.Endpoint][]Record, rest []Record) {
	if !slices.ContainsFunc(lines, func(l Record) bool { return l.Conn != "" }) {
		return byPorts(endpoints, lines)
	}
	of, rest = map[*tcplab.Endpoint][]Record{}, lines
	for _, p := range endpoints {
		of[p], rest = SplitBySocket(rest, p)
	}
	return of, rest
}

// SplitBySocket splits off the transitions of one socket: by its cookie, or by its ports
// where nobody ever had it in hand.
func SplitBySocket(lines []Record, p *tcplab.Endpoint) (mine, others []Record) {
	for _, l := range lines {
		own := l.Conn == strconv.FormatUint(p.Cookie, 16)
		if p.Cookie == 0 {
			own = l.LocalPort == p.Local.Port() && l.PeerPort == p.Remote.Port()
		}
		if own {
			mine = append(mine, l)
		} else {
			others = append(others, l)
		}
	}
	return mine, others
}

// CheckPath wants the lab's path, its last CLOSE being a TIME_WAIT where one was left.
func CheckPath(t *testing.T, p *tcplab.Endpoint, lines []Record) {
	t.Helper()
	want := make([]string, len(p.Path))
	for i, s := range p.Path {
		want[i] = s.String()
	}
	if p.Left != 0 && len(want) > 0 {
		want[len(want)-1] = tcplab.TimeWait.String()
	}
	if len(want) == 1 {
		want = nil // it never left its first state
	}
	var got []string
	for i, l := range lines {
		if i == 0 {
			got = append(got, l.Old)
		} else if l.Old != got[len(got)-1] {
			t.Errorf("the socket left %s, but was in %s: %s", l.Old, got[len(got)-1], l.Raw)
		}
		got = append(got, l.New)
		if l.Self != (l.Old == l.New) {
			t.Errorf("self is %v: %s", l.Self, l.Raw)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("%v > %v went\n%v\nwant\n%v", p.Local, p.Remote, strings.Join(got, " "), strings.Join(want, " "))
		return
	}
	if len(lines) > 0 {
		checkLast(t, p, lines[len(lines)-1])
	}
}

func checkLast(t *testing.T, p *tcplab.Endpoint, last Record) {
	t.Helper()
	wantError := ""
	if p.Err != 0 {
		wantError = unix.ErrnoName(p.Err)
	}
	if last.Error != wantError {
		t.Errorf("error %q, want %q: %s", last.Error, wantError, last.Raw)
	}
	if isTimeWait := p.Left != 0; isTimeWait != (last.KernelNew == "CLOSE") || isTimeWait != (last.Substate != "") {
		t.Errorf("timewait socket left: %v: %s", isTimeWait, last.Raw)
	}
}

// checkIdentity allows nothing but what the kernel lacks at that moment: the local
// port before it is chosen, the local address likewise, a listener's peer.
func checkIdentity(t *testing.T, f tcplab.Family, p *tcplab.Endpoint, l Record) {
	t.Helper()
	family := map[tcplab.Family]string{tcplab.V4: "ipv4", tcplab.V6: "ipv6", tcplab.Mapped: "ipv4"}[f]
	// Without memory on the socket a child's first transition has what its listener has.
	asListener := l.Conn == "" && l.Old == "LISTEN" && l.New == "SYN_RECV" && l.PeerPort == 0
	if asListener && p.Remote.Port() != 0 {
		p = &tcplab.Endpoint{}
	}
	listens := l.Role == "listener" || asListener
	if f == tcplab.Mapped && listens {
		family = "ipv6" // a listener on [::]
	}
	if l.Family != family || l.Mapped != (f == tcplab.Mapped && !listens) {
		t.Errorf("family %q mapped %v, want %q: %s", l.Family, l.Mapped, family, l.Raw)
	}
	opening := l.Old == "CLOSE"
	checkEnd(t, l, "local", l.LocalAddr, l.LocalPort, p.Local, opening)
	checkEnd(t, l, "peer", l.PeerAddr, l.PeerPort, p.Remote, false)
	if l.UID == nil || *l.UID != 0 {
		t.Errorf("uid is not root's: %s", l.Raw)
	}
}

func checkEnd(t *testing.T, l Record, end, addr string, port uint16, want netip.AddrPort, mayLack bool) {
	t.Helper()
	if !want.IsValid() || want.Port() == 0 {
		return // the lab does not know
	}
	if wantAddr := want.Addr().Unmap().String(); addr != wantAddr && (!mayLack || addr != "") {
		t.Errorf("%s_addr %q, want %q: %s", end, addr, wantAddr, l.Raw)
	}
	if port != want.Port() && (!mayLack || port != 0) {
		t.Errorf("%s_port %d, want %d: %s", end, port, want.Port(), l.Raw)
	}
}

func checkTimes(t *testing.T, lines []Record) {
	t.Helper()
	for i, l := range lines {
		if i > 0 && l.Time.Before(lines[i-1].Time) {
			t.Errorf("before the transition before it: %s", l.Raw)
		}
	}
}
