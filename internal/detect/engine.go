package detect

import (
	"time"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// Engine is the state of detection. All its methods are for one goroutine, the one
// that reads the stream. Every time is CLOCK_BOOTTIME. Its memory is bounded: see
// [Config.MaxDestinations].
type Engine struct {
	tracker   *tracker
	detectors []detector
	observers observers
	optional  optional
	alerts    lifecycle
}

// New returns an engine without any history. From now on the caller must pass every
// transition of [Needs] to [Engine.Observe]. Then it passes the sockets that were there
// before to [Engine.Seed].
func New(c Config, now time.Duration) *Engine {
	c = c.withDefaults()
	tr := newTracker(c)
	tr.now = now
	tr.seeding = seeding{began: now, since: now, observed: make(map[uint64]bool)}
	all := newDetectors(tr)
	return &Engine{tracker: tr, detectors: all, observers: newObservers(all), optional: newOptional(all), alerts: newLifecycle(&c)}
}

// Needs returns the transitions that detection uses: four of the ten that a connection over loopback makes, two of
// its client and two of its server if the client closes first; the step to FIN_WAIT2 of a socket that a process
// still has; and the beginning and end of listeners. The engine ignores all others, so the kernel need not emit
// them for it.
func Needs() tcp.Transitions {
	tr := newTracker(Config{}.withDefaults())
	needs := tr.needs()
	for _, d := range newDetectors(tr) {
		needs.Join(d.needs())
	}
	return needs
}

// Kinds returns the values that Alert.Kind can have.
func Kinds() []string {
	var kinds []string
	for _, d := range newDetectors(newTracker(Config{}.withDefaults())) {
		if len(kinds) == 0 || kinds[len(kinds)-1] != d.kind() {
			kinds = append(kinds, d.kind())
		}
	}
	return append(kinds, AlertsSuppressed)
}

// ResetDecided takes a transition to Close with ResetAwaited a second time, once it is
// known whether this side sent a reset (ResetSent). Observe has taken it before.
func (e *Engine) ResetDecided(t *tcp.Transition) {
	for _, d := range e.optional.resets {
		d.resetDecided(t)
	}
}

// Observe takes one transition, in the order of the stream. It keeps no reference to
// t, only to t.Cgroup, which must not change afterwards.
func (e *Engine) Observe(t *tcp.Transition) {
	if t.IsTimeWaitEnd() || t.IsSelfTransition() {
		return
	}
	e.tracker.observe(t)
	for _, d := range e.observers.of(t) {
		d.observe(t)
	}
}

// AddLost reports that count transitions were lost before they reached the engine. Alerts
// of the next minute carry the number, until the kernel's tables have confirmed theirs.
func (e *Engine) AddLost(now time.Duration, count uint64) {
	e.tracker.losses.add(now, count)
	if count > 0 {
		e.tracker.lostAt = max(e.tracker.lostAt, now)
		e.tracker.lostTotal += count
	}
}

// Tick returns the alerts to report now, in order: an alert opens only here. The caller calls it
// several times a second, or every 5 s if there are neither transitions nor open alerts.
func (e *Engine) Tick(now time.Duration) []Alert {
	e.check(now)
	due := e.alerts.due(now)
	e.tracker.addMissing()
	return due
}

// check raises the causes that exist now.
func (e *Engine) check(now time.Duration) {
	e.tracker.tick(now)
	for i, d := range e.detectors {
		var open []cause
		counter := e.optional.failures[i]
		d.check(func(cause cause, c claim, describe func() Finding) {
			o := e.alerts.raise(d.kind(), cause, c, func() Finding {
				f := describe()
				if !f.complete {
					f.Lost = e.tracker.losses.lastMinute(now)
				}
				return f
			}, now)
			if o == nil {
				return
			}
			open = append(open, cause)
			if counter != nil {
				o.failures = max(o.failures, counter.failures(cause))
			}
		})
		for _, cause := range open {
			d.pin(cause)
		}
	}
}

// AlertsSuppressed is how many causes have had no alert because too many alerts were open.
func (e *Engine) AlertsSuppressed() uint64 { return e.alerts.suppressed.total }

// HasOpenAlerts reports whether alerts are open.
func (e *Engine) HasOpenAlerts() bool { return len(e.alerts.open) > 0 }

// Finish closes every open alert, and returns the alerts to report. It must be the last call. Before that it opens
// alerts about failed connects that still wait for the kernel's table to decide the kind of their alert.
func (e *Engine) Finish(now time.Duration) []Alert {
	e.tracker.exhausted.ending = true
	e.check(now)
	return e.alerts.closeAll(now)
}

// Request asks for the limits of one network namespace and, by its fields, for some of its sockets.
type Request struct {
	Netns uint32 // inode number
	// Transitions is how many the namespace has had since the request before. With many requests,
	// those with the most transitions matter most.
	Transitions uint64
	// HalfClosed asks for its sockets in FIN_WAIT2 as well, which takes a walk through the
	// kernel's table.
	HalfClosed bool
	// CloseWait asks for its sockets in CLOSE_WAIT as well, which takes such a walk, too.
	CloseWait bool
	// OpenRequestedAt, if it is not 0, asks for its connections as well. It is the time of the
	// request, which identifies the request in UpdateOpen.
	OpenRequestedAt time.Duration
	// Suspects, if it is not nil, asks for counts of the sockets of some destinations.
	Suspects *Suspects
	// Listeners, if it is not nil, asks for the listeners of the namespace. With OnlyListeners
	// nothing else is asked for, not even the limits.
	Listeners     *ListenRequest
	OnlyListeners bool
}

// Requests returns what the engine needs to know now; namespaces with the most transitions
// come first. The caller passes the limits to [Engine.Update], unless the request is OnlyListeners, and
// what else the request asks for to [Engine.UpdateHalfClosed], [Engine.UpdateCloseWait],
// [Engine.UpdateOpen], [Engine.UpdateSuspects] and [Engine.UpdateListeners]. What does not come is
// requested again, while a detector still needs it. Each table of a namespace is requested at most twice
// a second.
func (e *Engine) Requests(now time.Duration) []Request {
	return e.tracker.requests(now)
}

// Update sets the limits of a namespace, requested or not. Nil means that the namespace
// could not be read: the engine then keeps the last limits, or assumes the kernel's
// defaults if it has none. It forgets a namespace that could not be read and is quiet. It keeps the sets of
// ports that l points to, which must not change afterwards.
func (e *Engine) Update(now time.Duration, netns uint32, l *tcp.Limits) {
	e.tracker.update(now, netns, l)
}

// UpdateHalfClosed sets the sockets of a namespace that were in FIN_WAIT2 at the time readAt and waited
// for the peer's FIN: all of them, timewait sockets with that substate, and connections. It keeps no
// reference to sockets.
func (e *Engine) UpdateHalfClosed(now, readAt time.Duration, netns uint32, sockets []tcp.Socket) {
	e.tracker.takeFinWait2(now, readAt, netns, sockets)
	e.tracker.takeHalfClosed(now, readAt, netns, sockets)
}

// UpdateCloseWait sets the sockets of a namespace that are in CLOSE_WAIT: all that were
// there from the time readAt on until all were read. It keeps no reference to sockets.
func (e *Engine) UpdateCloseWait(now, readAt time.Duration, netns uint32, sockets []tcp.CloseWaitSocket) {
	e.tracker.now = max(e.tracker.now, now)
	e.tracker.takeCloseWait(readAt, netns, sockets)
}

// UpdateOpen sets the connections of a namespace that were open at some moment since the request; since is its
// OpenRequestedAt. The engine forgets those that it counts as open and the table does not have: their ends were
// lost. It does so a second later, so it keeps o, which must not change afterwards. It ignores o if since is not
// that of the newest request.
func (e *Engine) UpdateOpen(now, since time.Duration, netns uint32, o *OpenSockets) {
	e.tracker.takeOpen(now, since, netns, o)
}

// UpdateSuspects sets how many sockets of some destinations the kernel's table had when it
// was read, after [Suspects] were requested. The engine corrects its model by these counts. The
// next Tick opens, updates or closes alerts accordingly.
func (e *Engine) UpdateSuspects(now time.Duration, c *SuspectCounts) {
	e.tracker.takeCounts(now, c)
}
