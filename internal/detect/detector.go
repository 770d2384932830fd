package detect

import "github.com/tcpshift/tcpshift/internal/tcp"

// detector finds the causes of one kind. It observes a transition after the tracker, and
// is checked at each tick.
type detector interface {
	kind() string
	// needs are the transitions that the detector uses itself, besides those of the
	// tracker. It may have to observe others, such as those of states without a name.
	needs() tcp.Transitions
	observe(t *tcp.Transition)
	// check raises every cause that exists now, and refutes those that the kernel does not
	// confirm.
	check(raise raiser)
	// pin keeps what the detector knows of a cause, which has an open alert, from being
	// evicted from a table. It is called after each check.
	pin(c cause)
}

// resetObserver is a detector that needs to know which side reset a connection. It takes
// a transition to Close with ResetAwaited when its ResetSent is known.
type resetObserver interface {
	resetDecided(t *tcp.Transition)
}

// failureCounter is a detector whose alerts report failed connects. The lifecycle reports the first
// failure at once, and all of them when the alert closes.
type failureCounter interface {
	// failures is how many connects have failed since a cause began.
	failures(c cause) uint64
}

// optional lists the detectors that implement each optional interface, so that no tick asserts types.
type optional struct {
	failures []failureCounter // in the order of the detectors; nil for those without
	resets   []resetObserver
	evictors []evictor
	leaving  []leavesOut
}

func newOptional(all []detector) (o optional) {
	for _, d := range all {
		counter, _ := d.(failureCounter)
		o.failures = append(o.failures, counter)
		if observer, ok := d.(resetObserver); ok {
			o.resets = append(o.resets, observer)
		}
		if evicting, ok := d.(evictor); ok {
			o.evictors = append(o.evictors, evicting)
		}
		if leaving, ok := d.(leavesOut); ok {
			o.leaving = append(o.leaving, leaving)
		}
	}
	return o
}

// claim is what a detector demands for the alert of a cause.
type claim int

const (
	opens   claim = 1 << iota // the alert opens, or stays open
	keeps                     // the alert stays open if it is
	refuted                   // the alert closes if it is open: the kernel does not confirm it
	ended                     // the alert closes if it is open: another one takes over from it
	// gone closes the alert if it is open, because the kernel does not have its sockets: as resolved if the kernel has
	// confirmed the alert before, else as refuted.
	gone
	// verified is added to opens or keeps: the kernel confirms the cause. An alert that has
	// opened unverified is reported again at once.
	verified
	// doubted is added to keeps, or stands alone: the kernel has answered, and its numbers would open no alert. An alert
	// that the kernel has never confirmed does not stay open for that, and closes as refuted unless it is confirmed
	// within quietPeriod.
	doubted
	// denied is added to doubted: such an alert closes at once, because its numbers are far below those that open one.
	denied
)

// cause is what an alert is about. It is comparable.
type cause interface {
	netnsInode() uint32 // inode number
}

// raiser takes one cause with a claim, and what an alert would report about it. describe is nil if the
// claim is refuted, ended or gone.
type raiser func(cause cause, c claim, describe func() Finding)

// newDetectors returns all detectors. A new one must be added here.
func newDetectors(tr *tracker) []detector {
	return []detector{
		newPortStorm(tr),
		newBucketStorm(tr),
		newPortExhaustion(tr),
		newBindExhaustion(tr),
		newCloseWaitLeak(tr),
		newConnectFailures(tr),
		newFinWait2Pileup(tr),
		newResetBurst(tr),
		newListenQueue(tr),
	}
}

// between returns the transitions from one of the states from to one of the states to.
func between(from, to []tcp.State) (s tcp.Transitions) {
	s.Add(from, to)
	return s
}

// maxStates bounds the state numbers that have an entry of their own in observers.
const maxStates = 16

// observers has, by old and new state, the detectors that need such a transition: each detector
// needs only a few of the transitions of a connection.
type observers struct {
	byStates [maxStates][maxStates][]detector
	all      []detector // for states without a name, which needs do not cover
}

func newObservers(all []detector) (o observers) {
	o.all = all
	for old := range o.byStates {
		for next := range o.byStates[old] {
			o.byStates[old][next] = all
		}
	}
	for _, old := range tcp.States() {
		for _, next := range tcp.States() {
			o.byStates[old][next] = needing(all, old, next)
		}
	}
	return o
}

func needing(all []detector, old, next tcp.State) (list []detector) {
	for _, d := range all {
		if needs := d.needs(); needs.Has(old, next) {
			list = append(list, d)
		}
	}
	return list
}

func (o *observers) of(t *tcp.Transition) []detector {
	if t.Old < maxStates && t.New < maxStates {
		return o.byStates[t.Old][t.New]
	}
	return o.all
}
