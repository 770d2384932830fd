package record

import (
	"slices"
	"time"

	"github.com/tcpshift/tcpshift/internal/tcp"
)

// NDJSON encodes each record as one line of JSON. What is not known is absent. It is
// for one goroutine.
type NDJSON struct {
	labels   []byte // encoded members, each with its leading comma
	calendar calendar
	opened   calendar // of when connections were opened, which is mostly another second

	identities identities
	owners     owners
}

// NewNDJSON adds the labels, in their order, to the end of every record.
func NewNDJSON(labels []Label) *NDJSON {
	var o object
	for _, l := range labels {
		o = o.string(l.Key, l.Value)
	}
	return &NDJSON{labels: o}
}

// begin begins a record; head says of which type.
func (n *NDJSON) begin(dst []byte, head string, at time.Time, seq uint64) object {
	dst = append(slices.Grow(dst, MaxLine), head...)
	dst = n.calendar.append(dst, at)
	return appendUint(append(dst, `","seq":`...), seq)
}

// Start implements [Encoder].
func (n *NDJSON) Start(dst []byte, seq uint64, r *Start) []byte {
	o := n.begin(dst, `{"type":"start","time":"`, r.Time, seq).
		string("version", r.Version).
		symbol("schema", SchemaVersion).
		known("host", r.Host).
		known("boot_id", r.BootID).
		known("kernel", r.Kernel).
		symbol("arch", r.Arch).
		uint("pid", uint64(r.PID)).
		key("features")
	sep := byte('{')
	for _, f := range r.Features {
		o = append(o, sep)
		o = append(appendString(o, f.Name), ':')
		if f.Off == "" {
			o = append(o, "true"...)
		} else {
			o = appendString(o, f.Off)
		}
		sep = ','
	}
	if sep == '{' {
		o = append(o, '{')
	}
	o = append(o, '}')
	return o.end(n.labels)
}

// Transition implements [Encoder]. It does not allocate when dst has room.
func (n *NDJSON) Transition(dst []byte, seq uint64, t *tcp.Transition) []byte {
	o := n.identities.append(n.begin(dst, `{"type":"transition","time":"`, t.Time, seq), t).
		states(t.Old, t.New)
	if kernel := t.KernelNew(); kernel != t.New {
		o = o.symbol("kernel_new_state", kernel.String())
	}
	if t.Substate != 0 {
		o = o.symbol("time_wait_substate", t.Substate.String())
	}
	if t.TimeWaitOpen {
		o = o.yes("time_wait_unknown")
	}
	if t.Self() {
		o = o.yes("self")
	}
	if t.TimeWaitEnd() {
		o = o.symbol("time_wait_end", endOf(t))
	}
	if t.InState != 0 {
		o = appendUint(append(o, `,"in_state_ns":`...), uint64(t.InState))
	}
	o = n.owners.append(o, t)
	if t.Error != 0 {
		o = o.symbol("error", t.Error.String())
	}
	return o.end(n.labels)
}

// endOf says how a TIME_WAIT ended: in its own time, or before.
func endOf(t *tcp.Transition) string {
	if t.Expired {
		return "expired"
	}
	return "early"
}

// Connection implements [Encoder]. It does not allocate when dst has room.
func (n *NDJSON) Connection(dst []byte, seq uint64, t *tcp.Transition, c *tcp.Connection) []byte {
	o := n.owners.append(n.identities.append(n.begin(dst, `{"type":"connection","time":"`, t.Time, seq), t), t)
	if c.OpenedAt != 0 {
		o = append(n.opened.append(append(o, `,"opened":"`...), c.Opened), '"')
		o = o.
			uint("duration_ns", uint64(t.Monotonic-c.OpenedAt)).
			uint("established_ns", uint64(c.Established))
	}
	o = o.uint("sent_bytes", c.Sent).
		uint("received_bytes", c.Received).
		uint("retransmits", uint64(c.Retransmits))
	if c.RTT != 0 {
		o = o.uint("rtt_ns", uint64(c.RTT))
	}
	o = o.symbol("final_state", t.New.String())
	if c.ClosedBy != "" {
		o = o.symbol("closed_by", string(c.ClosedBy))
	}
	if t.Error != 0 {
		o = o.symbol("error", t.Error.String())
	}
	if c.OpenedAt == 0 {
		o = o.yes("partial")
	}
	return o.end(n.labels)
}

// Header is nothing: every line says what it is.
func (n *NDJSON) Header(dst []byte) []byte { return dst }

// Socket appends a socket record.
func (n *NDJSON) Socket(dst []byte, seq uint64, s *tcp.Socket) []byte {
	o := n.begin(dst, `{"type":"socket","time":"`, s.Time, seq).
		identity(&s.Transition).
		symbol("state", s.New.String())
	if s.Substate != 0 {
		o = o.symbol("time_wait_substate", s.Substate.String())
	}
	if s.ExpiresIn != 0 {
		o = o.uint("expires_in_ns", uint64(s.ExpiresIn))
	}
	if s.New != tcp.TimeWait { // which is nobody's any more
		o = n.owners.append(o, &s.Transition)
	}
	if s.Error != 0 {
		o = o.symbol("error", s.Error.String())
	}
	return o.end(n.labels)
}

