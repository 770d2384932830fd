package record

import "github.com/tcpshift/tcpshift/internal/tcp"

// NDJSON encodes each record as one line of JSON. What is not known is absent.
type NDJSON struct {
	labels []byte // encoded members, each with its leading comma
}

// NewNDJSON adds the labels, in their order, to the end of every record.
func NewNDJSON(labels []Label) *NDJSON {
	var o object
	for _, l := range labels {
		o = o.string(l.Key, l.Value)
	}
	return &NDJSON{labels: o}
}

// Start implements [Encoder].
func (n *NDJSON) Start(dst []byte, seq uint64, r *Start) []byte {
	o := begin(dst, "start", r.Time, seq).
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
	o := begin(dst, "transition", t.Time, seq)
	if t.Cookie != 0 {
		o = o.hex("conn", t.Cookie)
	}
	o = o.uint("netns", uint64(t.Netns))
	if t.IPv6 {
		o = o.symbol("family", "ipv6")
	} else {
		o = o.symbol("family", "ipv4")
	}
	if t.Mapped {
		o = o.yes("mapped")
	}
	o = o.endpoint("local_addr", "local_port", t.Local).endpoint("peer_addr", "peer_port", t.Peer)
	if t.Role != tcp.RoleUnknown {
		o = o.symbol("role", t.Role.String())
	}
	o = o.symbol("old_state", t.Old.String()).symbol("new_state", t.New.String())
	if t.Owner.Source != tcp.PIDUnknown {
		o = o.uint("pid", uint64(t.Owner.PID)).key("comm")
		o = appendString(o, t.Owner.Comm.Bytes())
	}
	o = o.uint("uid", uint64(t.UID))
	if t.Owner.Source != tcp.PIDUnknown {
		o = o.symbol("pid_source", t.Owner.Source.String())
	}
	if t.Error != 0 {
		o = o.symbol("error", t.Error.String())
	}
	return o.end(n.labels)
}

func (o object) endpoint(addrKey, portKey string, e tcp.Endpoint) object {
	if e.Addr.IsValid() {
		o = o.addr(addrKey, e.Addr)
	}
	if e.Port != 0 {
		o = o.uint(portKey, uint64(e.Port))
	}
	return o
}

// Stats implements [Encoder].
func (n *NDJSON) Stats(dst []byte, seq uint64, r *Stats) []byte {
	return begin(dst, "stats", r.Time, seq).counts(&r.Counts).end(n.labels)
}

func (o object) counts(c *Counts) object {
	return o.uint("seen", c.Seen()).
		uint("filtered", c.Filtered).
		uint("lost_ring_full", c.LostRingFull).
		uint("lost_ring_busy", c.LostRingBusy).
		uint("lost_reentry", c.LostReentry).
		uint("read", c.Read).
		uint("dropped", c.Dropped).
		uint("written", c.Written).
		uint("written_bytes", c.WrittenBytes).
		uint("fired", c.Fired).
		uint("entered", c.Entered).
		uint("missed", c.Missed).
		uint("other_protocol", c.OtherProtocol)
}

// Loss implements [Encoder].
func (n *NDJSON) Loss(dst []byte, seq uint64, r *Loss) []byte {
	return begin(dst, "loss", r.Time, seq).
		uint("lost", r.Lost).
		symbol("cause", string(r.Cause)).
		symbol("stage", "kernel").
		end(n.labels)
}

// Stop implements [Encoder].
func (n *NDJSON) Stop(dst []byte, seq uint64, r *Stop) []byte {
	o := begin(dst, "stop", r.Time, seq).symbol("reason", r.Reason)
	if r.Signal != "" {
		o = o.symbol("signal", r.Signal)
	}
	return o.counts(&r.Counts).end(n.labels)
}
