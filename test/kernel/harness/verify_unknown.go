package harness

import (
	"slices"

	"github.com/tcpshift/tcpshift/internal/probe"
)

// checkUnknown is about a record that names nobody: that is right only where the
// tracer had no means to know.
func (env *Env) checkUnknown(l Record, s *Socket, at Moment) {
	env.T.Helper()
	if l.Comm != "" || l.Source != "" {
		env.wrong(l, s, "no pid, but comm %q and pid_source %q", l.Comm, l.Source)
	}
	if !env.Has(probe.SocketStorage) || !env.ownerIsKnowable(s, at) {
		return
	}
	for _, limit := range env.AllowMissing {
		if limit(l, s) {
			return
		}
	}
	env.Tally.missing++
	env.T.Errorf("%s: no owner\n%s%s", s.What, l.Raw, env.describePossessions(s, at))
}

// couldKnow: who has operated on the socket last has it still, or closed it as the
// last; or, where nobody has operated, who listens has the listener still.
func (env *Env) ownerIsKnowable(s *Socket, at Moment) bool {
	if s.ByPorts && (s.Role == "server" || lastCloser(s, at) != nil) {
		return false // closing an MPTCP socket is no transition of its subflow
	}
	if a := env.lastKnownOwner(s, at); a != nil {
		return s.isOpenIn(a, at) || lastCloser(s, at) == a && env.survivesExit(a)
	}
	if len(s.Listeners) == 0 || s.BeforeTracing || s.Listeners[0].ended != 0 {
		return false
	}
	a := env.lastKnownOwner(s.Listeners[0], at)
	return a != nil && s.Listeners[0].isOpenIn(a, at)
}

// lastKnownOwner is whom the tracer has seen operate on the socket last, or else who alone
// had it when the scan came by.
func (env *Env) lastKnownOwner(s *Socket, at Moment) *Actor {
	var last *Actor
	for _, o := range s.operations {
		if o.from < at && o.from > env.tracedSince {
			last = o.a
		}
	}
	if last != nil || !s.BeforeTracing || !env.Has(probe.SocketScan) {
		return last
	}
	for _, h := range s.possessions {
		if h.from > env.tracedSince || h.until != 0 && h.until < env.tracedSince {
			continue
		}
		if last != nil {
			return nil
		}
		last = h.a
	}
	return last
}

// outlivesItsProcess: before Linux 6.2 no program can tell whether another process has
// the number of a dead one.
func (env *Env) survivesExit(a *Actor) bool {
	return a.died == 0 || !IsBefore(env.T, 6, 2)
}

// isOpenIn is certain: neither just coming nor just going.
func (s *Socket) isOpenIn(a *Actor, at Moment) bool {
	return slices.ContainsFunc(s.possessions, func(h possession) bool {
		return h.a == a && h.from+ClockSlack < at && (h.until == 0 || at < h.leaving-ClockSlack)
	})
}
