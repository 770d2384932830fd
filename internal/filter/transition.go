package filter

import (
	"slices"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// A filter passes a transition that MatchesStates and MatchesExceptStates pass, by the rules of emit_if_matching() in
// bpf/emit.h.

// HasStates reports whether there is a filter on states, so that MatchesStates may return false.
func (f *Filter) HasStates() bool {
	return len(f.OldStates)+len(f.NewStates) > 0 || f.Transitions != nil || f.ExcludeOrphanFinWait2
}

// MatchesStates reports whether the states of a transition pass.
func (f *Filter) MatchesStates(t *tcp.Transition) bool {
	if !f.HasStates() {
		return true
	}
	wanted := f.WantedTransitions()
	isOrphan := t.New == tcp.FinWait2 && t.NoProcess
	return wanted.Has(t.Old, t.New) && (!isOrphan || !f.ExcludeOrphanFinWait2)
}

// WantedTransitions returns the transitions that match all filters on states.
func (f *Filter) WantedTransitions() tcp.Transitions {
	wanted := tcp.AllTransitions()
	if f.Transitions != nil {
		wanted = *f.Transitions
	}
	if len(f.NewStates) > 0 {
		for old := range wanted {
			wanted[old] &= bits(f.NewStates)
		}
	}
	if len(f.OldStates) > 0 {
		for old := range wanted {
			if bits(f.OldStates)>>old&1 == 0 {
				wanted[old] = 0
			}
		}
	}
	return wanted
}

// bits returns the set with a bit for each state, by its number.
func bits(states []tcp.State) (set uint32) {
	for _, s := range states {
		set |= 1 << s
	}
	return set
}

// MatchesExceptStates reports whether everything of a transition passes except its states. An update of a connection
// needs no more, as in live_socket_matches() in bpf/update.h. The filter must not have Children, Cgroups or Not.Cgroups:
// a transition does not show the cgroup in which its socket was created, nor the parent of its owner.
func (f *Filter) MatchesExceptStates(t *tcp.Transition) bool {
	return f.MatchesNetns(t.Netns) && (len(f.Roles) == 0 || slices.Contains(f.Roles, t.Role)) && f.matchesUID(t.UID) &&
		f.matchesFamily(!t.IPv6) && f.matchesEnds(t.Local, t.Peer) && f.matchesOwner(&t.Owner)
}

// matchesOwner does what owner_matches() in bpf/filter.h does.
func (f *Filter) matchesOwner(o *tcp.Owner) bool {
	pid := o.KnownPID()
	if pid == 0 {
		return len(f.PIDs)+len(f.Comms) == 0
	}
	name := string(o.Comm.Bytes())
	switch {
	case len(f.PIDs) > 0 && !slices.Contains(f.PIDs, pid), len(f.Comms) > 0 && !slices.Contains(f.Comms, name):
		return false
	}
	return !slices.Contains(f.Not.PIDs, pid) && !slices.Contains(f.Not.Comms, name)
}
