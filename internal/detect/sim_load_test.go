package detect

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// simEnding is how the connections of a load end.
type simEnding int

const (
	closesFirst     simEnding = iota // this side closes first, which leaves a timewait socket
	peerFirst                        // the peer does
	forgets                          // the peer closes, and the process does not
	sendsOn                          // the process sends on after the peer has closed
	unaccepted                       // forgets, and no process has accepted the connection
	resetByPeer                      //
	refusedConnects                  //
)

var endingNames = [...]string{"closes first", "peer first", "forgets", "sends on", "unaccepted", "reset", "refused"}

// simLoad makes connections to a destination within a time.
type simLoad struct {
	to          *simDestination
	by          []*simProcess
	from, until time.Duration
	perSecond   float64
	growth      float64 // factor by which the rate grows in a minute
	bursts      int     // how many connections come at once
	chance      bool    // the time between them is random
	lasting     time.Duration
	closesAfter time.Duration // of forgets and sendsOn: the process closes after all; 0: it does not
	ends        simEnding
	binds       bool
	untimed     bool
	finAfter    time.Duration // of closesFirst
	hang        simHang       // of closesFirst
	linger2     time.Duration // TCP_LINGER2; 0: not set
	lastAck     time.Duration // how long the peer takes to acknowledge the last FIN

	due float64
	n   int
}

// simHang is a time in which the peers of a load take longer to close. The zero value: there is none.
type simHang struct {
	from, until time.Duration
	finAfter    time.Duration
}

// finAfterAt is how long after this side the peer closes a connection that this side closes at a time.
func (l *simLoad) finAfterAt(now time.Duration) time.Duration {
	if now >= l.hang.from && now < l.hang.until {
		return l.hang.finAfter
	}
	return l.finAfter
}

// finWait2Timeout is how long a timewait socket waits in FIN_WAIT2 for the peer.
func (l *simLoad) finWait2Timeout(limits *tcp.Limits) time.Duration {
	own := *limits
	if l.linger2 > 0 {
		own.FinTimeout = l.linger2
	}
	return own.FinWait2TimewaitTimeout()
}

func (l *simLoad) String() string {
	return fmt.Sprintf("%v to %v of %d (server %v) from %v to %v: %.2f/s, × %.2f a minute, %d at once, chance %v, lasting %v, %s after %v, binds %v, untimed %v, FIN after %v, from %v to %v after %v, TCP_LINGER2 %v",
		l.by[0].owner.PID, l.to.key.peer, l.to.key.peerPort, l.to.server, l.from-time.Hour, l.until-time.Hour, l.perSecond, l.growth, l.bursts, l.chance,
		l.lasting, endingNames[l.ends], l.closesAfter, l.binds, l.untimed, l.finAfter, l.hang.from, l.hang.until, l.hang.finAfter, l.linger2)
}

// step makes the connections of one step.
func (l *simLoad) step(k *simKernel) {
	if k.now < l.from || k.now >= l.until {
		return
	}
	rate := l.perSecond * math.Pow(l.growth, (k.now-l.from).Minutes()) * simStep.Seconds()
	bursts := float64(max(1, l.bursts))
	if l.chance {
		l.due += bursts * float64(poisson(k.random, rate/bursts))
	} else {
		l.due += rate
	}
	if k.stalled() {
		return // it catches up afterwards
	}
	for l.due >= bursts {
		for range max(1, l.bursts) {
			l.connect(k)
		}
		l.due -= bursts
	}
}

// poisson draws how many events of a mean come in one step.
func poisson(random *rand.Rand, mean float64) (n int) {
	for left := mean - random.ExpFloat64(); left > 0; left -= random.ExpFloat64() {
		n++
	}
	return n
}

func (l *simLoad) connect(k *simKernel) {
	by := l.by[l.n%len(l.by)]
	l.n++
	if by.dead {
		return
	}
	var s *simSocket
	if l.to.server {
		s = k.accept(l.to, by, l)
	} else {
		s = k.connect(l.to, by, l, l.binds)
	}
	if s == nil {
		return
	}
	lasting := time.Duration(float64(l.lasting) * (0.5 + k.random.Float64()))
	switch l.ends {
	case closesFirst:
		k.after(lasting, s, (*simKernel).close)
	case resetByPeer, refusedConnects:
		k.after(lasting, s, (*simKernel).peerResets)
	default:
		s.sends = l.ends == sendsOn
		k.after(lasting, s, (*simKernel).peerCloses)
		if l.ends == peerFirst {
			k.after(lasting+simStep, s, (*simKernel).close)
		} else if l.closesAfter > 0 {
			k.after(lasting+l.closesAfter, s, (*simKernel).close)
		}
	}
}

