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

// ScenarioRun is a scenario that ran in a namespace of its own, and its outcome.
type ScenarioRun struct {
	Name   string
	Family tcplab.Family
	Netns  uint32
	Out    tcplab.Outcome
}

// Of returns the records of this run. The inode of a namespace may be reused, but
// tcplab never reuses the ports that it chooses itself. Ephemeral ports may be reused.
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

// scenarioRuns is one run of every scenario in every family, for all tests, and the
// records of each shared tracer.
var scenarioRuns struct {
	runs    []ScenarioRun
	records [][]Record
}

// RunScenarios runs every scenario in every family, once for all tests. It returns the
// runs and the records of each shared tracer.
func RunScenarios(t *testing.T) (runs []ScenarioRun, records [][]Record) {
	t.Helper()
	if scenarioRuns.records != nil {
		return scenarioRuns.runs, scenarioRuns.records
	}
	last := tcplab.NewNetns(t)
	var captures []capture
	for _, tr := range SharedTracers(t) {
		captures = append(captures, capture{tr, true, tr.size()})
	}
	runs = runEachScenario(t)
	if err := fence(last); err != nil {
		t.Fatal(err)
	}
	var inodes []uint32
	for _, s := range runs {
		inodes = append(inodes, s.Netns)
	}
	for _, c := range captures {
		if err := c.Tracer.awaitFence(last, c.from); err != nil {
			t.Fatal(err)
		}
		lines, err := parseRecords(ofNamespaces(c.Tracer.since(c.from), inodes...))
		if err != nil {
			t.Fatal(err)
		}
		records = append(records, lines)
	}
	scenarioRuns.runs, scenarioRuns.records = runs, records
	return runs, records
}

// runEachScenario runs several at a time, since most of them wait for timers of the
// kernel.
func runEachScenario(t *testing.T) (runs []ScenarioRun) {
	t.Helper()
	var mu sync.Mutex
	t.Run("play", func(t *testing.T) {
		for _, s := range tcplab.Scenarios {
			for _, f := range tcplab.Families {
				t.Run(fmt.Sprintf("%s %v", s.Name, f), func(t *testing.T) {
					t.Parallel()
					run := playScenario(t, s, f)
					mu.Lock()
					defer mu.Unlock()
					runs = append(runs, run)
				})
			}
		}
	})
	return runs
}

func playScenario(t *testing.T, s tcplab.Scenario, f tcplab.Family) (run ScenarioRun) {
	t.Helper()
	untilShown(t, func() string {
		n := tcplab.NewNetns(t)
		watch := newWatch(t, n)
		run = ScenarioRun{s.Name, f, n.Inode(), s.Run(n, f)}
		return watch.hidden()
	})
	return run
}

// CheckSequence compares the whole ordered sequence of transitions of each socket, and checks the
// identity and the times in each record. Between sockets there is no order.
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
		t.Errorf("a transition that no socket of the scenario made: %s", l.Raw)
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

// SplitBySocket splits off the records of one socket, by its cookie, or by its ports if
// no process ever had a descriptor of it.
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

// CheckPath compares the states with the path of the scenario. The last CLOSE is a
// TIME_WAIT if a timewait socket replaced the socket.
func CheckPath(t *testing.T, p *tcplab.Endpoint, lines []Record) {
	t.Helper()
	want := make([]string, len(p.Path))
	for i, s := range p.Path {
		want[i] = s.String()
	}
	if p.Substate != 0 && len(want) > 0 {
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
			t.Errorf("old_state is %s, but the state before was %s: %s", l.Old, got[len(got)-1], l.Raw)
		}
		got = append(got, l.New)
		if l.Self != (l.Old == l.New) {
			t.Errorf("self is %v, which contradicts the states: %s", l.Self, l.Raw)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("%v > %v: states\n%v\nwant\n%v", p.Local, p.Remote, strings.Join(got, " "), strings.Join(want, " "))
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
	if isTimeWait := p.Substate != 0; isTimeWait != (last.KernelNew == "CLOSE") || isTimeWait != (last.Substate != "") {
		t.Errorf("timewait socket after the last CLOSE: %v, but the record shows the opposite: %s", isTimeWait, last.Raw)
	}
}

// checkIdentity compares addresses, ports, family and uid. It allows only what the
// kernel does not have at that moment: local port and address before they are chosen,
// and the peer of a listener.
func checkIdentity(t *testing.T, f tcplab.Family, p *tcplab.Endpoint, l Record) {
	t.Helper()
	family := map[tcplab.Family]string{tcplab.V4: "ipv4", tcplab.V6: "ipv6", tcplab.Mapped: "ipv4"}[f]
	// Without per-socket state the first transition of a child has the addresses of its
	// listener.
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
		t.Errorf("uid is not 0: %s", l.Raw)
	}
}

func checkEnd(t *testing.T, l Record, end, addr string, port uint16, want netip.AddrPort, mayLack bool) {
	t.Helper()
	if !want.IsValid() || want.Port() == 0 {
		return // unknown to tcplab
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
			t.Errorf("its time is before that of the transition before it: %s", l.Raw)
		}
	}
}
