package detect

import (
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

// anything is a random transition between two states.
func anything(random *rand.Rand, old, next tcp.State) tcp.Transition {
	errors := []unix.Errno{0, unix.ECONNREFUSED, unix.EPIPE, unix.ECONNRESET, unix.ECONNRESET, unix.ECONNRESET}
	t := tcp.Transition{
		Cookie: 1 + random.Uint64N(500), Netns: testNetns, Owner: curl, InState: 2 * time.Second,
		Old: old, New: next, Role: tcp.Role(random.IntN(4)),
		Local: tcp.Endpoint{Addr: here, Port: uint16(32768 * random.IntN(2))},
		Peer:  tcp.Endpoint{Addr: netip.AddrFrom4([4]byte{10, 0, 0, byte(random.IntN(3))}), Port: 80},
		Error: tcp.Errno(errors[random.IntN(len(errors))]), NoPort: random.IntN(4) == 0, Locked: random.IntN(2) == 0,
	}
	if t.New == tcp.TimeWait {
		t.Substate = tcp.FinWait2 + tcp.State(random.IntN(2))
	}
	return t
}

// Detectors that see only what they need raise the same alerts as if they saw every
// transition, even between states without a name.
func TestNeeds_OfEachDetector(t *testing.T) {
	random := rand.New(rand.NewPCG(9, 10))
	frequent := [][2]tcp.State{{tcp.SynSent, tcp.Close}, {tcp.Established, tcp.Close}, {tcp.Close, tcp.SynSent}, {tcp.FinWait2, tcp.TimeWait}}
	c := Config{ConnectFailures: 5, Resets: 5, HalfClosed: 20, CloseWaitCount: 4, CloseWaitAge: 10 * time.Second}
	start := time.Hour
	some, all := New(c, start), New(c, start)
	for old := range all.observers.byStates {
		for next := range all.observers.byStates[old] {
			all.observers.byStates[old][next] = all.detectors
		}
	}
	limits := &tcp.Limits{PortLow: 32768, PortHigh: 33767, Timestamps: true, FinTimeout: time.Minute, MaxTimeWaits: 500, TimeWaits: -1}
	kinds, asked := make(map[string]bool), false
	for now := start; now < start+3*time.Minute; now += rate.Step {
		for range random.IntN(60) {
			states := frequent[int(now/(20*time.Second))%len(frequent)]
			if random.IntN(4) == 0 {
				states = [2]tcp.State{tcp.State(random.IntN(20)), tcp.State(random.IntN(20))} // some have no name
			}
			event := anything(random, states[0], states[1])
			event.Monotonic = now
			some.Observe(&event)
			all.Observe(&event)
		}
		wants := all.Requests(now)
		if got := some.Requests(now); !reflect.DeepEqual(got, wants) {
			t.Fatalf("%v after the start it requests %v, want %v", now-start, got, wants)
		}
		for _, want := range wants {
			asked = asked || want.HalfClosed
			some.Update(now, want.Netns, limits)
			all.Update(now, want.Netns, limits)
		}
		table := overflowing(now)
		some.UpdateListeners(now, testNetns, table)
		all.UpdateListeners(now, testNetns, table)
		alerts := all.Tick(now)
		for _, a := range alerts {
			kinds[a.Kind] = true
		}
		if got, want := unordered(some.Tick(now)), unordered(alerts); !slices.Equal(got, want) {
			t.Fatalf("%v after the start the alerts are\n%s\nwant\n%s", now-start, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
	if len(kinds) < len(Kinds())-2 || !asked {
		t.Errorf("alerts of %v, half-closed sockets requested: %v: this proves nothing", kinds, asked)
	}
}
