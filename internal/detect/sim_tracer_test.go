package detect

import (
	"math/rand/v2"
	"slices"
	"time"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// simTracer is what lies between a simKernel and the engine: filters, losses, transitions on
// their way, and a worker that reads the kernel's tables as package monitor does.
type simTracer struct {
	k      *simKernel
	random *rand.Rand
	engine *Engine
	began  time.Duration // of this engine
	alert  func(a *Alert)
	dead   map[uint32]bool // processes

	passes   func(s *simSocket) bool // the filter; nil: all pass
	byOwner  bool                    // the filter is on what the kernel's tables do not have
	lossy    []simLoss
	lostAt   time.Duration // 0: nothing was lost
	everLost bool          // also by an earlier engine
	passedAt time.Duration // the last transition that was not lost
	forgot   bool          // the engine has forgotten the namespace: it could not be read, and was idle
	lost     uint64        // that the engine does not know of

	lag    time.Duration // from a transition to the engine
	onWay  []tcp.Transition
	seeds  []simSeed
	worker simWorker

	vanished bool // the namespace

	stalls    simStalls
	seedParts int           // in how many parts the sockets of before the start reach the engine; 0: one
	seedPause time.Duration // between two of these
}

// simLoss is a time in which transitions are lost by chance.
type simLoss struct {
	from, until time.Duration
	share       float64
	kinds       [5]bool // see lossKind
}

// lossKind numbers the kinds of transitions that the engine uses.
func lossKind(t *tcp.Transition) int {
	kinds := []tcp.State{tcp.SynSent, tcp.TimeWait, tcp.CloseWait, tcp.LastAck, tcp.Close}
	return max(0, slices.Index(kinds, t.New))
}

// simSeed are sockets that the seeder has read.
type simSeed struct {
	at, readAt time.Duration
	sockets    []tcp.Socket
	limits     tcp.Limits
	listeners  *ListenTable
	last       bool
	part       int // which is the next one: see simTracer.seedParts
}

// simWorker reads the tables for one request at a time. Requests that come meanwhile are joined.
type simWorker struct {
	before, after time.Duration // typical times until the tables are read, and from then to the answer
	fails         float64       // how many tables cannot be read
	gone          float64       // how many namespaces cannot be read
	waiting       *Request
	busy          *Request
	readAt        time.Duration // of busy
	answerAt      time.Duration
	answer        func()
	answeredAt    time.Duration // the newest answer with counts of suspects
	failedAt      time.Duration // the last table of sockets in FIN_WAIT2 that could not be read
}

// start starts a tracer, or starts it again: it knows nothing, and reads the sockets there are.
func (tr *simTracer) start(c Config) {
	if tr.engine != nil {
		for _, a := range tr.engine.Finish(tr.k.now) {
			tr.alert(&a)
		}
	}
	c.Gone = func(p Process) bool { return tr.dead[p.PID] }
	tr.engine, tr.began, tr.lostAt, tr.lost = New(c, tr.k.now), tr.k.now, 0, 0
	tr.onWay, tr.seeds = nil, nil
	for _, s := range tr.k.sockets {
		s.seen, s.closeWaitSeen, s.seenEnd = false, false, false
	}
	for _, s := range tr.k.listeners {
		s.seen, s.known = false, tr.k.now // the tables of the start have it
	}
	tr.worker.waiting, tr.worker.busy = nil, nil
	later := time.Duration(tr.random.Int64N(int64(time.Second)))
	tr.seeds = append(tr.seeds, simSeed{at: tr.k.now + later})
}

func (tr *simTracer) take(s *simSocket, t *tcp.Transition) bool {
	if tr.passes != nil && !tr.passes(s) {
		return false
	}
	for i := range tr.lossy {
		l := &tr.lossy[i]
		if t.Monotonic >= l.from && t.Monotonic < l.until && l.kinds[lossKind(t)] && tr.random.Float64() < l.share {
			tr.lost++
			tr.lostAt, tr.everLost = t.Monotonic, true
			return false
		}
	}
	tr.onWay, tr.passedAt = append(tr.onWay, *t), t.Monotonic
	for _, s := range tr.k.listeners {
		if s.known == 0 {
			s.known = tr.k.now
		}
	}
	return true
}

// pass passes on what is due, and lets the engine tick.
func (tr *simTracer) pass() {
	now := tr.k.now
	if tr.stalls.has(starvedLoop, now) {
		return
	}
	n := 0
	for !tr.stalls.has(starvedReader, now) && n < len(tr.onWay) && tr.onWay[n].Monotonic+tr.lag <= now {
		tr.engine.Observe(&tr.onWay[n])
		tr.noteFailure(&tr.onWay[n])
		n++
	}
	tr.onWay = append(tr.onWay[:0], tr.onWay[n:]...)
	if tr.lost > 0 {
		tr.engine.AddLost(now, tr.lost)
		tr.lost = 0
	}
	tr.seed()
	tr.work()
	for _, r := range tr.engine.Requests(now) {
		if tr.worker.waiting != nil {
			r.HalfClosed = r.HalfClosed || tr.worker.waiting.HalfClosed
			r.CloseWait = r.CloseWait || tr.worker.waiting.CloseWait
			r.OpenRequestedAt = max(r.OpenRequestedAt, tr.worker.waiting.OpenRequestedAt)
			r.Suspects = r.Suspects.Newest(tr.worker.waiting.Suspects)
			r.Listeners = tr.worker.waiting.Listeners.Joined(r.Listeners)
			r.OnlyListeners = r.OnlyListeners && tr.worker.waiting.OnlyListeners
		}
		tr.worker.waiting = &r
	}
	tr.work()
	for _, a := range tr.engine.Tick(now) {
		tr.alert(&a)
	}
}

// isBehind reports whether transitions are due that the engine has not got.
func (tr *simTracer) isBehind() bool {
	return len(tr.onWay) > 0 && tr.onWay[0].Monotonic+tr.lag <= tr.k.now
}

// noteFailure notes that the engine has got a connect() that found no port.
func (tr *simTracer) noteFailure(t *tcp.Transition) {
	if !t.NoPort {
		return
	}
	for _, d := range tr.k.destinations {
		if !d.server && d.key == destinationOf(t) {
			d.gotFailedAt = tr.k.now
		}
	}
}

// seed reads the sockets, and passes them to the engine later.
func (tr *simTracer) seed() {
	if len(tr.seeds) == 0 || tr.seeds[0].at > tr.k.now {
		return
	}
	s := tr.seeds[0]
	tr.seeds = tr.seeds[1:]
	switch {
	case s.last:
		if s.part == 0 {
			tr.engine.Update(s.readAt, testNetns, &s.limits)
		}
		parts := max(1, tr.seedParts)
		for i := s.part; i < len(s.sockets); i += parts {
			tr.engine.Seed(s.readAt, testNetns, &s.sockets[i])
		}
		if s.part++; s.part < parts {
			s.at = tr.k.now + tr.seedPause
			tr.seeds = append(tr.seeds, s)
			return
		}
		if len(s.listeners.Listeners) > 0 {
			tr.engine.UpdateListeners(tr.k.now, testNetns, s.listeners)
		}
		tr.engine.SeedingDone(tr.k.now)
		return
	case tr.byOwner:
		tr.engine.SeedingDone(tr.k.now)
		return
	}
	read := simSeed{readAt: tr.k.now, limits: tr.limits(), listeners: tr.listenTable(nil), last: true, at: tr.k.now + time.Duration(tr.random.Int64N(int64(time.Second)))}
	for _, s := range tr.k.sockets {
		if tr.passes == nil || tr.passes(s) {
			read.sockets = append(read.sockets, tr.k.listed(s))
			s.seen, s.closeWaitSeen = true, true
		}
	}
	tr.seeds = append(tr.seeds, read)
}

func (tr *simTracer) limits() tcp.Limits {
	l := tr.k.limits
	l.TimeWaits = tr.k.timeWaits
	return l
}

// work moves the worker on.
func (tr *simTracer) work() {
	w, now := &tr.worker, tr.k.now
	if tr.stalls.has(starvedWorker, now) {
		return
	}
	if w.busy == nil && w.waiting != nil {
		w.busy, w.waiting = w.waiting, nil
		w.readAt = now + tr.about(w.before)
		w.answer = nil
	}
	if w.busy != nil && w.answer == nil && w.readAt <= now {
		w.answer, w.answerAt = tr.read(w.busy), now+tr.about(w.after)
	}
	if w.busy != nil && w.answer != nil && w.answerAt <= now {
		w.answer()
		w.busy = nil
	}
}

// about is half to one and a half times as long.
func (tr *simTracer) about(d time.Duration) time.Duration {
	return time.Duration((0.5 + tr.random.Float64()) * float64(d))
}

// read reads the tables now, and returns what passes them to the engine.
func (tr *simTracer) read(r *Request) func() {
	w, k, readAt := &tr.worker, tr.k, tr.k.now
	if tr.random.Float64() < w.gone || tr.vanished {
		return func() {
			if r.Listeners != nil {
				tr.engine.UpdateListeners(k.now, r.Netns, nil)
			}
			if !r.OnlyListeners {
				tr.forgot = tr.forgot || k.now-tr.passedAt > netnsForgetAfter
				tr.engine.Update(k.now, r.Netns, nil)
			}
		}
	}
	l := tr.limits()
	var answers []func()
	reads := func(requested bool) bool { return requested && tr.random.Float64() >= w.fails }
	if reads(r.Listeners != nil) {
		t := tr.listenTable(r.Listeners.Unaccepted)
		answers = append(answers, func() { tr.engine.UpdateListeners(k.now, r.Netns, t) })
	}
	if !r.OnlyListeners {
		answers = append(answers, func() { tr.engine.Update(k.now, r.Netns, &l) })
	}
	if reads(r.Suspects != nil) {
		counts, lastAcks := r.Suspects.NewCounts(readAt, &l), make(map[*simDestination]int)
		for _, s := range k.sockets {
			listed := k.listed(s)
			counts.Add(r.Netns, &listed)
			if s.state == tcp.LastAck {
				lastAcks[s.to]++
			}
		}
		answers = append(answers, func() {
			w.answeredAt = k.now
			for _, d := range k.destinations {
				d.lastAcks = lastAcks[d]
			}
			tr.engine.UpdateSuspects(k.now, counts)
		})
	}
	if reads(r.HalfClosed) != r.HalfClosed {
		w.failedAt = k.now
	} else if r.HalfClosed {
		var sockets []tcp.Socket
		for _, s := range k.sockets {
			if s.state == tcp.FinWait2 && (tr.byOwner || tr.passes == nil || tr.passes(s)) {
				sockets = append(sockets, k.listed(s))
			}
		}
		answers = append(answers, func() { tr.engine.UpdateHalfClosed(k.now, readAt, r.Netns, sockets) })
	}
	if reads(r.CloseWait) {
		var sockets []tcp.CloseWaitSocket
		for _, s := range k.sockets {
			if s.state == tcp.CloseWait {
				c := tcp.CloseWaitSocket{Cookie: s.cookie, SinceSent: time.Hour, Accepted: s.load.ends != unaccepted}
				if s.sends {
					c.SinceSent = 0
				}
				sockets = append(sockets, c)
			}
		}
		answers = append(answers, func() { tr.engine.UpdateCloseWait(k.now, readAt, r.Netns, sockets) })
	}
	if reads(r.OpenRequestedAt > 0) {
		o := &OpenSockets{}
		for _, s := range k.sockets {
			if s.state != tcp.LastAck {
				listed := k.listed(s)
				o.Add(r.Netns, &listed, &l)
			}
		}
		answers = append(answers, func() { tr.engine.UpdateOpen(k.now, r.OpenRequestedAt, r.Netns, o) })
	}
	return func() {
		for _, answer := range answers {
			answer()
		}
	}
}

// listed is a socket as the kernel's table has it.
func (k *simKernel) listed(s *simSocket) tcp.Socket {
	listed := tcp.Socket{Transition: tcp.Transition{New: s.state, Cookie: s.cookie, NoProcess: s.load.ends == unaccepted}}
	listed.Local, listed.Peer = s.endpoints()
	if s.state == tcp.TimeWait || s.state == tcp.FinWait2 {
		listed.New, listed.Substate, listed.NoProcess = tcp.TimeWait, s.state, true
		listed.ExpiresIn = max(0, s.timerAt-k.now)
	}
	return listed
}
