package detect

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// simScenario is a simulation whose loads and losses are given. It runs with several seeds: these
// decide about the ports, the late timers and the load's chance.
type simScenario struct {
	name   string
	ports  int
	limits func(l *tcp.Limits)
	loads  []simLoad // to and by are set by port and process
	losses []simLoss
	hides  []int // processes that a filter by owner hides, by index
	before time.Duration
	after  time.Duration // see simWorker
	lag    time.Duration
	end    float64 // seconds

	restarts []float64     // when the tracer starts again, in seconds
	stalls   []simStall    // times are from the beginning
	kills    []simKill     // to is set by port; times are from the beginning
	listens  []simArrivals // by is set by process, times are from the beginning; a listener that opens at 0 is older than the tracer
}

// client is a load to a port, from a moment to another one in seconds, of the process with an index.
func client(port uint16, by int, from, until, perSecond float64, change func(l *simLoad)) simLoad {
	l := simLoad{
		to: &simDestination{key: to(port)}, by: []*simProcess{{owner: process(uint32(firstPID+by), "")}},
		from: seconds(from), until: seconds(until), perSecond: perSecond, growth: 1, bursts: 1, lasting: 500 * time.Millisecond,
	}
	if change != nil {
		change(&l)
	}
	return l
}

// hang is a time, in seconds, in which the peers close after a number of seconds.
func hang(from, until, finAfter float64) simHang {
	return simHang{from: time.Hour + seconds(from), until: time.Hour + seconds(until), finAfter: seconds(finAfter)}
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

func loss(from, until, share float64, kinds ...tcp.State) simLoss {
	l := simLoss{from: seconds(from), until: seconds(until), share: share}
	for _, kind := range kinds {
		l.kinds[lossKind(&tcp.Transition{New: kind})] = true
	}
	return l
}

func (c *simScenario) run(seed uint64) *simRun {
	r := newSimRun(seed)
	random := rand.New(rand.NewPCG(seed, 15))
	k := newSimKernel(random, c.ports)
	if c.limits != nil {
		c.limits(&k.limits)
	}
	r.random, r.k, r.loads, r.filter = random, k, nil, ""
	r.config.UpdateInterval = time.Second // so that the numbers of each second are judged
	r.tr = &simTracer{k: k, random: random, dead: make(map[uint32]bool), lag: c.lag, worker: simWorker{before: c.before, after: c.after}}
	k.emit = r.tr.take
	k.stalled = func() bool { return r.tr.stalls.has(starvedLoads, k.now) }
	clear(r.deaths)
	clear(r.restarts)
	r.kills, r.arrivals, r.vanishes = nil, nil, false
	byPort := make(map[uint16]*simDestination)
	for _, l := range c.loads {
		port := l.to.key.peerPort
		if byPort[port] == nil {
			byPort[port] = k.addDestination(l.to.key.local, l.to.key.peer, port, false)
		}
		l.to, l.by = byPort[port], []*simProcess{r.processes[l.by[0].owner.PID-firstPID]}
		l.from, l.until = k.now+l.from, k.now+l.until
		r.loads = append(r.loads, &l)
	}
	for _, l := range c.losses {
		l.from, l.until = k.now+l.from, k.now+l.until
		r.tr.lossy = append(r.tr.lossy, l)
	}
	if c.hides != nil {
		hidden := make(map[*simProcess]bool)
		for _, i := range c.hides {
			hidden[r.processes[i]] = true
		}
		r.filter, r.tr.byOwner = "hides", true
		r.tr.passes = func(s *simSocket) bool { return !hidden[s.by] }
	}
	for _, x := range c.kills {
		x.to, x.from, x.until, x.at = byPort[x.to.key.peerPort], k.now+x.from, k.now+x.until, k.now+x.from
		r.kills = append(r.kills, &x)
	}
	for _, a := range c.listens {
		a.opensAt, a.from, a.until, a.by = k.now+a.opensAt, k.now+a.from, k.now+a.until, r.processes[a.by.owner.PID-firstPID]
		a.stuckFrom, a.stuckUntil = k.now+a.stuckFrom, k.now+a.stuckUntil
		if a.opensAt == k.now {
			a.on = k.listen(a.port, uint32(a.backlog), a.by)
		}
		r.arrivals = append(r.arrivals, &a)
	}
	for _, s := range c.stalls {
		r.tr.stalls = append(r.tr.stalls, simStall{of: s.of, from: k.now + s.from, until: k.now + s.until})
	}
	for _, at := range c.restarts {
		r.restarts[k.now+seconds(at)] = true
	}
	r.end = k.now + seconds(c.end)
	k.pass()
	r.run()
	return r
}

var (
	lateFIN = func(after float64) func(*simLoad) {
		return func(l *simLoad) { l.finAfter = seconds(after) }
	}
	reuseAlways = func(l *tcp.Limits) { l.Reuse = 1 }
	allKinds    = []tcp.State{tcp.SynSent, tcp.TimeWait, tcp.CloseWait, tcp.LastAck, tcp.Close}
)

// simScenarios are what random simulations have found, each as small as it gets, and what catches wrong rules of the engine
// that no random simulation has caught.
var simScenarios = []simScenario{
	{
		name:  "two tables show that ends were lost, and the rate is corrected once",
		ports: 225, end: 190, before: 18 * time.Millisecond,
		loads:  []simLoad{client(80, 3, 58, 150, 1.39, func(l *simLoad) { l.chance, l.growth = true, 2.49 })},
		losses: []simLoss{loss(104, 129.3, 1, tcp.TimeWait, tcp.CloseWait, tcp.LastAck, tcp.Close)},
	},
	{
		name:  "TIME_WAITs of a loss count for the rate of the second of their creation",
		ports: 84, end: 130, before: 35 * time.Millisecond, after: 18 * time.Millisecond,
		loads:  []simLoad{client(80, 0, 62.3, 129.4, 1.2, func(l *simLoad) { l.lasting = 900 * time.Millisecond })},
		losses: []simLoss{loss(54.3, 82.8, 1, allKinds...)},
	},
	{
		name:  "lost ends of connections that are less than what moves while the kernel counts",
		ports: 313, end: 156, before: 39 * time.Millisecond, after: 25 * time.Millisecond, lag: simStep,
		loads: []simLoad{
			client(81, 3, 0.2, 117, 100, func(l *simLoad) { l.ends, l.chance, l.lasting = peerFirst, true, 920*time.Millisecond }),
			client(81, 1, 71, 107, 7, nil),
		},
		losses: []simLoss{loss(11.6, 32.4, 0.5, tcp.SynSent, tcp.TimeWait, tcp.LastAck, tcp.Close)},
	},
	{
		name:  "peers that close late, all ports in use",
		ports: 146, end: 101, before: 39 * time.Millisecond, after: 6 * time.Millisecond, limits: reuseAlways,
		loads: []simLoad{client(80, 2, 48, 101, 78, func(l *simLoad) { l.chance, l.finAfter = true, seconds(21.4) })},
	},
	{
		name:  "hidden peers that never close",
		ports: 293, end: 119, before: 34 * time.Millisecond, after: 9 * time.Millisecond, limits: reuseAlways, hides: []int{1},
		loads: []simLoad{
			client(80, 1, 37, 119, 74, lateFIN(300)),
			client(80, 2, 30, 119, 3.7, func(l *simLoad) { l.chance = true }),
		},
	},
	{
		name:  "those without timestamps by second",
		ports: 226, end: 190, before: 13 * time.Millisecond, after: 21 * time.Millisecond, lag: simStep,
		limits: func(l *tcp.Limits) { l.Reuse, l.FinTimeout = 1, 12*time.Second },
		loads: []simLoad{
			client(80, 3, 28.3, 67.2, 30, func(l *simLoad) { l.chance = true }),
			client(80, 3, 35.9, 66.3, 30, func(l *simLoad) { l.untimed, l.finAfter, l.lasting = true, seconds(28.5), 100*time.Millisecond }),
		},
	},
	{
		name:  "peers that close late keep ports for longer",
		ports: 251, end: 188, before: 25 * time.Millisecond, after: 21 * time.Millisecond, lag: simStep,
		loads: []simLoad{client(80, 3, 79, 145, 3.77, lateFIN(17.8))},
	},
	{
		name:  "the quarter second that has just begun is no window for a rate",
		ports: 242, end: 119, before: 25 * time.Millisecond, after: 25 * time.Millisecond, lag: simStep,
		loads: []simLoad{client(80, 3, 40.1, 119.1, 8.01, nil)},
	},
	{
		name:  "timewait sockets that are older than the tracer and about to end, which connect() does not take over",
		ports: 263, end: 153, before: time.Millisecond, after: 3 * time.Millisecond, lag: simStep, restarts: []float64{109.2},
		limits: reuseAlways,
		loads: []simLoad{
			client(80, 1, 71.9, 74.5, 100, func(l *simLoad) { l.untimed = true }),
			client(80, 1, 74.5, 128, 5, func(l *simLoad) { l.untimed = true }),
		},
	},
	{
		name:  "TIME_WAITs that connect() takes over do not use up tcp_max_tw_buckets",
		ports: 328, end: 134, before: 50 * time.Millisecond, after: 50 * time.Millisecond,
		limits: func(l *tcp.Limits) { l.MaxTimeWaits = 796 },
		loads: []simLoad{
			client(82, 3, 5, 134, 220, func(l *simLoad) { l.to.key.local, l.to.key.peer, l.lasting = loopback, loopback, 170*time.Millisecond }),
			client(80, 0, 19, 134, 10.9, nil),
		},
	},
	{
		name:  "peers that never close, and sockets that are killed",
		ports: 387, end: 124, before: 1250 * time.Millisecond, after: 400 * time.Millisecond, lag: simStep,
		loads: []simLoad{client(81, 0, 36, 124, 4.14, func(l *simLoad) { l.chance, l.finAfter = true, 300*time.Second })},
		kills: []simKill{{to: &simDestination{key: to(81)}, from: seconds(102), until: seconds(102), share: 0.3}},
	},
	{
		name:  "sockets without timestamps are killed again and again, where connect() takes over TIME_WAITs",
		ports: 324, end: 112, before: 30 * time.Millisecond, after: 25 * time.Millisecond, lag: simStep,
		limits: func(l *tcp.Limits) { l.Reuse, l.ReusesFinWait2 = 1, true },
		loads: []simLoad{
			client(82, 1, 47, 112, 9.8, func(l *simLoad) { l.chance, l.untimed, l.finAfter = true, true, seconds(25.8) }),
			client(82, 2, 3, 37, 78, nil),
		},
		kills: []simKill{{to: &simDestination{key: to(82)}, from: seconds(59.8), until: seconds(103), every: seconds(11.6), share: 1}},
	},
	{
		name:  "all TIME_WAITs of a storm that has reached tcp_max_tw_buckets are killed",
		ports: 300, end: 100, before: 30 * time.Millisecond, after: 25 * time.Millisecond,
		limits: func(l *tcp.Limits) { l.MaxTimeWaits = 150 },
		loads: []simLoad{
			client(80, 1, 5, 61, 4, nil),
			client(81, 2, 5, 100, 4, func(l *simLoad) { l.ends = refusedConnects }),
		},
		kills: []simKill{{to: &simDestination{key: to(80)}, from: seconds(62), until: seconds(62), share: 1}},
	},
	{
		name:  "those that were taken over while the kernel counted do not blur the count of the others",
		ports: 389, end: 131, before: 77 * time.Millisecond, after: 81 * time.Millisecond, lag: simStep, limits: reuseAlways, restarts: []float64{122.8},
		loads: []simLoad{
			client(81, 0, 50.6, 131, 297, func(l *simLoad) { l.chance, l.ends, l.lasting = true, peerFirst, 390*time.Millisecond }),
			client(81, 1, 6, 101, 30, func(l *simLoad) { l.untimed = true }),
			client(81, 1, 15, 82, 70, func(l *simLoad) { l.untimed, l.growth = true, 4 }),
		},
	},
	{
		name:  "sockets in FIN_WAIT2 that are killed are no sockets whose peers have closed",
		ports: 294, end: 130, before: 6 * time.Millisecond, after: 2 * time.Millisecond, lag: simStep,
		loads: []simLoad{
			client(80, 1, 16, 120, 1.55, func(l *simLoad) { l.bursts, l.lasting = 3, 1400*time.Millisecond }),
			client(80, 3, 15, 60, 8.2, lateFIN(300)),
			client(80, 1, 12, 130, 1, func(l *simLoad) { l.chance, l.lasting = true, 59*time.Second }),
		},
		kills: []simKill{
			{to: &simDestination{key: to(80)}, from: seconds(16.4), until: seconds(16.4), share: 1},
			{to: &simDestination{key: to(80)}, from: seconds(19), until: seconds(19), share: 1},
		},
	},
	{
		name:  "a connect() that has failed shows some TIME_WAITs of a second without timestamps, and those count once",
		ports: 165, end: 75, before: 6 * time.Millisecond, after: 4 * time.Millisecond, limits: reuseAlways,
		loads: []simLoad{
			client(82, 1, 5, 72.5, 24, func(l *simLoad) { l.bursts, l.lasting, l.untimed = 4, 200*time.Millisecond, true }),
			client(82, 2, 0, 73.7, 60, func(l *simLoad) { l.lasting = 0 }),
		},
	},
	{
		name:  "peers that close late, by tables that come late",
		ports: 78, end: 120, before: 740 * time.Millisecond, after: time.Second,
		limits: func(l *tcp.Limits) { l.Reuse, l.FinTimeout = 1, 53*time.Second },
		loads:  []simLoad{client(80, 1, 56.2, 116, 21.7, func(l *simLoad) { l.lasting, l.finAfter = time.Second, seconds(26.7) })},
	},
	{
		name:  "sockets without timestamps whose peers close late are killed again and again",
		ports: 267, end: 181, before: 1056 * time.Millisecond, after: 442 * time.Millisecond, lag: simStep,
		limits: func(l *tcp.Limits) { l.Reuse, l.FinTimeout = 1, 31*time.Second },
		loads: []simLoad{
			client(80, 2, 48, 113, 68, func(l *simLoad) { l.untimed, l.finAfter, l.lasting = true, seconds(1.3), 100*time.Millisecond }),
			client(80, 1, 62, 137, 32, func(l *simLoad) { l.chance, l.growth, l.lasting = true, 2.5, 200*time.Millisecond }),
			client(80, 1, 62, 181, 1, func(l *simLoad) { l.ends, l.untimed = sendsOn, true }),
		},
		kills: []simKill{
			{to: &simDestination{key: to(80)}, from: seconds(55), until: seconds(125), every: 500 * time.Millisecond, share: 0.3},
			{to: &simDestination{key: to(80)}, from: seconds(126), until: seconds(155), every: 10 * time.Second, share: 1},
		},
	},
	{
		name:  "a queue that is always full, where readings take seconds",
		ports: 100, end: 120, before: 1200 * time.Millisecond, after: 870 * time.Millisecond,
		listens: []simArrivals{{
			opensAt: seconds(20), port: 81, backlog: 4, by: &simProcess{owner: process(firstPID+1, "")}, from: seconds(21), until: seconds(120),
			perSecond: 2, bursts: 1, accepts: 1e4, leaves: 5,
		}},
	},
	{
		name:  "ports that bind() has taken are no part of the capacity",
		ports: 200, end: 120, before: 20 * time.Millisecond, after: 20 * time.Millisecond,
		loads: []simLoad{
			client(81, 0, 1, 21, 3, func(l *simLoad) { l.binds, l.lasting = true, 300*time.Second }),
			client(80, 1, 30, 120, 5, nil),
		},
	},
	{
		name:  "connections whose last FIN is not acknowledged keep their ports",
		ports: 240, end: 95, before: 20 * time.Millisecond, after: 20 * time.Millisecond,
		loads: []simLoad{
			client(80, 0, 1, 21, 4, func(l *simLoad) { l.ends, l.lastAck = peerFirst, 110*time.Second }),
			client(80, 1, 30, 95, 3, nil),
		},
	},
	{
		name:  "peers that never close are counted in the kernel's table",
		ports: 350, end: 120, before: 20 * time.Millisecond, after: 20 * time.Millisecond,
		loads: []simLoad{client(80, 0, 1, 120, 3, lateFIN(300))},
	},
	{
		name:  "peers that never close, and sockets that a filter by owner hides from a tracer that has just started",
		ports: 87, end: 100, before: 49 * time.Millisecond, after: 15 * time.Millisecond, restarts: []float64{45}, hides: []int{1},
		limits: func(l *tcp.Limits) { l.FinTimeout = 28 * time.Second },
		loads:  []simLoad{client(82, 0, 3, 100, 2, func(l *simLoad) { l.lasting, l.finAfter = 0, 300*time.Second })},
	},
	{
		name:  "peers that hang for a while, and close soon after that",
		ports: 250, end: 100, before: 20 * time.Millisecond, after: 20 * time.Millisecond,
		limits: func(l *tcp.Limits) { l.FinTimeout = 10 * time.Second },
		loads: []simLoad{
			client(80, 0, 3, 17, 6, lateFIN(300)),
			client(80, 0, 17, 100, 6, lateFIN(0.1)),
		},
	},
	{
		name:  "peers that hang for a while, and close when the model has forgotten the connections",
		ports: 172, end: 110, before: 1400 * time.Millisecond, after: 300 * time.Millisecond,
		loads: []simLoad{
			client(80, 0, 1, 9.2, 177, func(l *simLoad) { l.lasting, l.hang = 1900*time.Millisecond, hang(2.7, 30, 9.2) }),
			client(80, 1, 34.8, 63, 0.93, func(l *simLoad) { l.lasting = 48 * time.Second }),
		},
	},
	{
		name:  "peers that hang for a while, where connect() takes over TIME_WAITs",
		ports: 130, end: 20, before: 10 * time.Millisecond, after: 2 * time.Millisecond,
		limits: reuseAlways,
		loads: []simLoad{
			client(80, 0, 0.6, 4.3, 300, func(l *simLoad) { l.lasting, l.hang = 110*time.Millisecond, hang(1.5, 34, 300) }),
		},
	},
	{
		name:  "a number of forgotten sockets that has stopped growing before the start",
		ports: 300, end: 180, before: 20 * time.Millisecond, after: 20 * time.Millisecond, restarts: []float64{60},
		loads: []simLoad{client(80, 0, 1, 26, 2, func(l *simLoad) { l.ends = forgets })},
	},
}

// No alert is false, missed or wrong in a scenario.
func TestSimulation_Scenarios(t *testing.T) { runScenarios(t, simScenarios) }

func runScenarios(t *testing.T, scenarios []simScenario) {
	t.Parallel()
	for _, c := range scenarios {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			for seed := range uint64(10) {
				if r := c.run(seed + 1); len(r.oracle.faults) > 0 {
					t.Errorf("seed %d: %s%s", seed+1, r.describe(), r.oracle.faults)
				}
			}
		})
	}
}

// Simulations with killed timewait sockets that have failed, and have no small scenario that does.
func TestSimulation_KillsThatFailed(t *testing.T) {
	t.Parallel()
	for _, seed := range []uint64{1006, 1486, 5144} {
		r := newSimRunWith(seed, true, false)
		if r.run(); len(r.oracle.faults) > 0 {
			t.Errorf("seed %d: %s%s", seed, r.describe(), r.oracle.faults)
		}
	}
}
