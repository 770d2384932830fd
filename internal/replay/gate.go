package replay

import (
	"github.com/tcpshift/tcpshift/internal/detect"
	"github.com/tcpshift/tcpshift/internal/recording"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// Filter decides what of a recording exists, as the filter of a trace would have decided. [*filter.Filter] is one.
type Filter interface {
	// HasStates reports whether MatchesStates may be false.
	HasStates() bool
	// MatchesStates reports whether the states of a transition pass.
	MatchesStates(t *tcp.Transition) bool
	// MatchesExceptStates reports whether everything else of a transition passes.
	MatchesExceptStates(t *tcp.Transition) bool

	// MatchesNetns reports whether sockets of a namespace pass.
	MatchesNetns(inode uint32) bool
	// MatchesSocket and MatchesListener report whether a socket of the kernel's tables passes, in any namespace.
	MatchesSocket(s *tcp.Socket) bool
	MatchesListener(l *tcp.Listener) bool
	// NeedsOwnerRoleOrCgroup reports whether the filter passes only some owners, roles or cgroups, which these tables do not
	// show.
	NeedsOwnerRoleOrCgroup() bool
}

// maxTimeWaits bounds the TIME_WAITs that a gate remembers: as many as a trace tracks.
const maxTimeWaits = 128 << 10

// gate applies a filter to the content of a recording, and counts transitions. Without a filter everything passes.
type gate struct {
	filter Filter // nil: none

	seen, filtered uint64 // transitions, without the ends of TIME_WAITs

	// timeWaits are the TIME_WAITs whose beginnings have passed a filter on states: their ends pass it, too. Without such a
	// filter it is empty.
	timeWaits map[timeWait]struct{}
}

// timeWait identifies a TIME_WAIT, also on kernels without cookies.
type timeWait struct {
	cookie      uint64
	netns       uint32
	local, peer tcp.Endpoint
}

// passes reports whether a transition passes.
func (g *gate) passes(t *tcp.Transition) bool {
	if t.IsTimeWaitEnd() {
		return g.filter == nil || g.filter.MatchesExceptStates(t) && g.endPasses(t)
	}
	g.seen++
	if g.filter == nil {
		return true
	}
	if !g.matches(t) {
		g.filtered++
		return false
	}
	if t.New == tcp.TimeWait && g.filter.HasStates() {
		g.remember(t)
	}
	return true
}

// matches reports the same as passes, and does not count. The transition must not be the end of a TIME_WAIT.
func (g *gate) matches(t *tcp.Transition) bool {
	return g.filter == nil || g.filter.MatchesStates(t) && g.filter.MatchesExceptStates(t)
}

// passesLive reports whether an update of a connection passes. The states of t have no meaning.
func (g *gate) passesLive(t *tcp.Transition) bool {
	return g.filter == nil || g.filter.MatchesExceptStates(t)
}

// remember notes a TIME_WAIT whose beginning has passed. If too many are noted, it forgets all: their ends do not pass.
func (g *gate) remember(t *tcp.Transition) {
	if g.timeWaits == nil || len(g.timeWaits) >= maxTimeWaits {
		g.timeWaits = make(map[timeWait]struct{})
	}
	g.timeWaits[timeWait{t.Cookie, t.Netns, t.Local, t.Peer}] = struct{}{}
}

// endPasses reports whether the end of a TIME_WAIT passes the filter on states, and forgets the TIME_WAIT.
func (g *gate) endPasses(t *tcp.Transition) bool {
	if !g.filter.HasStates() {
		return true
	}
	key := timeWait{t.Cookie, t.Netns, t.Local, t.Peer}
	_, passed := g.timeWaits[key]
	delete(g.timeWaits, key)
	return passed
}

// passesNetns reports whether sockets of a namespace may pass.
func (g *gate) passesNetns(inode uint32) bool { return g.filter == nil || g.filter.MatchesNetns(inode) }

// passesSeed reports whether detection begins with a socket that was there before the trace. It is false for all sockets
// if the kernel's table does not show what the filter needs.
func (g *gate) passesSeed(netns uint32, s *tcp.Socket) bool {
	return g.filter == nil || !g.filter.NeedsOwnerRoleOrCgroup() && g.passesNetns(netns) && g.passesSocket(s)
}

// passesSocket reports whether a socket of the kernel's tables passes, in any namespace.
func (g *gate) passesSocket(s *tcp.Socket) bool { return g.filter == nil || g.filter.MatchesSocket(s) }

// keepListeners removes the listeners that do not pass from a table, which may be nil.
func (g *gate) keepListeners(t *detect.ListenTable) {
	if g.filter == nil || t == nil {
		return
	}
	kept := t.Listeners[:0]
	for i := range t.Listeners {
		if g.filter.MatchesListener(&t.Listeners[i]) {
			kept = append(kept, t.Listeners[i])
		}
	}
	t.Listeners, t.KnownOnly = kept, t.KnownOnly || g.filter.NeedsOwnerRoleOrCgroup()
}

// forFilter returns the transition as a filter must see it: a user that the record does not have matches no filter and no
// exclusion.
func (r *Records) forFilter(t *tcp.Transition, rec *recording.Record) *tcp.Transition {
	if r.filter == nil || rec.UID != nil {
		return t
	}
	s := *t
	s.UID = noUser
	return &s
}

// connectionPasses reports whether a connection passes: as it is now, or, if it has ended, with its last transition t.
func (r *Records) connectionPasses(rec *recording.Record, t *tcp.Transition, c *tcp.Connection) bool {
	if c.Phase == tcp.PhaseUpdate {
		return r.passesLive(r.forFilter(t, rec))
	}
	return r.matches(r.forFilter(t, rec))
}

// noUser is the uid that no user has (chown(2)), so no filter names it.
const noUser = 1<<32 - 1
