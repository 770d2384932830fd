package tcp

// Transitions is a set of transitions by their states, for each old state a bit for
// each new one. It has no room for states from 32 on, which no kernel has.
type Transitions [32]uint32

// AllTransitions gives the set of all.
func AllTransitions() (all Transitions) {
	for old := range all {
		all[old] = 1<<32 - 1
	}
	return all
}

// Add puts transitions in: from one of the old states to one of the new.
func (s *Transitions) Add(from, to []State) {
	for _, old := range from {
		for _, next := range to {
			s[old] |= 1 << next
		}
	}
}

// Join adds those of another set.
func (s *Transitions) Join(other Transitions) {
	for old := range s {
		s[old] |= other[old]
	}
}

// Has says whether the set holds this transition.
func (s *Transitions) Has(old, next State) bool {
	return int(old) < len(s) && next < 32 && s[old]>>next&1 == 1
}
