package lab

import (
	"testing"
	"time"
)

func TestAStormIsTenTransitionsAConnection(t *testing.T) {
	n := NewNetns(t)
	w := newWatch(t)
	port := freshPort()
	const connections, workers = 1001, 2
	if made := Storm(n, StormConfig{Connections: connections, Workers: workers, Port: port}); made != connections {
		t.Errorf("made %d connections, want %d", made, connections)
	}
	got := map[[2]State]int{}
	inStorm := func(p uint16) bool { return p >= port && p < port+workers }
	for _, e := range w.events(t, func(sport, dport uint16) bool { return inStorm(sport) || inStorm(dport) }) {
		got[[2]State{e.from, e.to}]++
	}
	want := map[[2]State]int{}
	add(want, closesFirst, connections)
	add(want, closesLast, connections)
	add(want, listened, workers)
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

func add(counts map[[2]State]int, path Path, times int) {
	for i := range path[1:] {
		counts[[2]State{path[i], path[i+1]}] += times
	}
}

func TestAStormOutlivesItsEphemeralPorts(t *testing.T) {
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

// BenchmarkStorm is the rate without a tracer. Give it -benchtime 200000x.
func BenchmarkStorm(b *testing.B) {
	n := NewNetns(b)
	b.ResetTimer()
	made := Storm(n, StormConfig{Connections: b.N})
	b.ReportMetric(float64(made)/b.Elapsed().Seconds(), "conns/s")
}
