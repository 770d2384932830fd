package harness

import (
	"slices"

	"github.com/tcpshift/tcpshift/internal/probe"
)

// checkUnknown checks a record without an owner: the tracer must not have been able to
// know the owner.
func (env *Env) checkUnknown(l Record, s *Socket, at Moment) {
	env.T.Helper()
	if l.Comm != "" || l.Source != "" {
		env.wrong(l, s, "no pid, but comm %q and pid_source %q", l.Comm, l.Source)
	}
	if !env.Has(probe.SocketStorage) || !env.ownerIsKnowable(s, at) {
		return
	}
	for _, limit := range env.KnownLimits {
		if limit(l, s) {
			return
		}
	}
	env.Tally.missing++
	env.T.Errorf("%s: no owner\n%s%s", s.What, l.Raw, env.describePossessions(s, at))
}

// ownerIsKnowable reports whether the tracer can know the owner. It can if the process
// that operated on the socket last still has it open, or closed it last. If no process
// has operated on it, the tracer can know the process that has the listener open.
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

// lastKnownOwner returns the process that the tracer saw operate on the socket last, or
// the only process that had it open when the tracer scanned all files.
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

// survivesExit reports whether the tracer can name the process even if it is dead.
// Before Linux 6.2 no program can check whether another process has the pid now.
func (env *Env) survivesExit(a *Actor) bool {
	return a.died == 0 || !IsBefore(env.T, 6, 2)
}

// isOpenIn reports whether the process has the socket open and was neither opening nor
// closing it at that moment.
func (s *Socket) isOpenIn(a *Actor, at Moment) bool {
	return slices.ContainsFunc(s.possessions, func(h possession) bool {
		return h.a == a && h.from+ClockSlack < at && (h.until == 0 || at < h.leaving-ClockSlack)
	})
}
