package detect

import (
	"time"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// Engine is the state of detection. All its methods are for one goroutine, the one
// that reads the stream. Every time is CLOCK_MONOTONIC. Its memory is bounded: see
// [Config.MaxDestinations].
type Engine struct {
	tracker   *tracker
	detectors []detector
	observers observers
	alerts    lifecycle
}

// New makes an engine without any history. The caller must observe every transition
// of [Needs] from now on, and then seed what was there before: see [Engine.Seed].
func New(c Config, now time.Duration) *Engine {
	c = c.withDefaults()
	tr := newTracker(c)
	tr.now = now
	tr.seeding = seeding{since: now, opened: make(map[uint64]struct{})}
	all := newDetectors(tr)
	return &Engine{tracker: tr, detectors: all, observers: newObservers(all), alerts: newLifecycle(c.UpdateInterval)}
}

// Needs gives the transitions that detection uses: four of the ten that a connection
// over loopback makes, two of its client and two of its server. The engine ignores
// all others, so that the kernel need not emit them for it.
func Needs() tcp.Transitions {
	tr := newTracker(Config{}.withDefaults())
	needs := tr.needs()
	for _, d := range newDetectors(tr) {
		needs.Join(d.needs())
	}
	return needs
}

// Kinds lists the kinds of alert, as they are in [Alert].
func Kinds() []string {
	var kinds []string
	for _, d := range newDetectors(newTracker(Config{}.withDefaults())) {
		if len(kinds) == 0 || kinds[len(kinds)-1] != d.kind() {
			kinds = append(kinds, d.kind())
		}
	}
	return kinds
}

// Observe takes one transition, in the order of the stream. It keeps no reference to
// t, only to t.Cgroup, which must not change afterwards.
func (e *Engine) Observe(t *tcp.Transition) {
	if t.TimeWaitEnd() || t.SelfTransition() {
		return
	}
	e.tracker.observe(t)
	for _, d := range e.observers.of(t) {
		d.observe(t)
	}
}

// Lost says that count transitions were lost before they reached the engine. Alerts
// of the next minute carry the number.
func (e *Engine) Lost(now time.Duration, count uint64) {
	e.tracker.losses.add(now, count)
}

// Tick gives the alerts to report now, in order. The caller calls it several times a
// second: an alert opens only here.
func (e *Engine) Tick(now time.Duration) []Alert {
	e.tracker.tick(now)
	for _, d := range e.detectors {
		d.check(func(cause any, lasting bool, describe func() Finding) {
			e.alerts.raise(d.kind(), cause, lasting, func() Finding {
				f := describe()
				f.Lost = e.tracker.losses.lastMinute(now)
				return f
			}, now)
		})
	}
	return e.alerts.due(now)
}

// Finish closes every open alert and gives what is to be reported. It is the last call.
func (e *Engine) Finish(now time.Duration) []Alert {
	return e.alerts.closeAll(now)
}

// Request asks for the limits of one network namespace.
type Request struct {
	Netns uint32 // inode number
	// HalfClosed asks for its timewait sockets in FIN_WAIT2 as well, which takes a walk
	// through the kernel's table.
	HalfClosed bool
}

// Requests lists what the engine needs to know now, each namespace at most once a
// second. The caller answers each with [Engine.Update], and with [Engine.HalfClosed]
// if that is asked for; the engine repeats a request that got no answer.
func (e *Engine) Requests(now time.Duration) []Request {
	return e.tracker.requests(now)
}

// Update takes the limits of a namespace, requested or not. Nil says that the
// namespace could not be read: the engine then goes on with the last limits, or with
// the kernel's defaults if it has none, and forgets a namespace that is quiet.
func (e *Engine) Update(now time.Duration, netns uint32, l *tcp.Limits) {
	e.tracker.update(now, netns, l)
}

// HalfClosed takes all timewait sockets of a namespace that are in FIN_WAIT2: they
// wait for the peer's FIN. It keeps nothing of sockets.
func (e *Engine) HalfClosed(now time.Duration, netns uint32, sockets []tcp.Socket) {
	e.tracker.takeHalfClosed(now, netns, sockets)
}
