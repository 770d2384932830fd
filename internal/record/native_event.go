package record

import "github.com/tcpshift/tcpshift/internal/tcp"

// maxPath bounds the member cgroup in bytes, so that an event with the longest labels
// stays within MaxLine. The BPF programs emit paths of at most 3,072 bytes, so only a path
// of many long names, or with many escapes, exceeds the bound.
const maxPath = 2000

// Transition implements [Encoder]. It does not allocate if dst has room.
func (n *Native) Transition(dst []byte, t *tcp.Transition) []byte {
	o := n.begin(dst, "transition", t.Time)
	o = n.identities.append(o, t)
	o = o.literal("old_state", t.Old.String()).
		literal("new_state", t.New.String())
	if kernel := t.KernelNew(); kernel != t.New {
		o = o.literal("kernel_new_state", kernel.String())
	}
	if t.Substate != 0 {
		o = o.literal("time_wait_substate", t.Substate.String())
	}
	o = o.trueIf("time_wait_unknown", t.TimeWaitUnknown).
		trueIf("self", t.IsSelfTransition())
	if t.IsTimeWaitEnd() {
		o = o.literal("time_wait_end", endOfTimeWait(t))
	}
	o = o.uintIfSet("in_state_ns", uint64(t.InState))
	o = n.owners.append(o, t, object.owner)
	o = o.errno(t.Error).
		literalIfSet("reset_reason", t.ResetReason)
	if n.sample != 0 {
		o = n.sampled(o, t)
	}
	return n.end(o)
}

// endOfTimeWait returns "expired" if the timer ended the TIME_WAIT, and "early" for any
// other cause.
func endOfTimeWait(t *tcp.Transition) string {
	if t.Expired {
		return "expired"
	}
	return "early"
}

// Connection implements [Encoder]. It does not allocate if dst has room.
func (n *Native) Connection(dst []byte, t *tcp.Transition, c *tcp.Connection) []byte {
	o := n.begin(dst, "connection", t.Time).
		literalIfSet("phase", string(c.Phase))
	if c.Phase == tcp.PhaseUpdate {
		o = n.identities.append(o, t)
	} else {
		o = n.identities.appendLast(o, t)
	}
	o = n.workloads.append(o, t, object.ownerAndWorkload)
	if c.OpenedAt != 0 {
		o = o.time("opened", &n.opened, c.Opened).
			uint("duration_ns", uint64(t.Monotonic-c.OpenedAt)).
			uint("established_ns", uint64(c.EstablishedFor))
	}
	o = o.uint("sent_bytes", c.Sent).
		uint("received_bytes", c.Received).
		uint("retransmits", uint64(c.Retransmits)).
		uintIfSet("rtt_ns", uint64(c.RTT)).
		uintIfSet("cwnd", uint64(c.Cwnd)).
		literal(stateKey(c), t.New.String()).
		literalIfSet("closed_by", string(c.ClosedBy)).
		literalIfSet("reset_reason", t.ResetReason).
		errno(t.Error).
		trueIf("partial", c.OpenedAt == 0)
	if n.sample != 0 {
		o = n.sampled(o, t)
	}
	return n.end(o)
}

// stateKey is the key of the state that a connection has, or that its socket had last.
func stateKey(c *tcp.Connection) string {
	if c.Phase == tcp.PhaseUpdate {
		return "state"
	}
	return "final_state"
}

// Header appends nothing: NDJSON has no header.
func (n *Native) Header(dst []byte) []byte { return dst }

// Socket appends a socket record with the number of SetSeq, as the methods of [Encoder] do. It does not
// allocate if dst has room.
func (n *Native) Socket(dst []byte, s *tcp.Socket) []byte {
	o := n.begin(dst, "socket", s.Time).
		identity(&s.Transition).
		literal("state", s.New.String())
	if s.Substate != 0 {
		o = o.literal("time_wait_substate", s.Substate.String())
	}
	o = o.uintIfSet("expires_in_ns", uint64(s.ExpiresIn))
	if s.New != tcp.TimeWait { // a timewait socket belongs to no process
		o = n.workloads.append(o, &s.Transition, object.ownerAndWorkload)
	}
	o = o.measures("", s).errno(s.Error)
	return n.end(o)
}

