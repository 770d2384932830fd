package record

import "github.com/tcpshift/tcpshift/internal/tcp"

// owners keeps the members that say whose a socket is, as they were last written
// for an owner: one who makes a storm is in each of its records. An owner takes the
// place of another, so that there are never more than fit.
type owners [256]struct {
	of      ownership
	members []byte // empty: nobody yet
}

// ownership is all that the members are made of. The cgroup is one of a cache's,
// which does not change.
type ownership struct {
	owner  tcp.Owner
	uid    uint32
	cgroup *tcp.Cgroup
}

func (o *ownership) is(t *tcp.Transition) bool {
	return o.owner == t.Owner && o.uid == t.UID && o.cgroup == t.Cgroup
}

func (o *owners) append(dst object, t *tcp.Transition) object {
	kept := &o[(t.Owner.PID^t.Owner.PID>>8^uint32(t.Owner.Source)<<5)%uint32(len(o))]
	if len(kept.members) == 0 || !kept.of.is(t) {
		kept.of = ownership{t.Owner, t.UID, t.Cgroup}
		kept.members = object(kept.members[:0]).owner(t)
	}
	return append(dst, kept.members...)
}
