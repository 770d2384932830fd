package tcplab

import (
	"fmt"
	"testing"
	"time"
)

// Each connection of a storm is ten transitions, however it is closed.
func TestStorm_TenTransitionsPerConnection(t *testing.T) {
	w := newStateLog(t)
	for _, f := range []Family{V4, V6} {
		for _, end := range []StormEnd{ClientFirst, ServerFirst, HalfClosed, Simultaneous} {
			t.Run(fmt.Sprintf("%v %v", end, f), func(t *testing.T) { checkStormPaths(t, w, f, end) })
		}
	}
}

func checkStormPaths(t *testing.T, w *stateLog, f Family, end StormEnd) {
	const connections, workers = 1001, 2
	n := NewNetns(t)
	w.write(t, "trace", "") // drop earlier events
	FreshPort()             // the port of the second worker
	port := FreshPort() - 1
	if made := Storm(n, StormConfig{Connections: connections, Workers: workers, Port: port, Family: f, End: end}); made != connections {
		t.Errorf("made %d connections, want %d", made, connections)
	}
	got := map[[2]State]int{}
	inStorm := func(p uint16) bool { return p >= port && p < port+workers }
	for _, e := range w.events(t, func(sport, dport uint16) bool { return inStorm(sport) || inStorm(dport) }) {
		got[[2]State{e.from, e.to}]++
	}
	want := map[[2]State]int{}
	add(want, listened, workers)
	if end == Simultaneous {
		// Each connection may end in several ways, but all have ended.
		add(want, connected, connections)
		add(want, accepted, connections)
		checkEnds(t, got, 2*connections)
	} else {
		add(want, closesFirst, connections)
		add(want, closesLast, connections)
	}
	for step := range want {
		if got[step] != want[step] {
			t.Errorf("%v to %v: %d times, want %d", step[0], step[1], got[step], want[step])
		}
		delete(got, step)
	}
	if len(got) != 0 {
		t.Errorf("transitions that the storm should not cause: %v", got)
	}
}

// checkEnds removes the transitions of connections that both sides closed at once, and
// checks that they add up.
func checkEnds(t *testing.T, got map[[2]State]int, sides int) {
	t.Helper()
	first, last := got[[2]State{Established, FinWait1}], got[[2]State{Established, CloseWait}]
	both := got[[2]State{FinWait1, Closing}]
	t.Logf("of %d sides %d closed first, %d of them at the same time as the other", sides, first, both)
	if first+last != sides {
		t.Errorf("%d sides closed first and %d last, want %d in all", first, last, sides)
	}
	ends := map[[2]State]int{
		{Established, FinWait1}: first, {Established, CloseWait}: last,
		{FinWait1, Closing}: both, {Closing, Close}: both,
		{FinWait1, FinWait2}: first - both, {FinWait2, Close}: first - both,
		{CloseWait, LastAck}: last, {LastAck, Close}: last,
	}
	for step, want := range ends {
		if got[step] != want {
			t.Errorf("%v to %v: %d times, want %d", step[0], step[1], got[step], want)
		}
		delete(got, step)
	}
}

func add(counts map[[2]State]int, path Path, times int) {
	for i := range path[1:] {
		counts[[2]State{path[i], path[i+1]}] += times
	}
}

// A storm can make more connections than there are ephemeral ports.
func TestStorm_OutlivesEphemeralPorts(t *testing.T) {
	n := NewNetns(t)
	n.Sysctl("net.ipv4.ip_local_port_range", "40000 40099")
	n.Sysctl("net.ipv4.tcp_tw_reuse", "0")
	const connections = 3000
	begin := time.Now()
	if made := Storm(n, StormConfig{Connections: connections}); made != connections {
		t.Errorf("made %d connections, want %d", made, connections)
	}
	t.Logf("%.0f connections a second", connections/time.Since(begin).Seconds())
}

// BenchmarkStorm measures the rate without a tracer. Run it with -benchtime 200000x.
func BenchmarkStorm(b *testing.B) {
	n := NewNetns(b)
	b.ResetTimer()
	made := Storm(n, StormConfig{Connections: b.N})
	b.ReportMetric(float64(made)/b.Elapsed().Seconds(), "conns/s")
}