// measures appends what a socket has done so far, and its queues. prefix and the native key are the keys.
func (o object) measures(prefix string, s *tcp.Socket) object {
	if c := &s.Connection; c.Phase == tcp.PhaseUpdate {
		o = o.count(prefix, "sent_bytes", c.Sent).
			count(prefix, "received_bytes", c.Received).
			count(prefix, "retransmits", uint64(c.Retransmits))
		if c.RTT != 0 {
			o = o.count(prefix, "rtt_ns", uint64(c.RTT))
		}
		o = o.count(prefix, "cwnd", uint64(c.Cwnd))
	}
	switch {
	case !s.Queues.Known:
		return o
	case s.New == tcp.Listen:
		return o.count(prefix, "accept_queue", uint64(s.Queues.Receive)).
			count(prefix, "backlog", uint64(s.Queues.Send))
	}
	return o.count(prefix, "receive_queue_bytes", uint64(s.Queues.Receive)).
		count(prefix, "send_queue_bytes", uint64(s.Queues.Send))
}

// identity appends the members that identify the socket. [identityKey] must contain
// every field that identity reads.
func (o object) identity(t *tcp.Transition) object {
	if t.Cookie != 0 {
		o = o.hex("conn", t.Cookie)
	}
	o = o.uint("netns", uint64(t.Netns))
	if t.IPv6 {
		o = o.literal("family", "ipv6")
	} else {
		o = o.literal("family", "ipv4")
	}
	return o.trueIf("mapped", t.Mapped).
		endpoints(t.Local, t.Peer).
		literalIfSet("role", t.Role.String())
}

// endpoints leaves out the addresses and ports that are not known.
func (o object) endpoints(local, peer tcp.Endpoint) object {
	return o.addrIfSet("local_addr", local.Addr).
		uintIfSet("local_port", uint64(local.Port)).
		addrIfSet("peer_addr", peer.Addr).
		uintIfSet("peer_port", uint64(peer.Port))
}

// owner appends the process and the user that the socket belongs to. [ownerKey] must
// contain every field that owner reads.
func (o object) owner(t *tcp.Transition) object { return o.process(t).cgroup(t.Cgroup, maxPath) }

func (o object) process(t *tcp.Transition) object {
	known := t.Owner.Source != tcp.PIDUnknown
	if known {
		o = o.uint("pid", uint64(t.Owner.PID)).
			bytes("comm", t.Owner.Comm.Bytes())
	}
	o = o.uint("uid", uint64(t.UID))
	if known {
		o = o.literal("pid_source", t.Owner.Source.String())
	}
	return o
}

// ownerAndWorkload appends what connection and socket records have of their owner. It reads what owner reads, and
// no more. The path and the names together take at most maxPath bytes: names that are longer are left out, then a path
// for which they leave no room.
func (o object) ownerAndWorkload(t *tcp.Transition) object {
	var room [1024]byte
	names := object{room[:0]}.workload(t.Cgroup).line
	if len(names) > maxPath {
		names = nil
	}
	o = o.process(t).cgroup(t.Cgroup, maxPath-len(names))
	o.line = append(o.line, names...)
	return o
}

// cgroup appends nothing if c is nil, and leaves out a path that takes more than maxPath
// bytes of the line.
func (o object) cgroup(c *tcp.Cgroup, maxPath int) object {
	if c == nil {
		return o
	}
	before := len(o.line)
	o = o.string("cgroup", c.Path)
	if len(o.line)-before > maxPath {
		o.line = o.line[:before]
	}
	return o.literalIfSet("container", c.Container).
		literalIfSet("container_runtime", c.Runtime).
		literalIfSet("pod_uid", c.PodUID).
		trueIf("container_claimed", c.ContainerClaimed)
}

// maxUnit bounds the name of a unit in bytes of the line, so that an alert with the longest names
// and labels stays within MaxLine.
const maxUnit = 96

// workload appends the names of what runs in a cgroup. It appends nothing if c is nil, and leaves
// out a unit whose name takes more than maxUnit bytes.
func (o object) workload(c *tcp.Cgroup) object {
	if c == nil {
		return o
	}
	return o.stringIfSet("pod", c.Pod).
		stringIfSet("namespace", c.Namespace).
		stringIfSet("container_name", c.ContainerName).
		unit("unit", "unit_claimed", c)
}

func (o object) unit(key, claimedKey string, c *tcp.Cgroup) object {
	if c.Unit == "" {
		return o
	}
	before := len(o.line)
	if o = o.string(key, c.Unit); len(o.line)-before > maxUnit+len(key)+len(`,"":""`) {
		o.line = o.line[:before]
		return o
	}
	return o.trueIf(claimedKey, c.UnitClaimed)
}

func (o object) errno(e tcp.Errno) object {
	if e != 0 {
		o = o.literal("error", e.String())
	}
	return o
}
