package record

import "github.com/tcpshift/tcpshift/internal/tcp"

// maxMappedPath bounds the path of a cgroup in the schemas other than the native one, in bytes
// of the line.
const maxMappedPath = 1024

// Transition implements [Encoder]. It does not allocate if dst has room.
func (e *ECS) Transition(dst []byte, t *tcp.Transition) []byte {
	o := e.begin(dst, t.Time, ecsTransition).
		ecsTransitionType(t)
	o = e.identities.append(o, t, object.ecsIdentity)
	o = o.literal("tcpshift.new_state", t.New.String()).
		ownStates(t)
	o = e.owners.append(o, t, object.ecsOwner)
	o = o.ecsError(t.Error).
		literalIfSet("tcpshift.reset_reason", t.ResetReason)
	if e.sample != 0 {
		o = e.sampled(o, t)
	}
	return e.end(o)
}

// ecsTransitionType appends event.type and event.outcome: a connection starts when it is
// established. Its end is the connection record.
func (o object) ecsTransitionType(t *tcp.Transition) object {
	switch {
	case t.Old != tcp.Established && t.New == tcp.Established:
		o.line = append(o.line, `,"event.type":["connection","start"],"event.outcome":"success"`...)
	case t.Error != 0:
		o.line = append(o.line, `,"event.type":["connection","info"],"event.outcome":"failure"`...)
	default:
		o.line = append(o.line, `,"event.type":["connection","info"]`...)
	}
	return o
}

// Connection implements [Encoder]. It does not allocate if dst has room.
func (e *ECS) Connection(dst []byte, t *tcp.Transition, c *tcp.Connection) []byte {
	o := e.beginConnection(dst, t, c)
	o = e.identities.append(o, t, object.ecsIdentity)
	o = e.owners.append(o, t, object.ecsOwner)
	if c.OpenedAt != 0 {
		o = o.time("event.start", &e.opened, c.Opened)
		if c.Phase != tcp.PhaseUpdate {
			o = o.time("event.end", &e.times, t.Time)
		}
		o = o.uint("event.duration", uint64(t.Monotonic-c.OpenedAt))
	}
	bySource, byDestination := c.Sent, c.Received
	if isDestination(t.Role) {
		bySource, byDestination = c.Received, c.Sent
	}
	o = o.uint("source.bytes", bySource).
		uint("destination.bytes", byDestination).
		literal(ownStateKey(c), t.New.String()).
		ownConnection(t, c).
		ecsError(t.Error)
	if e.sample != 0 {
		o = e.sampled(o, t)
	}
	return e.end(o)
}

// beginConnection appends what the record of an end or of an update begins with.
func (e *ECS) beginConnection(dst []byte, t *tcp.Transition, c *tcp.Connection) object {
	if c.Phase == tcp.PhaseUpdate {
		return e.begin(dst, t.Time, ecsUpdate)
	}
	o := e.begin(dst, t.Time, ecsConnection)
	if t.Role == tcp.RoleListener {
		o.line = append(o.line, `,"event.type":["end"]`...)
	} else {
		o.line = append(o.line, `,"event.type":["connection","end"]`...)
	}
	return o.literal("event.outcome", outcome(t, c))
}

// outcome is "success" if one side closed the connection in order, "failure" if it failed or
// was never established, and "unknown" where that is not known, or where this side sent a
// reset, which some programs do in place of a close.
func outcome(t *tcp.Transition, c *tcp.Connection) string {
	switch c.ClosedBy {
	case tcp.ClosedByLocal, tcp.ClosedByPeer:
		if t.Role != tcp.RoleListener && c.OpenedAt != 0 && c.EstablishedFor == 0 {
			return "failure"
		}
		return "success"
	case "", tcp.ClosedByResetSent:
		return "unknown"
	}
	return "failure"
}

// Socket appends a socket record with the number of SetSeq. It does not allocate if dst has
// room.
func (e *ECS) Socket(dst []byte, s *tcp.Socket) []byte {
	o := e.begin(dst, s.Time, ecsSocket).
		ecsIdentity(&s.Transition).
		literal("tcpshift.state", s.New.String()).
		ownSubstate(&s.Transition).
		uintIfSet("tcpshift.expires_in_ns", uint64(s.ExpiresIn))
	if s.New != tcp.TimeWait { // a timewait socket belongs to no process
		o = e.owners.append(o, &s.Transition, object.ecsOwner)
	}
	return e.end(o.measures(ownPrefix, s).ecsError(s.Error))
}

// ecsIdentity appends the members that identify the socket. [identityKey] must contain every
// field that it reads.
func (o object) ecsIdentity(t *tcp.Transition) object {
	o = o.literal("network.transport", "tcp")
	if t.IPv6 {
		o = o.literal("network.type", "ipv6")
	} else {
		o = o.literal("network.type", "ipv4")
	}
	switch t.Role {
	case tcp.RoleClient:
		o = o.literal("network.direction", "egress")
	case tcp.RoleServer:
		o = o.literal("network.direction", "ingress")
	}
	return o.communityID("network.community_id", t.Local, t.Peer).
		ecsEndpoints(t.Role, t.Local, t.Peer).
		ownSocket(t)
}

// ecsOwner appends the process and the user that the socket belongs to. [ownerKey] must
// contain every field that it reads.
func (o object) ecsOwner(t *tcp.Transition) object {
	if t.Owner.Source != tcp.PIDUnknown {
		o = o.uint("process.pid", uint64(t.Owner.PID)).
			bytes("process.name", t.Owner.Comm.Bytes())
	}
	o, cut := o.ecsProcess(t.Process)
	return o.userID(t.UID).
		ecsUser(t.UID, t.Process).
		ownPIDSource(t).
		ecsCgroup(t.Cgroup).
		truncatedIf(cut, t.Cgroup)
}

// ecsCgroup appends nothing if c is nil.
func (o object) ecsCgroup(c *tcp.Cgroup) object {
	if c == nil {
		return o
	}
	o = o.path("tcpshift.cgroup", c.Path, maxMappedPath).
		literalIfSet("container.id", c.Container).
		literalIfSet("container.runtime", c.Runtime).
		stringIfSet("container.name", c.ContainerName).
		stringIfSet("container.image.name", c.Image)
	if c.PodUID != "" {
		o = o.literal("orchestrator.type", "kubernetes").
			literal("orchestrator.resource.type", "pod").
			literal("orchestrator.resource.id", c.PodUID).
			stringIfSet("orchestrator.resource.name", c.Pod).
			stringIfSet("orchestrator.namespace", c.Namespace)
	}
	return o.unit("tcpshift.unit", "tcpshift.unit_claimed", c).
		trueIf("tcpshift.container_claimed", c.ContainerClaimed)
}

func (o object) ecsError(e tcp.Errno) object {
	if e != 0 {
		o = o.literal("error.code", e.String())
	}
	return o
}
