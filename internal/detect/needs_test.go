package detect

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcpshift/tcpshift/internal/detect/rate"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// life is the sequence of states of a socket; fails is the error at its end.
type life struct {
	role   tcp.Role
	states []tcp.State
	half   bool // the TIME_WAIT has the substate FIN_WAIT2
	fails  unix.Errno
}

var lives = []life{
	{tcp.RoleClient, []tcp.State{tcp.Close, tcp.SynSent, tcp.Established, tcp.FinWait1, tcp.FinWait2, tcp.TimeWait}, false, 0},
	{tcp.RoleClient, []tcp.State{tcp.Close, tcp.SynSent, tcp.Established, tcp.FinWait1, tcp.FinWait2, tcp.TimeWait}, true, 0},
	{tcp.RoleClient, []tcp.State{tcp.Close, tcp.SynSent, tcp.Established, tcp.FinWait1, tcp.Closing, tcp.TimeWait}, false, 0},
	{tcp.RoleClient, []tcp.State{tcp.Close, tcp.SynSent, tcp.Established, tcp.CloseWait, tcp.LastAck, tcp.Close}, false, 0},
	{tcp.RoleClient, []tcp.State{tcp.Close, tcp.SynSent, tcp.Established, tcp.CloseWait}, false, 0},
	{tcp.RoleClient, []tcp.State{tcp.Close, tcp.SynSent, tcp.Close}, false, unix.ECONNREFUSED},
	{tcp.RoleClient, []tcp.State{tcp.Close, tcp.SynSent, tcp.Established, tcp.Close}, false, unix.ECONNRESET},
	{tcp.RoleClient, []tcp.State{tcp.Close, tcp.SynSent, tcp.SynRecv, tcp.Established, tcp.FinWait1, tcp.Close}, false, 0},
	{tcp.RoleServer, []tcp.State{tcp.Listen, tcp.SynRecv, tcp.Established, tcp.CloseWait, tcp.LastAck, tcp.Close}, false, 0},
	{tcp.RoleServer, []tcp.State{tcp.Listen, tcp.SynRecv, tcp.Established, tcp.CloseWait}, false, 0},
	{tcp.RoleServer, []tcp.State{tcp.Listen, tcp.SynRecv, tcp.Established, tcp.CloseWait, tcp.Close}, false, unix.EPIPE},
	{tcp.RoleServer, []tcp.State{tcp.Listen, tcp.SynRecv, tcp.Established, tcp.FinWait1, tcp.FinWait2, tcp.TimeWait}, false, 0},
	{tcp.RoleServer, []tcp.State{tcp.Listen, tcp.SynRecv, tcp.Close}, false, 0},
	{tcp.RoleListener, []tcp.State{tcp.Close, tcp.Listen, tcp.Close, tcp.Close}, false, 0},
}

// steps gives the transitions of a life, one second in each state.
func (l *life) steps(cookie uint64, random *rand.Rand) []tcp.Transition {
	port := uint16(32768 + random.IntN(20000))
	ours, theirs := netip.AddrFrom4([4]byte{10, 0, 0, byte(1 + random.IntN(2))}), netip.AddrFrom4([4]byte{10, 0, 1, 1})
	all := make([]tcp.Transition, len(l.states)-1)
	for i := range all {
		t := &all[i]
		*t = tcp.Transition{
			Cookie: cookie, Netns: testNetns, Owner: curl, Role: l.role, Old: l.states[i], New: l.states[i+1], InState: time.Second,
			Local: tcp.Endpoint{Addr: ours, Port: port}, Peer: tcp.Endpoint{Addr: theirs, Port: 80},
		}
		if l.role == tcp.RoleServer {
			t.Local.Port, t.Peer.Port = 80, port
		}
		if t.New == tcp.SynSent {
			t.Local.Port = 0
		}
		if t.New == tcp.TimeWait {
			t.Substate = tcp.TimeWait
			if l.half {
				t.Substate = tcp.FinWait2
			}
		}
	}
	all[len(all)-1].Error = tcp.Errno(l.fails)
	return all
}

// unordered gives the contents of alerts, sorted: those of one moment come in any order,
// and their ids follow that order.
func unordered(alerts []Alert) []string {
	texts := make([]string, len(alerts))
	for i, a := range alerts {
		a.ID = ""
		texts[i] = fmt.Sprintf("%+v", a)
	}
	slices.Sort(texts)
	return texts
}

// An engine that sees only the transitions of Needs raises the same alerts as one that
// sees all of them.
func TestNeeds_OfEngine(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 8))
	c := Config{ConnectFailures: 5, Resets: 5, HalfClosed: 20, CloseWaitCount: 4, CloseWaitAge: 10 * time.Second}
	start := time.Hour
	all, needed := New(c, start), New(c, start)
	needs := Needs()
	limits := &tcp.Limits{PortLow: 32768, PortHigh: 33767, Reuse: 2, Timestamps: true, FinTimeout: time.Minute, MaxTimeWaits: 5000, TimeWaits: -1}
	var pending [][]tcp.Transition
	var alerts, seen, asked int
	for now := start; now < start+4*time.Minute; now += rate.Step {
		for range random.IntN(40) {
			pending = append(pending, lives[random.IntN(len(lives))].steps(uint64(random.Uint32()), random))
		}
		for i := range pending {
			if len(pending[i]) == 0 || random.IntN(3) == 0 {
				continue
			}
			next := &pending[i][0]
			pending[i] = pending[i][1:]
			next.Monotonic = now
			all.Observe(next)
			seen++
			if needs.Has(next.Old, next.New) {
				needed.Observe(next)
				asked++
			}
		}
		if now%time.Second == 0 {
			for _, e := range []*Engine{all, needed} {
				for _, w := range e.Requests(now) {
					e.Update(now, w.Netns, limits)
				}
			}
		}
		got, want := unordered(needed.Tick(now)), unordered(all.Tick(now))
		alerts += len(want)
		if !slices.Equal(got, want) {
			t.Fatalf("%v after the start the alerts are\n%s\nwant\n%s", now-start, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
	if alerts < 10 || asked == 0 || 2*asked > seen+seen/2 {
		t.Errorf("%d alerts from %d of %d transitions prove nothing", alerts, asked, seen)
	}
}

// Detection needs four of the ten transitions of a connection over loopback, and the step
// to FIN_WAIT2, which the kernel emits for detection only if a process still has the socket.
func TestNeeds_LoopbackConnection(t *testing.T) {
	needs := Needs()
	var asked []tcp.Transition
	for _, l := range []life{lives[0], lives[8]} {
		for _, s := range l.steps(1, rand.New(rand.NewPCG(1, 1))) {
			if needs.Has(s.Old, s.New) {
				asked = append(asked, tcp.Transition{Old: s.Old, New: s.New})
			}
		}
	}
	want := []tcp.Transition{
		{Old: tcp.Close, New: tcp.SynSent}, {Old: tcp.FinWait1, New: tcp.FinWait2}, {Old: tcp.FinWait2, New: tcp.TimeWait},
		{Old: tcp.Established, New: tcp.CloseWait}, {Old: tcp.CloseWait, New: tcp.LastAck},
	}
	if !reflect.DeepEqual(asked, want) {
		t.Errorf("Needs has %v, want %v", asked, want)
	}
}