// firstPID is the pid of the first process.
const firstPID = 100

// simRun is one random simulation.
type simRun struct {
	seed      uint64
	random    *rand.Rand
	k         *simKernel
	tr        *simTracer
	config    Config
	processes []*simProcess
	loads     []*simLoad
	deaths    map[time.Duration]*simProcess
	restarts  map[time.Duration]bool
	kills     []*simKill
	arrivals  []*simArrivals
	end       time.Duration
	filter    string
	oracle    *simOracle

	isPlainLeak bool // see makePlainLeak
	vanishes    bool // the namespace does, at the end
}

func newSimRun(seed uint64) *simRun { return newSimRunWith(seed, *kills, *starved) }

// newSimRunWith makes the simulation of a seed. With kills timewait sockets are killed in any case, and with starved
// something gets no CPU for a while.
func newSimRunWith(seed uint64, kills, starved bool) *simRun {
	random := rand.New(rand.NewPCG(seed, 14))
	r := &simRun{
		seed: seed, random: random, k: newSimKernel(random, 60+random.IntN(340)), config: Config{HalfClosed: 60},
		deaths: make(map[time.Duration]*simProcess), restarts: make(map[time.Duration]bool),
	}
	k := r.k
	r.tr = &simTracer{k: k, random: random, dead: make(map[uint32]bool)}
	k.emit = r.tr.take
	k.stalled = func() bool { return r.tr.stalls.has(starvedLoads, k.now) }
	for i := range 4 {
		name := []string{"curl", "java", "php-fpm", "nginx"}[i]
		r.processes = append(r.processes, &simProcess{owner: process(uint32(firstPID+i), name), uid: uint32(1000 + i%2)})
	}
	if r.oneIn(4) {
		k.limits.Reuse = r.random.IntN(2)
	}
	if r.oneIn(6) {
		k.limits.FinTimeout = time.Duration(5+random.IntN(55)) * time.Second
	}
	if r.oneIn(6) {
		k.limits.MaxTimeWaits = k.limits.PortCount()/2 + random.IntN(2*k.limits.PortCount())
	}
	r.end = k.now + r.seconds(100, 200)
	r.addLoads()
	r.addFilter()
	untimed := make(map[*simDestination]bool)
	for _, l := range r.loads {
		l.binds = l.binds && r.filter == "" // filters hide bound ports
		// Timestamps are the peer's: all processes get them, or none does. Where the filter hides some of the
		// connections nothing else shows it; behind a load balancer it may differ from one to the next.
		if first, known := untimed[l.to]; known && r.tr.byOwner {
			l.untimed = first
		}
		untimed[l.to] = l.untimed
	}
	r.addLosses()
	r.addAnswers()
	r.addEvents()
	k.limits.ReusesFinWait2 = seed%4 == 0
	r.config.UpdateInterval = []time.Duration{time.Second, 10 * time.Second}[seed/4%2] // judges more numbers, or those that users get
	r.addKills(kills)
	r.addStalls(starved)
	r.addListeners()
	if *timeouts && seed%8 != 1 {
		r.addTimeouts()
	}
	if *hangs && seed%8 != 1 {
		r.addHang()
	}
	if *vanishes && seed%8 != 1 {
		r.addVanish()
	}
	if seed%8 == 1 {
		r.makePlain()
		if seed%16 == 9 {
			r.makePlainLeak()
		}
	}
	return r
}

func (r *simRun) oneIn(n int) bool { return r.random.IntN(n) == 0 }

func (r *simRun) seconds(from, to float64) time.Duration {
	return time.Duration((from + (to-from)*r.random.Float64()) * float64(time.Second)).Truncate(simStep)
}

var loopback = netip.MustParseAddr("127.0.0.1")

func (r *simRun) addLoads() {
	k := r.k
	clients := []*simDestination{k.addDestination(here, there, 80, false)}
	if r.oneIn(2) {
		clients = append(clients, k.addDestination(here, there, 81, false))
	}
	if r.oneIn(3) {
		clients = append(clients, k.addDestination(loopback, loopback, 82, false))
	}
	server := k.addDestination(here, there, 80, true)
	k.pass()
	for range 1 + r.random.IntN(4) {
		l := &simLoad{
			to: clients[r.random.IntN(len(clients))], by: []*simProcess{r.processes[r.random.IntN(4)]}, growth: 1,
			from: k.now + r.seconds(0, 80), bursts: 1, chance: r.oneIn(3), lasting: r.seconds(0, 2), untimed: r.oneIn(8),
		}
		l.until = l.from + r.seconds(20, 120)
		if r.oneIn(4) {
			l.by = append(l.by, r.processes[r.random.IntN(4)])
		}
		r.shape(l, server)
		l.until = min(l.until, r.end)
		r.loads = append(r.loads, l)
	}
}

