package record

import "github.com/tcpshift/tcpshift/internal/tcp"

// Transition implements [Encoder]. It does not allocate if dst has room.
func (e *OTel) Transition(dst []byte, t *tcp.Transition) []byte {
	o := e.begin(dst, t.Time, otelTransition)
	o = e.identities.append(o, t, object.otelIdentity)
	o = o.otelState(t.New, "tcpshift.new_state").
		ownStates(t)
	o = e.owners.append(o, t, object.otelOwner)
	o = o.otelError(t.Error).
		literalIfSet("tcpshift.reset_reason", t.ResetReason)
	if e.sample != 0 {
		o = e.sampled(o, t)
	}
	return e.end(o, len(dst))
}

// Connection implements [Encoder]. It does not allocate if dst has room.
func (e *OTel) Connection(dst []byte, t *tcp.Transition, c *tcp.Connection) []byte {
	o := e.begin(dst, t.Time, otelConnection)
	o = e.identities.append(o, t, object.otelIdentity)
	o = e.owners.append(o, t, object.otelOwner)
	if c.OpenedAt != 0 {
		o = o.time("tcpshift.opened", &e.opened, c.Opened).
			uint("tcpshift.duration_ns", uint64(t.Monotonic-c.OpenedAt))
	}
	o = o.uint("tcpshift.sent_bytes", c.Sent).
		uint("tcpshift.received_bytes", c.Received).
		otelState(t.New, ownStateKey(c)).
		literalIfSet("tcpshift.phase", string(c.Phase)).
		ownConnection(t, c).
		otelError(t.Error)
	if e.sample != 0 {
		o = e.sampled(o, t)
	}
	return e.end(o, len(dst))
}

// Socket appends a socket record with the number of SetSeq. It does not allocate if dst has
// room.
func (e *OTel) Socket(dst []byte, s *tcp.Socket) []byte {
	o := e.begin(dst, s.Time, otelSocket).
		otelIdentity(&s.Transition).
		otelState(s.New, "tcpshift.state").
		ownSubstate(&s.Transition).
		uintIfSet("tcpshift.expires_in_ns", uint64(s.ExpiresIn))
	if s.New != tcp.TimeWait { // a timewait socket belongs to no process
		o = e.owners.append(o, &s.Transition, object.otelOwner)
	}
	return e.end(o.measures(ownPrefix, s).otelError(s.Error), len(dst))
}

// otelStates are the values of network.connection.state, which are the states of RFC 9293.
var otelStates = [...]string{
	tcp.Established:   "established",
	tcp.SynSent:       "syn_sent",
	tcp.SynRecv:       "syn_received",
	tcp.FinWait1:      "fin_wait_1",
	tcp.FinWait2:      "fin_wait_2",
	tcp.TimeWait:      "time_wait",
	tcp.Close:         "closed",
	tcp.CloseWait:     "close_wait",
	tcp.LastAck:       "last_ack",
	tcp.Listen:        "listen",
	tcp.Closing:       "closing",
	tcp.NewSynRecv:    "syn_received",
	tcp.BoundInactive: "closed",
}

// otelState appends network.connection.state. For a state that only Linux has it appends the
// native member as well, and for a number without a name only the native member.
func (o object) otelState(s tcp.State, native string) object {
	named := int(s) < len(otelStates) && otelStates[s] != ""
	if named {
		o = o.literal("network.connection.state", otelStates[s])
	}
	if !named || s == tcp.NewSynRecv || s == tcp.BoundInactive {
		o = o.literal(native, s.String())
	}
	return o
}

// otelIdentity appends the attributes that identify the socket. [identityKey] must contain
// every field that it reads.
func (o object) otelIdentity(t *tcp.Transition) object {
	o = o.literal("network.transport", "tcp")
	if t.IPv6 {
		o = o.literal("network.type", "ipv6")
	} else {
		o = o.literal("network.type", "ipv4")
	}
	return o.otelEndpoints(t.Local, t.Peer).
		ownSocket(t)
}

// otelEndpoints leaves out the addresses and ports that are not known.
func (o object) otelEndpoints(local, peer tcp.Endpoint) object {
	return o.addrIfSet("network.local.address", local.Addr).
		uintIfSet("network.local.port", uint64(local.Port)).
		addrIfSet("network.peer.address", peer.Addr).
		uintIfSet("network.peer.port", uint64(peer.Port))
}

// otelOwner appends the process and the user that the socket belongs to. [ownerKey] must
// contain every field that it reads.
func (o object) otelOwner(t *tcp.Transition) object {
	if t.Owner.Source != tcp.PIDUnknown {
		o = o.uint("process.pid", uint64(t.Owner.PID)).
			bytes("process.title", t.Owner.Comm.Bytes())
	}
	o, cut := o.otelProcess(t.Process)
	return o.userID(t.UID).
		otelUser(t.UID, t.Process).
		ownPIDSource(t).
		otelCgroup(t.Cgroup).
		truncatedIf(cut, t.Cgroup)
}

// otelCgroup appends nothing if c is nil.
func (o object) otelCgroup(c *tcp.Cgroup) object {
	if c == nil {
		return o
	}
	nameKey := "container.name"
	if c.PodUID != "" {
		nameKey = "k8s.container.name" // as the pod's specification calls it
	}
	return o.path("process.linux.cgroup", c.Path, maxMappedPath).
		literalIfSet("container.id", c.Container).
		literalIfSet("container.runtime.name", c.Runtime).
		stringIfSet(nameKey, c.ContainerName).
		stringIfSet("container.image.name", c.Image).
		literalIfSet("k8s.pod.uid", c.PodUID).
		stringIfSet("k8s.pod.name", c.Pod).
		stringIfSet("k8s.namespace.name", c.Namespace).
		unit("tcpshift.unit", "tcpshift.unit_claimed", c).
		trueIf("tcpshift.container_claimed", c.ContainerClaimed)
}

func (o object) otelError(e tcp.Errno) object {
	if e != 0 {
		o = o.literal("error.type", e.String())
	}
	return o
}
