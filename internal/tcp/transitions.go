package tcp

// Transitions is a set of transitions by their states: for each old state, a bit for each
// new one. States from 32 on, which no kernel has, are never in it. The zero value is
// the empty set.
type Transitions [32]uint32

// AllTransitions gives the set of all transitions between states below 32.
func AllTransitions() (all Transitions) {
	for old := range all {
		all[old] = 1<<32 - 1
	}
	return all
}

// EndTransitions gives the set of the transitions that end a socket's connection, or a listener: those to
// Close and to TimeWait. A connection record needs no other.
func EndTransitions() (ends Transitions) {
	ends.Add(States(), []State{Close, TimeWait})
	ends[Close] = 0 // it had ended before
	return ends
}

// Add adds the transitions from each of the old states to each of the new. All states
// must be below 32.
func (s *Transitions) Add(from, to []State) {
	for _, old := range from {
		for _, next := range to {
			s[old] |= 1 << next
		}
	}
}

// Join adds the transitions of another set.
func (s *Transitions) Join(other Transitions) {
	for old := range s {
		s[old] |= other[old]
	}
}

// Has reports whether the set has a transition.
func (s *Transitions) Has(old, next State) bool {
	return int(old) < len(s) && next < 32 && s[old]>>next&1 == 1
}