// shape makes one of the sorts of loads.
func (r *simRun) shape(l *simLoad, server *simDestination) {
	ports := float64(r.k.limits.PortCount())
	full := ports / 61
	if l.to.key.local.IsLoopback() && r.k.limits.Reuse == 2 || r.k.limits.Reuse == 1 {
		full *= 1 + 20*r.random.Float64()
	}
	switch r.random.IntN(12) {
	case 0, 1: // a storm
		l.perSecond = full * (1.1 + 4*r.random.Float64()*r.random.Float64())
	case 2: // one that grows
		l.perSecond, l.growth = full*(0.3+r.random.Float64()), 1+3*r.random.Float64()
	case 3: // one that leaves no time
		l.perSecond = full * (20 + 60*r.random.Float64())
		l.until = l.from + r.seconds(1, 10)
	case 4, 5: // harmless
		l.perSecond = full * 0.9 * r.random.Float64()
		l.bursts = 1 + r.random.IntN(1+int(ports)/40)
	case 6: // peers that close first, in great numbers
		l.perSecond, l.ends = full*20*r.random.Float64(), peerFirst
		l.lasting = min(l.lasting, time.Duration(0.3*ports/l.perSecond*float64(time.Second)))
	case 7: // connections that stay
		l.perSecond, l.lasting = ports*0.01*r.random.Float64(), r.seconds(5, 60)
	case 8: // peers that close late or never
		l.perSecond = full * 2 * r.random.Float64()
		l.finAfter = []time.Duration{r.seconds(0.1, 5), r.seconds(1, 30), 300 * time.Second}[r.random.IntN(3)]
	case 9: // sockets that nobody closes, or late
		l.perSecond, l.ends = 0.3+2*r.random.Float64(), []simEnding{forgets, sendsOn, forgets}[r.random.IntN(3)]
		if r.oneIn(3) {
			l.closesAfter = r.seconds(5, 60)
		}
		if r.oneIn(2) {
			l.to = server
			if r.oneIn(3) {
				l.ends = unaccepted
			}
		}
		l.until = r.end
	case 10: // failures
		l.perSecond, l.ends = 1+12*r.random.Float64(), []simEnding{resetByPeer, refusedConnects}[r.random.IntN(2)]
	case 11: // a server that closes first, or ports that are bound
		l.perSecond = full * 2 * r.random.Float64()
		if r.oneIn(2) {
			l.to = server
		} else {
			l.binds, l.perSecond = true, full*0.4*r.random.Float64()
		}
	}
	if l.to.key.local.IsLoopback() && l.ends == closesFirst && l.perSecond*l.lasting.Seconds() > ports/3 {
		l.lasting /= 10
	}
}

// addHang makes the peers of one load hang for a while, in about one of three simulations. The source of chance is its
// own: the rest of a simulation does not depend on it.
func (r *simRun) addHang() {
	random := rand.New(rand.NewPCG(r.seed, 16))
	l := r.loads[random.IntN(len(r.loads))]
	if l.ends != closesFirst || l.binds || random.IntN(2) > 0 {
		return // no transition shows how much longer a bound port is taken, and the kernel's list of these is not simulated
	}
	between := func(from, to float64) time.Duration {
		return time.Duration((from + (to-from)*random.Float64()) * float64(time.Second)).Truncate(simStep)
	}
	l.hang.from = l.from + between(0, (l.until-l.from).Seconds())
	l.hang.until = l.hang.from + between(2, 40)
	l.hang.finAfter = []time.Duration{between(1, 10), between(5, 70), 300 * time.Second}[random.IntN(3)]
}

func (r *simRun) addFilter() {
	tr, p, port := r.tr, r.processes[r.random.IntN(4)], uint16(80+r.random.IntN(2))
	switch r.random.IntN(8) {
	case 0:
		r.filter, tr.passes = fmt.Sprintf("port %d", port), func(s *simSocket) bool { return s.to.key.peerPort == port }
	case 1:
		r.filter, tr.passes, tr.byOwner = "pid "+fmt.Sprint(p.owner.PID), func(s *simSocket) bool { return s.by.owner.PID == p.owner.PID }, true
	case 2:
		r.filter, tr.passes, tr.byOwner = "uid "+fmt.Sprint(p.uid), func(s *simSocket) bool { return s.by.uid == p.uid }, true
	}
}

