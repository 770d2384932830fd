package detect

import (
	"flag"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

var timeouts = flag.Bool("timeouts", false, "some sockets have TCP_LINGER2, or tcp_fin_timeout is short")

// linger is a change of a load: TCP_LINGER2 in seconds, and peers that close after a time.
func linger(linger2, finAfter float64) func(l *simLoad) {
	return func(l *simLoad) { l.linger2, l.finAfter = seconds(linger2), seconds(finAfter) }
}

func finTimeout(s float64) func(l *tcp.Limits) {
	return func(l *tcp.Limits) { l.FinTimeout = seconds(s) }
}

// lingerScenarios are loads whose peers never close, or late, with a timeout of their own or a short tcp_fin_timeout.
var lingerScenarios = []simScenario{
	{
		name: "TCP_LINGER2 of 3 s", ports: 300, end: 200, before: 20 * time.Millisecond,
		loads: []simLoad{client(80, 0, 5, 200, 20, linger(3, 300))},
	},
	{
		name: "TCP_LINGER2 of 20 s", ports: 300, end: 200, before: 20 * time.Millisecond,
		loads: []simLoad{client(80, 0, 5, 200, 9, linger(20, 300))},
	},
	{
		name: "TCP_LINGER2 of 20 s, a storm", ports: 300, end: 120, before: 20 * time.Millisecond,
		loads: []simLoad{client(80, 0, 5, 120, 20, linger(20, 300))},
	},
	{
		name: "TCP_LINGER2 of 20 s, connect() takes over TIME_WAITs", ports: 300, end: 200, before: 20 * time.Millisecond,
		limits: reuseAlways,
		loads:  []simLoad{client(80, 0, 5, 200, 9, linger(20, 300))},
	},
	{
		name: "TCP_LINGER2 of 3 s, a start in between", ports: 300, end: 200, before: 20 * time.Millisecond, restarts: []float64{80},
		loads: []simLoad{client(80, 0, 5, 200, 20, linger(3, 300))},
	},
	{
		name: "TCP_LINGER2 of 3 s beside others whose peers close", ports: 300, end: 200, before: 20 * time.Millisecond,
		loads: []simLoad{client(80, 0, 5, 200, 20, linger(3, 300)), client(80, 1, 5, 200, 2, nil)},
	},
	{
		name: "TCP_LINGER2 of 3 s beside others without", ports: 400, end: 200, before: 20 * time.Millisecond,
		loads: []simLoad{client(80, 0, 5, 200, 20, linger(3, 300)), client(80, 1, 5, 200, 2, linger(0, 300))},
	},
	{
		name: "TCP_LINGER2 of 3 and 20 s, mixed", ports: 400, end: 200, before: 20 * time.Millisecond,
		loads: []simLoad{client(80, 0, 5, 200, 20, linger(3, 300)), client(80, 1, 5, 200, 6, linger(20, 300))},
	},
	{
		name: "TCP_LINGER2 above tcp_fin_timeout", ports: 300, end: 200, before: 20 * time.Millisecond, limits: finTimeout(5),
		loads: []simLoad{client(80, 0, 5, 200, 9, linger(20, 300))},
	},
	{
		name: "TCP_LINGER2 above tcp_fin_timeout, a storm", ports: 300, end: 120, before: 20 * time.Millisecond, limits: finTimeout(5),
		loads: []simLoad{client(80, 0, 5, 120, 14, linger(40, 300))},
	},
	{
		name: "TCP_LINGER2 of 10 s, a storm of peers that close after 4 s", ports: 300, end: 120, before: 20 * time.Millisecond,
		loads: []simLoad{client(80, 0, 5, 120, 8, linger(10, 4))},
	},
	{
		name: "TCP_LINGER2 of 10 s, peers that close after 15 s", ports: 300, end: 200, before: 20 * time.Millisecond,
		loads: []simLoad{client(80, 0, 5, 200, 15, linger(10, 15))},
	},
	{
		name: "tcp_fin_timeout above a minute", ports: 300, end: 200, before: 20 * time.Millisecond, limits: finTimeout(120),
		loads: []simLoad{client(80, 0, 5, 200, 20, linger(3, 300))},
	},
	{
		name: "tcp_fin_timeout of 1 s", ports: 300, end: 250, before: 20 * time.Millisecond, limits: finTimeout(1),
		loads: []simLoad{client(80, 0, 5, 250, 40, linger(0, 300))},
	},
	{
		name: "tcp_fin_timeout of 3 s", ports: 300, end: 250, before: 20 * time.Millisecond, limits: finTimeout(3),
		loads: []simLoad{client(80, 0, 5, 250, 20, linger(0, 300))},
	},
	{
		name: "tcp_fin_timeout of 5 s", ports: 300, end: 250, before: 20 * time.Millisecond, limits: finTimeout(5),
		loads: []simLoad{client(80, 0, 5, 250, 20, linger(0, 300))},
	},
	{
		name: "tcp_fin_timeout of 5 s, a slow load", ports: 300, end: 250, before: 20 * time.Millisecond, limits: finTimeout(5),
		loads: []simLoad{client(80, 0, 5, 250, 8, linger(0, 300))},
	},
	{
		name: "tcp_fin_timeout of 2 s, connect() takes over TIME_WAITs", ports: 300, end: 250, before: 20 * time.Millisecond,
		limits: func(l *tcp.Limits) { l.Reuse, l.FinTimeout = 1, 2*time.Second },
		loads:  []simLoad{client(80, 0, 5, 250, 40, linger(0, 300))},
	},
	{
		name: "tcp_fin_timeout of 1 s, most of the ports in use", ports: 300, end: 200, before: 20 * time.Millisecond, limits: finTimeout(1),
		loads: []simLoad{client(80, 0, 5, 200, 140, linger(0, 300)), client(81, 1, 5, 200, 3, nil), client(80, 2, 5, 200, 0.5, nil)},
	},
	{
		name: "tcp_fin_timeout of 3 s, most of the ports in use", ports: 300, end: 200, before: 20 * time.Millisecond, limits: finTimeout(3),
		loads: []simLoad{client(80, 0, 5, 200, 60, func(l *simLoad) { l.chance, l.finAfter = true, 300*time.Second })},
	},
	{
		name: "tcp_fin_timeout of 5 s, most of the ports in use", ports: 300, end: 200, before: 20 * time.Millisecond, limits: finTimeout(5),
		loads: []simLoad{client(80, 0, 5, 200, 38, linger(0, 300))},
	},
	{
		name: "TCP_LINGER2 of 5 s, most of the ports in use", ports: 300, end: 200, before: 20 * time.Millisecond,
		loads: []simLoad{client(80, 0, 5, 200, 38, linger(5, 300))},
	},
}

// A timewait socket in FIN_WAIT2 keeps its port for its own timeout: no alert is false or missed.
func TestSimulation_Linger2(t *testing.T) { runScenarios(t, lingerScenarios) }

// addTimeouts gives the sockets of some loads TCP_LINGER2, and the namespace another tcp_fin_timeout, from a second on.
// Some of the loads get peers that close late or never.
// The source of chance is its own: the rest of a simulation does not depend on it.
func (r *simRun) addTimeouts() {
	random := rand.New(rand.NewPCG(r.seed, 17))
	if random.IntN(2) == 0 {
		r.k.limits.FinTimeout = time.Duration([]int{1 + random.IntN(6), 1 + random.IntN(60), 60 + random.IntN(90)}[random.IntN(3)]) * time.Second
	}
	for _, l := range r.loads {
		if l.ends != closesFirst || random.IntN(2) == 0 {
			continue
		}
		if random.IntN(4) > 0 {
			l.linger2 = time.Duration([]int{1 + random.IntN(5), 1 + random.IntN(60), 60 + random.IntN(60)}[random.IntN(3)]) * time.Second
		}
		// A burst that takes all ports within seconds would also expire at once, faster than tables are read.
		if l.finAfter == 0 && l.perSecond < 10 {
			l.finAfter = []time.Duration{0, time.Duration(random.IntN(200)) * simStep, 300 * time.Second}[random.IntN(3)]
		}
	}
}
