package kernel_test

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

// story is a scenario that has been played in a namespace of its own.
type story struct {
	name   string
	family tcplab.Family
	netns  uint32
	out    tcplab.Outcome
}

// of gives the story's own lines: an inode is given to another namespace once
// this one is gone, but the lab's own ports are not; the ephemeral ones are.
func (s *story) of(lines []line) []line {
	ports := map[uint16]bool{}
	for _, p := range s.out.Endpoints() {
		ports[p.Local.Port()], ports[p.Remote.Port()] = true, true
	}
	const firstEphemeral = 32768
	maps.DeleteFunc(ports, func(port uint16, _ bool) bool { return port == 0 || port >= firstEphemeral })
	var mine []line
	for _, l := range lines {
		if l.Netns == s.netns && (ports[l.LocalPort] || ports[l.PeerPort]) {
			mine = append(mine, l)
		}
	}
	return mine
}

// played is every scenario in every family, played once for all tests, and what each
// of the shared tracers says of them.
var played struct {
	stories []story
	told    [][]line
}

func playAll(t *testing.T) (stories []story, told [][]line) {
	t.Helper()
	if played.told != nil {
		return played.stories, played.told
	}
	last := tcplab.NewNetns(t)
	var watches []watch
	for _, tr := range sharedTracers(t) {
		watches = append(watches, watch{tr, true, tr.size()})
	}
	stories = playScenarios(t)
	if err := fence(last); err != nil {
		t.Fatal(err)
	}
	var inodes []uint32
	for _, s := range stories {
		inodes = append(inodes, s.netns)
	}
	for _, v := range watches {
		if err := v.tr.awaitFence(last, v.from); err != nil {
			t.Fatal(err)
		}
		lines, err := parseLines(linesOf(v.tr.since(v.from), inodes...))
		if err != nil {
			t.Fatal(err)
		}
		told = append(told, lines)
	}
	played.stories, played.told = stories, told
	return stories, told
}

// playScenarios plays some at a time, since most of them wait for the kernel's timers.
func playScenarios(t *testing.T) (stories []story) {
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
					stories = append(stories, story{s.Name, f, n.Inode(), out})
				})
			}
		}
	})
	return stories
}

func TestSequence_AllScenarios(t *testing.T) {
	stories, told := playAll(t)
	for _, s := range stories {
		t.Run(fmt.Sprintf("%s %v", s.name, s.family), func(t *testing.T) {
			for _, lines := range told {
				checkStory(t, s, ofType(s.of(lines), "transition"))
			}
		})
	}
}

// checkStory compares whole ordered sequences, each socket's for itself: between
// sockets there is no order.
func checkStory(t *testing.T, s story, got []line) {
	t.Helper()
	of, rest := bySocket(s.out.Endpoints(), got)
	for _, p := range s.out.Endpoints() {
		mine := of[p]
		checkPath(t, p, mine)
		for _, l := range mine {
			checkIdentity(t, s.family, p, l)
		}
		checkTimes(t, mine)
	}
	for _, l := range rest {
		t.Errorf("a transition that nobody made: %s", l.raw)
	}
}

func bySocket(endpoints []*tcplab.Endpoint, lines []line) (of map[*tcplab.Endpoint][]line, rest []line) {
	if !slices.ContainsFunc(lines, func(l line) bool { return l.Conn != "" }) {
		return byPorts(endpoints, lines)
	}
	of, rest = map[*tcplab.Endpoint][]line{}, lines
	for _, p := range endpoints {
		of[p], rest = take(rest, p)
	}
	return of, rest
}

// take splits off the transitions of one socket: by its cookie, or by its ports
// where nobody ever had it in hand.
func take(lines []line, p *tcplab.Endpoint) (mine, others []line) {
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

// checkPath wants the lab's path, its last CLOSE being a TIME_WAIT where one was left.
func checkPath(t *testing.T, p *tcplab.Endpoint, lines []line) {
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
			t.Errorf("the socket left %s, but was in %s: %s", l.Old, got[len(got)-1], l.raw)
		}
		got = append(got, l.New)
		if l.Self != (l.Old == l.New) {
			t.Errorf("self is %v: %s", l.Self, l.raw)
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

func checkLast(t *testing.T, p *tcplab.Endpoint, last line) {
	t.Helper()
	wantError := ""
	if p.Err != 0 {
		wantError = unix.ErrnoName(p.Err)
	}
	if last.Error != wantError {
		t.Errorf("error %q, want %q: %s", last.Error, wantError, last.raw)
	}
	if isTimeWait := p.Left != 0; isTimeWait != (last.KernelNew == "CLOSE") || isTimeWait != (last.Substate != "") {
		t.Errorf("timewait socket left: %v: %s", isTimeWait, last.raw)
	}
}

// checkIdentity allows nothing but what the kernel lacks at that moment: the local
// port before it is chosen, the local address likewise, a listener's peer.
func checkIdentity(t *testing.T, f tcplab.Family, p *tcplab.Endpoint, l line) {
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
		t.Errorf("family %q mapped %v, want %q: %s", l.Family, l.Mapped, family, l.raw)
	}
	opening := l.Old == "CLOSE"
	checkEnd(t, l, "local", l.LocalAddr, l.LocalPort, p.Local, opening)
	checkEnd(t, l, "peer", l.PeerAddr, l.PeerPort, p.Remote, false)
	if l.UID == nil || *l.UID != 0 {
		t.Errorf("uid is not root's: %s", l.raw)
	}
}

func checkEnd(t *testing.T, l line, end, addr string, port uint16, want netip.AddrPort, mayLack bool) {
	t.Helper()
	if !want.IsValid() || want.Port() == 0 {
		return // the lab does not know
	}
	if wantAddr := want.Addr().Unmap().String(); addr != wantAddr && (!mayLack || addr != "") {
		t.Errorf("%s_addr %q, want %q: %s", end, addr, wantAddr, l.raw)
	}
	if port != want.Port() && (!mayLack || port != 0) {
		t.Errorf("%s_port %d, want %d: %s", end, port, want.Port(), l.raw)
	}
}

func checkTimes(t *testing.T, lines []line) {
	t.Helper()
	for i, l := range lines {
		if i > 0 && l.Time.Before(lines[i-1].Time) {
			t.Errorf("before the transition before it: %s", l.raw)
		}
	}
}

// The zone of a link-local address is a device of its namespace, and is not told.
func TestSequence_LinkLocalAddress(t *testing.T) {
	const bare, loopback = "fe80::1", "%1"
	told := ofType(toldOf(t, func(n *tcplab.Netns) {
		n.AddAddr(netip.MustParseAddr(bare))
		at := netip.AddrPortFrom(netip.MustParseAddr(bare+loopback), 7100)
		listener := n.Listen(at)
		client := n.Dial(at)
		child := listener.Accept()
		client.Close()
		child.ReadEOF()
		child.Close()
		listener.Close()
	}), "transition")
	for _, l := range told {
		if l.LocalAddr != bare && l.Old != "CLOSE" || l.PeerAddr != bare && l.Role != "listener" && l.Old != "LISTEN" {
			t.Errorf("%s on both sides is wanted: %s", bare, l.raw)
		}
	}
	if len(told) != 12 {
		t.Errorf("%d transitions, want 12", len(told))
	}
}
