package kernel_test

import (
	"encoding/json"
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/internal/detect"
	"github.com/tcpshift/tcpshift/internal/tcp"
	"github.com/tcpshift/tcpshift/test/kernel/harness"
	"github.com/tcpshift/tcpshift/test/tcplab"
)

// If the programs emit only the ends of sockets, with or without what detection needs, the
// connection records are those of a full trace: the same keys with the same values, and the same
// times but for the moments between two tracers. The other transitions count as filtered.
func TestConnection_OnlyEnds(t *testing.T) {
	env := harness.NewEnv(t)
	server, _, receiver, activity := crowd(env)
	n := tcplab.NewNetns(t)
	ends := tcp.EndTransitions()
	endsAndNeeds := detect.Needs()
	endsAndNeeds.Join(ends)
	var tracers []*harness.Tracer
	for _, transitions := range []*tcp.Transitions{nil, &ends, &endsAndNeeds} {
		o := harness.InNamespace(n)
		o.Ends, o.BufferSize = true, 1<<20
		o.Filter.Netns = append(o.Filter.Netns, env.Netns.Inode())
		o.Filter.Transitions, o.Filter.ExcludeOrphanFinWait2 = transitions, transitions != nil
		tracers = append(tracers, harness.StartTracer(t, o))
	}
	env.UseSharedTracers()
	activity()
	endAfterOwner(env, server, receiver)
	everyEnd(n)
	env.Finish()
	all := tracers[0].Stop()
	for i, name := range []string{"ends", "ends and what detection needs"} {
		t.Run(name, func(t *testing.T) {
			harness.CheckInstructions(t, tracers[i+1])
			lines := tracers[i+1].Stop()
			checkSameConnections(t, lines, all)
			checkOnlyWanted(t, lines, []tcp.Transitions{ends, endsAndNeeds}[i])
		})
	}
}

// endAfterOwner makes a connection whose owner has another name when it closes than when it connected, and is dead when
// the connection ends. So its name at the end is that at the close.
func endAfterOwner(env *harness.Env, parent, peer *harness.Actor) {
	env.Netns.Sysctl("net.ipv4.tcp_orphan_retries", "100")
	dying := parent.Fork("the-young", 0, 0)
	listener := peer.Listen(harness.At(7002))
	dying.Dial(harness.At(7002))
	toOrphan := peer.Accept(listener)
	dying.Rename("the-dead")
	peer.DropIncoming(toOrphan)
	dying.Kill()
	peer.AllowIncoming(toOrphan)
	peer.AwaitState(toOrphan, tcplab.CloseWait)
	peer.Close(toOrphan)
}

// everyEnd makes connections that end in many ways. One is established for a while.
func everyEnd(n *tcplab.Netns) {
	for _, family := range []tcplab.Family{tcplab.V4, tcplab.V6} {
		for _, conversation := range []func(*tcplab.Netns, tcplab.Family) tcplab.Outcome{
			tcplab.Refused, tcplab.ResetByLinger0, tcplab.HalfClose, tcplab.SimultaneousClose, tcplab.UnacceptedChild, tcplab.NoPort,
		} {
			conversation(n, family)
		}
	}
	listener := n.Listen(tcplab.V4.At(7500))
	client := n.Dial(tcplab.V4.At(7500))
	server := listener.Accept()
	time.Sleep(3 * closeEnough)
	client.Disconnect()
	_ = client.TryConnect(tcplab.V4.At(7501)) // the socket's second connection, which is refused
	client.Close()
	server.Close()
	listener.Close()
	n.Settle(0)
}

// closeEnough is how much the times of two tracers may differ: they read the clock one after the other.
const closeEnough = 100 * time.Millisecond

// checkSameConnections compares the connection records of two tracers.
func checkSameConnections(t *testing.T, got, want []harness.Record) {
	t.Helper()
	gotEnds, wantEnds := connectionsOf(t, got), connectionsOf(t, want)
	if len(gotEnds) != len(wantEnds) || len(wantEnds) < 20 {
		t.Errorf("%d connection records, want %d, at least 20", len(gotEnds), len(wantEnds))
	}
	for key, w := range wantEnds {
		g, found := gotEnds[key]
		if !found {
			t.Errorf("no connection record of %s, want one like %v", key, w)
			continue
		}
		for name, value := range w {
			number, isNumber := value.(float64)
			other, _ := g[name].(float64)
			switch name {
			case "seq", "time", "opened":
				if _, found := g[name]; !found {
					t.Errorf("%s is missing in %v, want as in %v", name, g, w)
				}
			case "duration_ns", "established_ns":
				if !isNumber || math.Abs(number-other) > float64(closeEnough) || (number == 0) != (other == 0) {
					t.Errorf("%s is %v, want about %v: %v", name, g[name], value, g)
				}
			default:
				if g[name] != value {
					t.Errorf("%s is %v, want %v: %v\nwant %v", name, g[name], value, g, w)
				}
			}
		}
		if len(g) != len(w) {
			t.Errorf("the keys differ: got %v\nwant %v", g, w)
		}
	}
}

// connectionsOf returns the connection records by their socket and, if it had several connections, by
// their order.
func connectionsOf(t *testing.T, lines []harness.Record) map[string]map[string]any {
	t.Helper()
	ends, of := make(map[string]map[string]any), make(map[string]int)
	for _, l := range harness.OfType(lines, "connection") {
		if l.PeerPort == harness.FencePort {
			continue
		}
		var members map[string]any
		if err := json.Unmarshal([]byte(l.Raw), &members); err != nil {
			t.Fatal(err)
		}
		socket := fmt.Sprint(l.Conn, " ", l.Netns, " ", l.LocalPort, " ", l.PeerPort, " ", l.Role)
		of[socket]++
		ends[fmt.Sprint(socket, " ", of[socket])] = members
	}
	return ends
}

// checkOnlyWanted checks that no other transitions were emitted, and that they count as filtered.
func checkOnlyWanted(t *testing.T, lines []harness.Record, wanted tcp.Transitions) {
	t.Helper()
	for _, l := range harness.OfType(lines, "transition") {
		from, _ := tcp.ParseState(l.Old)
		to, _ := tcp.ParseState(l.New)
		if !wanted.Has(from, to) {
			t.Errorf("not wanted: %s", l.Raw)
		}
	}
	stops := harness.OfType(lines, "stop")
	if len(stops) != 1 || stops[0].Filtered == 0 {
		t.Errorf("%d stop records, filtered must not be 0: %+v", len(stops), stops)
	}
}
