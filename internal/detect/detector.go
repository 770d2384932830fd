package detect

import "github.com/tcpshift/tcpshift/internal/tcp"

// detector finds one kind of trouble. It sees a transition after the tracker has seen
// it, and is asked at each tick what is wrong.
type detector interface {
	kind() string
	// needs are the transitions that the detector uses itself, besides those of the
	// tracker. It may be shown others, such as those of states without a name.
	needs() tcp.Transitions
	observe(t *tcp.Transition)
	// check raises every cause that exists now.
	check(raise raiser)
}

// raiser takes one cause, which is comparable, and what to report about it. A lasting
// cause keeps an alert open, and does not open one.
type raiser func(cause any, lasting bool, describe func() Finding)

// newDetectors lists all detectors: a new one is entered here.
func newDetectors(tr *tracker) []detector {
	return []detector{
		newPortStorm(tr),
		newBucketStorm(tr),
		newPortExhaustion(tr),
		newCloseWaitLeak(tr),
		newConnectFailures(tr),
		newFinWait2Pileup(tr),
		newResetBurst(tr),
	}
}

// between gives the transitions from one of the old states to one of the new.
func between(from, to []tcp.State) (s tcp.Transitions) {
	s.Add(from, to)
	return s
}

// maxStates is one more than the largest state number that observers are sorted by.
const maxStates = 16

// observers lists the detectors that need a transition, by its old and new state. Half
// of the transitions of a connection need none.
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

func needing(all []detector, old, next tcp.State) (needy []detector) {
	for _, d := range all {
		if needs := d.needs(); needs.Has(old, next) {
			needy = append(needy, d)
		}
	}
	return needy
}

func (o *observers) of(t *tcp.Transition) []detector {
	if t.Old < maxStates && t.New < maxStates {
		return o.byStates[t.Old][t.New]
	}
	return o.all
}
