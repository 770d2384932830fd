// Package detect watches the stream of transitions for what piles up, and raises
// one alert for each cause: TIME_WAITs that use up ports or the kernel's room,
// connects that fail, sockets that nobody closes, resets. It is pure: transitions,
// limits and a clock in, alerts out. It must not read clocks or the host: what it
// wants to know of a network namespace it asks for with Wants, and whoever can
// read it tells it with Learn.
package detect

import (
	"time"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// Config has what may be tuned; the zero value of each field is its default.
type Config struct {
	// Threshold is the part of a capacity, 0 to 1, that is taken when an alert about
	// it opens at the latest, if what is left is going to be taken as well.
	Threshold float64
	// Every is how often an open alert is told again.
	Every time.Duration
	// Stuck is how long a socket is in CLOSE_WAIT before it counts as left there, and
	// Leaked how many of them make a leak.
	Stuck  time.Duration
	Leaked int
	// Failures is how many connects to one peer fail within ten seconds before it is
	// told, and Resets how many connections of one end are reset.
	Failures, Resets int
	// HalfClosed is how many closed connections wait for the peer's FIN before it is told.
	HalfClosed int

	// Keys is how many destinations are kept apart at a time.
	Keys int
}

func (c Config) withDefaults() Config {
	set(&c.Threshold, 0.7)
	set(&c.Every, 10*time.Second)
	set(&c.Stuck, 30*time.Second)
	set(&c.Leaked, 32)
	set(&c.Failures, 50)
	set(&c.Resets, 100)
	set(&c.HalfClosed, 500)
	set(&c.Keys, 4096)
	return c
}

func set[T comparable](field *T, otherwise T) {
	var zero T
	if *field == zero {
		*field = otherwise
	}
}

// detector finds one kind of trouble. It sees each transition after the world has,
// and is asked at each tick what is wrong now.
type detector interface {
	kind() string
	// needs are the transitions that it wants to observe besides those of the world.
	// It may see others, such as those of states that have no name.
	needs() tcp.Transitions
	observe(t *tcp.Transition)
	// check raises every cause that there is now. What is lasting keeps an alert
	// open and does not open one.
	check(raise raiser)
}

// raiser takes one cause, comparable, how it stands, and what there is to say of it.
type raiser func(cause any, lasting bool, describe func() Finding)

// detectors is where a new one is entered.
func detectors(w *world) []detector {
	return []detector{
		newPortStorm(w),
		newBucketStorm(w),
		newPortExhaustion(w),
		newCloseWaitLeak(w),
		newConnectFailures(w),
		newHalfClosedPileup(w),
		newResetBurst(w),
	}
}

// Engine is for one goroutine. Its memory is bounded, whatever comes.
type Engine struct {
	world     *world
	detectors []detector
	observers observers
	alarms    alarms
}

// New makes an engine that has seen nothing yet, and is going to see every
// transition from now on.
func New(c Config, now time.Duration) *Engine {
	c = c.withDefaults()
	w := newWorld(c)
	w.now = now
	w.seeding = seeding{since: now, fresh: make(map[uint64]struct{})}
	all := detectors(w)
	return &Engine{world: w, detectors: all, observers: newObservers(all), alarms: newAlarms(c.Every)}
}

// Needs are the transitions that detection goes by, of the ten that a connection
// makes on a loopback four: two of its client's, two of its server's.
func Needs() tcp.Transitions {
	w := newWorld(Config{}.withDefaults())
	needs := w.needs()
	for _, d := range detectors(w) {
		needs.Join(d.needs())
	}
	return needs
}

// between gives the transitions from one of the old states to one of the new.
func between(from, to []tcp.State) (s tcp.Transitions) {
	s.Add(from, to)
	return s
}

// Kinds are the kinds of alert there are.
func Kinds() []string {
	var kinds []string
	for _, d := range detectors(newWorld(Config{}.withDefaults())) {
		if len(kinds) == 0 || kinds[len(kinds)-1] != d.kind() {
			kinds = append(kinds, d.kind())
		}
	}
	return kinds
}

// Observe takes one transition. It keeps nothing of it but the cgroup.
func (e *Engine) Observe(t *tcp.Transition) {
	if t.TimeWaitEnd() || t.Self() {
		return
	}
	e.world.observe(t)
	for _, d := range e.observers.of(t) {
		d.observe(t)
	}
}

// Lost says that so many transitions never came.
func (e *Engine) Lost(now time.Duration, count uint64) {
	e.world.losses.add(now, count)
}

// Tick is to be called some times a second. It gives what is to be told.
func (e *Engine) Tick(now time.Duration) []Alert {
	e.world.tick(now)
	for _, d := range e.detectors {
		d.check(func(cause any, lasting bool, describe func() Finding) {
			e.alarms.raise(d.kind(), cause, lasting, func() Finding {
				f := describe()
				f.Lost = e.world.losses.recent(now)
				return f
			}, now)
		})
	}
	return e.alarms.due(now)
}

// Finish closes every alert that is open.
func (e *Engine) Finish(now time.Duration) []Alert {
	return e.alarms.closeAll(now)
}

// Want is a namespace whose limits matter now.
type Want struct {
	Netns uint32
	// HalfClosed: also those timewait sockets whose peer has not closed yet, which
	// takes a walk through the kernel's table.
	HalfClosed bool
}

// Wants gives what the engine has to know, each at most once a second.
func (e *Engine) Wants(now time.Duration) []Want {
	return e.world.wants(now)
}

// HalfClosed tells which timewait sockets of a namespace wait for their peer's FIN.
func (e *Engine) HalfClosed(now time.Duration, netns uint32, sockets []tcp.Socket) {
	e.world.whoIsHalfClosed(now, netns, sockets)
}

// Learn answers a Want, or tells without having been asked. Nil stands for a
// namespace that could not be read.
func (e *Engine) Learn(now time.Duration, netns uint32, l *Limits) {
	e.world.learn(now, netns, l)
}
