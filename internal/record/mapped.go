package record

import (
	"bytes"

	"github.com/tcpshift/tcpshift/internal/detect"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// This file has the members that ECS and OpenTelemetry have no name for. Their keys are
// tcpshift. and the native key, and their values are the native ones.

// ownPrefix begins the keys of these members.
const ownPrefix = "tcpshift."

// ownStates appends what a transition says about its states besides the new one.
func (o object) ownStates(t *tcp.Transition) object {
	o = o.literal("tcpshift.old_state", t.Old.String())
	if kernel := t.KernelNew(); kernel != t.New {
		o = o.literal("tcpshift.kernel_new_state", kernel.String())
	}
	o = o.ownSubstate(t).
		trueIf("tcpshift.time_wait_unknown", t.TimeWaitUnknown).
		trueIf("tcpshift.self", t.IsSelfTransition())
	if t.IsTimeWaitEnd() {
		o = o.literal("tcpshift.time_wait_end", endOfTimeWait(t))
	}
	return o.uintIfSet("tcpshift.in_state_ns", uint64(t.InState))
}

func (o object) ownSubstate(t *tcp.Transition) object {
	if t.Substate != 0 {
		o = o.literal("tcpshift.time_wait_substate", t.Substate.String())
	}
	return o
}

// ownSocket appends what identifies a socket besides its endpoints.
func (o object) ownSocket(t *tcp.Transition) object {
	if t.Cookie != 0 {
		o = o.hex("tcpshift.conn", t.Cookie)
	}
	return o.uint("tcpshift.netns", uint64(t.Netns)).
		trueIf("tcpshift.mapped", t.Mapped).
		literalIfSet("tcpshift.role", t.Role.String())
}

func (o object) ownPIDSource(t *tcp.Transition) object {
	if t.Owner.Source != tcp.PIDUnknown {
		o = o.literal("tcpshift.pid_source", t.Owner.Source.String())
	}
	return o
}

// ownStateKey returns the key of [stateKey] with the prefix.
func ownStateKey(c *tcp.Connection) string {
	if c.Phase == tcp.PhaseUpdate {
		return "tcpshift.state"
	}
	return "tcpshift.final_state"
}

// ownConnection appends how a connection went.
func (o object) ownConnection(t *tcp.Transition, c *tcp.Connection) object {
	if c.OpenedAt != 0 {
		o = o.uint("tcpshift.established_ns", uint64(c.EstablishedFor))
	}
	return o.uint("tcpshift.retransmits", uint64(c.Retransmits)).
		uintIfSet("tcpshift.rtt_ns", uint64(c.RTT)).
		uintIfSet("tcpshift.cwnd", uint64(c.Cwnd)).
		literalIfSet("tcpshift.closed_by", string(c.ClosedBy)).
		literalIfSet("tcpshift.reset_reason", t.ResetReason).
		trueIf("tcpshift.partial", c.OpenedAt == 0)
}

// ownCulprit appends the parts that services and processes have in an alert.
func (o object) ownCulprit(c *detect.Culprit) object {
	if !c.Known {
		return o
	}
	o = o.trueIf("tcpshift.service_claimed", isServiceClaimed(c)).
		double("tcpshift.share", c.Share).
		uint("tcpshift.processes", uint64(c.Processes))
	if c.PID != 0 {
		o = o.double("tcpshift.pid_share", c.PIDShare)
	}
	if c.NextService != "" {
		o = o.string("tcpshift.next_service", c.NextService).
			double("tcpshift.next_share", c.NextShare)
	}
	return o
}

// ownFinding appends how much an alert is about, and how sure it is.
func (o object) ownFinding(a *detect.Alert) object {
	o = o.literal("tcpshift.alert", a.ID).
		uint("tcpshift.netns", uint64(a.Netns)).
		literalIfSet("tcpshift.role", a.Role.String()).
		double("tcpshift.rate_per_s", a.Rate)
	if a.OccupancySource != "" {
		o = o.uint("tcpshift.occupancy", a.Occupancy).
			literal("tcpshift.occupancy_source", string(a.OccupancySource))
	}
	if a.CapacityKind != "" {
		o = o.uint("tcpshift.capacity", a.Capacity).
			literal("tcpshift.capacity_kind", a.CapacityKind)
	}
	o = o.uintIfSet("tcpshift.projected_occupancy", a.Projected)
	if a.Exhausts {
		o = o.double("tcpshift.exhaustion_in_s", a.ExhaustionIn.Seconds())
	}
	return o.uintIfSet("tcpshift.drops", a.Drops).
		uintIfSet("tcpshift.overflows", a.Overflows).
		uintIfSet("tcpshift.failures", a.Failures).
		literalIfSet("tcpshift.close_reason", string(a.Reason)).
		literal("tcpshift.confidence", confidence(a)).
		uintIfSet("tcpshift.lost", a.Lost).
		trueIf("tcpshift.approximate", a.Approximate).
		string("tcpshift.advice", clip(a.Advice, maxAlertAdvice))
}

// ownLoss appends how many records were lost, and where.
func (o object) ownLoss(r *Loss) object {
	o = o.uint("tcpshift.lost", r.Lost).
		literal("tcpshift.stage", r.Cause.stage())
	if r.Cause.atOutput() {
		o = o.uint("tcpshift.lost_connections", r.LostConnections).
			uint("tcpshift.lost_time_wait_ends", r.TimeWaitEndsLostQueueFull).
			uint("tcpshift.lost_alerts", r.LostAlerts).
			uint("tcpshift.lost_summaries", r.LostSummaries).
			uintIfSet("tcpshift.lost_updates", r.LostUpdates)
	}
	return o
}

// ownFeatures appends the names of the features that are on as a list, and the reason for
// each one that is off. In the native schema one key has values of two types, which an index
// with fixed types cannot hold.
func (o object) ownFeatures(features []Feature) object {
	o.line = append(o.key("tcpshift.features"), '[')
	first := true
	for _, f := range features {
		if f.OffReason != "" {
			continue
		}
		if !first {
			o.line = append(o.line, ',')
		}
		o.line, first = appendString(o.line, f.Name), false
	}
	o.line = append(o.line, ']')
	for _, f := range features {
		if f.OffReason != "" {
			o = o.string("tcpshift.features_off."+f.Name, f.OffReason)
		}
	}
	return o
}

// path appends a path that takes at most maxBytes of the line as a string. Of a longer one it
// appends the end, where the names differ most, and tcpshift.truncated.
func (o object) path(key, path string, maxBytes int) object {
	end, cut := cutBegin(path, maxBytes)
	return o.string(key, end).trueIf("tcpshift.truncated", cut)
}

// userID appends the user as a string, because user.id holds other identifiers as well.
func (o object) userID(uid uint32) object { return o.idString("user.id", uid) }

func (o object) idString(key string, uid uint32) object {
	o.line = append(o.key(key), '"')
	o.line = appendUint(o.line, uint64(uid))
	o.line = append(o.line, '"')
	return o
}

// double is decimal with at least one digit after the point: an index that finds the type of a
// field from its first value must not take it for an integer.
func (o object) double(key string, v float64) object {
	before := len(o.key(key))
	o = o.decimal(key, v)
	if bytes.IndexByte(o.line[before:], '.') < 0 {
		o.line = append(o.line, ".0"...)
	}
	return o
}