// identity says which socket it is.
func (o object) identity(t *tcp.Transition) object {
	if t.Cookie != 0 {
		o = append(appendHex(append(o, `,"conn":"`...), t.Cookie), '"')
	}
	o = appendUint(append(o, `,"netns":`...), uint64(t.Netns))
	if t.IPv6 {
		o = append(o, `,"family":"ipv6"`...)
	} else {
		o = append(o, `,"family":"ipv4"`...)
	}
	if t.Mapped {
		o = o.yes("mapped")
	}
	o = o.endpoints(t.Local, t.Peer)
	if t.Role != tcp.RoleUnknown {
		o = append(append(append(o, `,"role":"`...), t.Role.String()...), '"')
	}
	return o
}

// endpoints leaves out what is not known.
func (o object) endpoints(local, peer tcp.Endpoint) object {
	if local.Addr.IsValid() {
		o = append(appendAddr(append(o, `,"local_addr":"`...), local.Addr), '"')
	}
	if local.Port != 0 {
		o = appendUint(append(o, `,"local_port":`...), uint64(local.Port))
	}
	if peer.Addr.IsValid() {
		o = append(appendAddr(append(o, `,"peer_addr":"`...), peer.Addr), '"')
	}
	if peer.Port != 0 {
		o = appendUint(append(o, `,"peer_port":`...), uint64(peer.Port))
	}
	return o
}

// statePairs are the members for all pairs of states that have names.
var statePairs = func() (pairs [16][16]string) {
	for _, from := range tcp.States() {
		for _, to := range tcp.States() {
			pairs[from][to] = string(object(nil).symbol("old_state", from.String()).symbol("new_state", to.String()))
		}
	}
	return pairs
}()

func (o object) states(from, to tcp.State) object {
	if from < 16 && to < 16 && statePairs[from][to] != "" {
		return append(o, statePairs[from][to]...)
	}
	return o.symbol("old_state", from.String()).symbol("new_state", to.String())
}

// owner says whose socket it is.
func (o object) owner(t *tcp.Transition) object {
	known := t.Owner.Source != tcp.PIDUnknown
	if known {
		o = o.uint("pid", uint64(t.Owner.PID)).key("comm")
		o = appendString(o, t.Owner.Comm.Bytes())
	}
	o = o.uint("uid", uint64(t.UID))
	if known {
		o = o.symbol("pid_source", t.Owner.Source.String())
	}
	return o.cgroup(t.Cgroup, maxPath)
}

// maxPath is how many bytes of a line a cgroup's path may take. Every path that
// the kernel side tells fits, unless much of it has to be escaped.
const maxPath = 2000

func (o object) cgroup(c *tcp.Cgroup, maxPath int) object {
	if c == nil {
		return o
	}
	if longer := o.string("cgroup", c.Path); len(longer)-len(o) <= maxPath {
		o = longer
	}
	if c.Container != "" {
		o = o.symbol("container", c.Container)
	}
	if c.Runtime != "" {
		o = o.symbol("container_runtime", c.Runtime)
	}
	if c.PodUID != "" {
		o = o.symbol("pod_uid", c.PodUID)
	}
	return o
}

// Stats implements [Encoder].
func (n *NDJSON) Stats(dst []byte, seq uint64, r *Stats) []byte {
	return n.begin(dst, `{"type":"stats","time":"`, r.Time, seq).counts(&r.Counts).end(n.labels)
}

func (o object) counts(c *Counts) object {
	return o.uint("seen", c.Seen()).
		uint("filtered", c.Filtered).
		uint("lost_ring_full", c.LostRingFull).
		uint("lost_ring_busy", c.LostRingBusy).
		uint("lost_reentry", c.LostReentry).
		uint("lost_queue_full", c.LostQueueFull).
		uint("deferred", c.Deferred).
		uint("read", c.Read).
		uint("dropped", c.Dropped).
		uint("written", c.Written).
		uint("written_bytes", c.WrittenBytes).
		uint("fired", c.Fired).
		uint("entered", c.Entered).
		uint("missed", c.Missed).
		uint("other_protocol", c.OtherProtocol).
		uint("connections", c.Connections).
		uint("lost_connections", c.LostConnections).
		uint("time_wait_unknown", c.TimeWaitUnknown).
		uint("time_wait_ends", c.TimeWaitEnds).
		uint("lost_time_wait_ends", c.LostTimeWaitEnds).
		uint("time_wait_ends_lost", c.TimeWaitEndsLost)
}

// Loss implements [Encoder].
func (n *NDJSON) Loss(dst []byte, seq uint64, r *Loss) []byte {
	o := n.begin(dst, `{"type":"loss","time":"`, r.Time, seq).
		uint("lost", r.Lost).
		symbol("cause", string(r.Cause)).
		symbol("stage", r.Cause.stage())
	if r.Cause == CauseQueueFull {
		o = o.uint("lost_connections", r.LostConnections).uint("lost_time_wait_ends", r.LostTimeWaitEnds)
	}
	return o.end(n.labels)
}

// Stop implements [Encoder].
func (n *NDJSON) Stop(dst []byte, seq uint64, r *Stop) []byte {
	o := n.begin(dst, `{"type":"stop","time":"`, r.Time, seq).symbol("reason", r.Reason)
	if r.Signal != "" {
		o = o.symbol("signal", r.Signal)
	}
	return o.counts(&r.Counts).end(n.labels)
}
