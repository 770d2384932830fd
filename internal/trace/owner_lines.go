package trace

import (
	"slices"
	"time"

	"github.com/tcpshift/tcpshift/internal/detect"
	"github.com/tcpshift/tcpshift/internal/process"
	"github.com/tcpshift/tcpshift/internal/record"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// ownerForgotten is how long what is known of an owner stands on records without being confirmed: a pid may be
// used again. It is longer than ownerRecheck because the answer comes later than the event that asks for it.
const ownerForgotten = 5 * time.Minute

// lineProcess is what records say of an owner in the schemas that describe the owner on every record.
type lineProcess struct {
	process   *tcp.Process  // never changed, because encoders keep what they have encoded of it; nil: not known
	confirmed time.Duration // since the start: when the process lived last
}

// confirm takes what was found of the process.
func (l *lineProcess) confirm(p *tcp.Process, now time.Duration) {
	l.confirmed = now
	if l.process != nil && isSame(l.process, p) {
		return
	}
	c := *p
	l.process = &c
}

// isSame reports whether two descriptions of a process are equal but for the wall clock.
func isSame(a, b *tcp.Process) bool {
	return absolute(a.StartedAt-b.StartedAt) <= process.Tick && a.Exe == b.Exe && slices.Equal(a.Args, b.Args) && a.ArgsCut == b.ArgsCut &&
		a.Parent == b.Parent && a.UID == b.UID && a.UIDKnown == b.UIDKnown && a.User == b.User
}

// describesOwners reports whether records of this output have what is known of their owner's process.
func (w *recordWriter) describesOwners() bool {
	e, can := w.encoder.(record.OwnerEncoder)
	return can && e.DescribesOwner() && (w.transitions || w.connections || w.alerts)
}

// describeOwner sets what is known of the owner of an event, and asks for it if it is not known.
func (o *owners) describeOwner(t *tcp.Transition) {
	if t.Owner.Source == tcp.PIDUnknown {
		t.Process = nil
		return
	}
	t.Process = o.processOf(t.Owner.PID, t.UID, &t.Owner.Comm, t.Cgroup, t.Monotonic)
}

// describeCulprit does it for the process that an alert names.
func (o *owners) describeCulprit(a *detect.Alert) {
	if c := &a.Culprit; c.Known && c.PID != 0 {
		c.Process = o.processOf(c.PID, 0, &c.Comm, c.Cgroup, a.Monotonic)
	}
}

// processOf returns what is known of the process that an event at a time (CLOCK_BOOTTIME) shows, or nil. uid is that
// of the socket; 0 if it is not known.
func (o *owners) processOf(pid, uid uint32, comm *tcp.Comm, cgroup *tcp.Cgroup, at time.Duration) *tcp.Process {
	p := o.named(pid)
	if uid != 0 && uid != p.user {
		p.takeUser(uid)
	}
	if p.asked != o.period || p.Comm != *comm || cgroup != nil && p.Cgroup != cgroup {
		o.refresh(p, comm, cgroup, at)
	}
	known := p.lines.process
	trusted := ownerForgotten
	if !p.found { // it has ended, and its last sockets are a little older
		trusted = ownerRecheck
	}
	if known == nil || at < known.StartedAt || o.now-p.lines.confirmed > trusted {
		return nil
	}
	return known
}
