package detect

import "github.com/tcpshift/tcpshift/internal/tcp"

// observers are the detectors that need a transition, by its old and new state: half of
// a connection's need none.
type observers struct {
	byStates [16][16][]detector
	all      []detector // for what has no name: no needs tell of it
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

func needing(all []detector, old, next tcp.State) (those []detector) {
	for _, d := range all {
		if needs := d.needs(); needs.Has(old, next) {
			those = append(those, d)
		}
	}
	return those
}

func (o *observers) of(t *tcp.Transition) []detector {
	if t.Old < 16 && t.New < 16 {
		return o.byStates[t.Old][t.New]
	}
	return o.all
}