func (r *simRun) addLosses() {
	for range max(0, r.random.IntN(7)-2) {
		l := simLoss{from: r.k.now + r.seconds(0, 150), share: []float64{0.02, 0.1, 0.5, 1}[r.random.IntN(4)]}
		l.until = l.from + r.seconds(0.3, 30)
		all := r.oneIn(2)
		for i := range l.kinds {
			l.kinds[i] = all || r.oneIn(2)
		}
		r.tr.lossy = append(r.tr.lossy, l)
	}
}

func (r *simRun) addAnswers() {
	w := &r.tr.worker
	slowest := []float64{0.01, 0.2, 1, 3}[r.random.IntN(4)]
	if r.oneIn(2) {
		slowest = 0.05
	}
	w.before, w.after = time.Duration(slowest*r.random.Float64()*float64(time.Second)), time.Duration(slowest*r.random.Float64()*float64(time.Second)/2)
	if r.oneIn(3) {
		w.fails = 0.2 * r.random.Float64()
	}
	if r.oneIn(15) {
		w.fails = 1
	}
	if r.oneIn(15) {
		w.gone = 0.2
	}
	r.tr.lag = simStep * time.Duration(r.random.IntN(2))
}

func (r *simRun) addEvents() {
	if r.oneIn(4) {
		r.deaths[r.k.now+r.seconds(20, 150)] = r.processes[r.random.IntN(4)]
	}
	binds := slices.ContainsFunc(r.loads, func(l *simLoad) bool { return l.binds }) // connections of before the start are not known to be bound
	if r.oneIn(5) && !binds {
		r.restarts[r.k.now+r.seconds(10, 150)] = true
	}
}

// run runs the simulation until all loads are over and everything has had time to end.
func (r *simRun) run() {
	r.oracle = newSimOracle(r)
	r.tr.alert = r.oracle.take
	r.tr.start(r.config)
	for r.k.now < r.end+100*time.Second {
		r.k.pass()
		if p := r.deaths[r.k.now]; p != nil {
			r.k.die(p)
			r.tr.dead[p.owner.PID] = true
		}
		for _, l := range r.loads {
			l.step(r.k)
		}
		for _, a := range r.arrivals {
			a.step(r.k)
		}
		if r.k.now == r.end { // sockets that nobody closes end with their processes
			for _, p := range r.processes {
				r.k.die(p)
			}
			if r.vanishes {
				r.vanish()
			}
		}
		if r.restarts[r.k.now] {
			r.tr.start(r.config)
		}
		r.kill()
		r.oracle.countHalfClosed()
		r.tr.pass()
		r.oracle.check()
	}
	for _, a := range r.tr.engine.Finish(r.k.now) {
		r.oracle.take(&a)
	}
}

// describe prints what the simulation consists of.
func (r *simRun) describe() (text string) {
	l := &r.k.limits
	text = fmt.Sprintf("%d ports, reuse %d, of FIN_WAIT2 %v, FIN_WAIT2 %v, at most %d TIME_WAITs, filter %q, lag %v, answers after %v and %v, %.2f fail, %.2f gone, ends after %v\n",
		l.PortCount(), l.Reuse, l.ReusesFinWait2, l.FinTimeout, l.MaxTimeWaits, r.filter, r.tr.lag, r.tr.worker.before, r.tr.worker.after, r.tr.worker.fails, r.tr.worker.gone, r.end-time.Hour)
	if r.vanishes {
		text += "  the namespace vanishes at the end\n"
	}
	for _, l := range r.loads {
		text += "  load: " + l.String() + "\n"
	}
	for _, l := range r.tr.lossy {
		text += fmt.Sprintf("  loss: %v to %v, %.2f of %v\n", l.from-time.Hour, l.until-time.Hour, l.share, l.kinds)
	}
	for at, p := range r.deaths {
		text += fmt.Sprintf("  %d dies at %v\n", p.owner.PID, at-time.Hour)
	}
	for _, x := range r.kills {
		text += fmt.Sprintf("  %v\n", x)
	}
	for _, a := range r.arrivals {
		text += fmt.Sprintf("  %v\n", a)
	}
	for i := range r.tr.stalls {
		text += fmt.Sprintf("  %v\n", &r.tr.stalls[i])
	}
	if r.tr.seedParts > 1 {
		text += fmt.Sprintf("  the sockets of before the start come in %d parts, %v apart\n", r.tr.seedParts, r.tr.seedPause)
	}
	for at := range r.restarts {
		text += fmt.Sprintf("  the tracer starts again at %v\n", at-time.Hour)
	}
	return text
}
