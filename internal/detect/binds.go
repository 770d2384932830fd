package detect

import (
	"time"

	"github.com/tcpshift/tcpshift/internal/detect/rate"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// maxBinds bounds the ports that are remembered as bound by connections of one user, over all
// namespaces; of all users there are at most twice as many (see quota). They take at most about
// 16 MiB.
const maxBinds = 1 << 16

// bind is a port that a process has bound before connect(). Until the last of its
// connections and TIME_WAITs is gone, the connect() of any other socket that lets the kernel
// choose skips the port, for all destinations: __inet_hash_connect() takes no bucket that
// bind() made.
type bind struct {
	open    int32         // connections from this port
	counted bool          // connect() could choose the port: its connections count at their destination
	user    uint32        // see quotaOf
	until   time.Duration // when the last TIME_WAIT ends

	changedAt time.Duration // when a connection opened or closed
	by        destination   // of the newest connection
}

// bindOpened remembers the port of a connection that had it before connect(): the
// transition to SYN_SENT has a port. counted is as in bind.
func (tr *tracker) bindOpened(t *tcp.Transition, ns *namespace, key destination, counted bool) {
	b := ns.binds[t.Local.Port]
	if counted && (b == nil || b.open == 0 && b.until <= t.Monotonic) {
		if ns.bindUse == nil {
			ns.bindUse = &rate.Estimator{}
		}
		ns.bindUse.Opened(t.Monotonic)
	}
	switch {
	case b != nil:
	case !tr.binds.take(quotaOf(t.UID)):
		tr.leftOut.Ports++
		return
	default:
		if ns.binds == nil {
			ns.binds = make(map[uint16]*bind)
		}
		b = &bind{user: quotaOf(t.UID)}
		ns.binds[t.Local.Port] = b
		if counted {
			ns.countBind(t.Local.Port)
			tr.destinations.GetOrInsert(key, key.hash(), userOf(t)).Value.binds++
		}
	}
	b.open, b.counted, b.by, b.changedAt = b.open+1, counted, key, tr.now
	ns.bindServices.count(t)
}

// isBound reports whether a connection that is open has bound the port. If none has, a connection that
// ends now got its port from connect(), although TIME_WAITs of bound connections may still count: their
// timers are known only to a second, and these TIME_WAITs have ended.
func (ns *namespace) isBound(port uint16) bool {
	b := ns.binds[port] // nil if the map is
	return b != nil && b.open > 0
}

// connectChooses reports whether connect() may choose a port, by the limits of the namespace: the port
// is in the range, and neither reserved nor bound. It does not look at binds.
func (ns *namespace) connectChooses(port uint16) bool {
	return ns.limits.IsEphemeral(port) && !ns.otherBinds.Has(port)
}

// bindClosed takes a connection off its bound port.
func (ns *namespace) bindClosed(t *tcp.Transition) {
	b := ns.binds[t.Local.Port]
	if b == nil || b.open == 0 {
		return
	}
	b.open, b.changedAt = b.open-1, max(b.changedAt, t.Monotonic)
	switch last := b.open == 0 && b.counted && ns.bindUse != nil; {
	case t.New == tcp.TimeWait:
		b.until = max(b.until, t.Monotonic+rate.TimeWaitHold)
		if last {
			ns.bindUse.ClosedToTimeWait(t.Monotonic, ns.timeWaitKind(t))
		}
	case last:
		ns.bindUse.Closed(t.Monotonic)
	}
}

// takeBuckets takes the kernel's new list of the ports that bind() has taken. Ports of the list that
// are not in binds are of connections that are older than the tracer or were lost, or of children of a
// listener that has closed. Ports of binds that the list does not have are free again.
func (ns *namespace) takeBuckets() {
	l := &ns.limits
	if l.BindBuckets == nil {
		ns.otherBinds = nil
		return
	}
	for port, b := range ns.binds {
		if b.changedAt+openSettles < l.BoundReadAt && !l.BindBuckets.Has(port) && !l.Bound.Has(port) {
			b.open, b.until = 0, 0
		}
	}
	ns.otherBinds = l.BucketsWithout(func(port uint16) bool { return ns.binds[port] != nil })
}

// sweepBinds forgets the ports that are free again. It counts the bound ports that connect() could
// choose if they were not bound.
func (tr *tracker) sweepBinds(ns *namespace) {
	ns.bindCount, ns.bindsOther = ns.otherBinds.Len(), ns.otherBinds.Len()
	for port, b := range ns.binds {
		if b.open == 0 && b.until <= tr.now {
			delete(ns.binds, port)
			continue
		}
		tr.binds.recount(b.user)
		if !ns.known || ns.limits.IsEphemeral(port) {
			ns.countBind(port)
			if e := tr.destinations.Find(b.by, b.by.hash()); e != nil {
				e.Value.binds++
			}
		}
	}
}

// countBind counts a port of binds that connect() could choose if it were not bound.
func (ns *namespace) countBind(port uint16) {
	if ns.otherBinds.Has(port) { // it is counted there: its transition came after the list
		ns.bindsOther--
	} else {
		ns.bindCount++
	}
}

// boundByOthers is how many ports that connect() could choose otherwise are bound, except by
// connections to the destination of use, which may be nil.
func (ns *namespace) boundByOthers(use *destinationUse) int {
	if use == nil {
		return ns.bindCount
	}
	return max(0, ns.bindCount-use.binds)
}
