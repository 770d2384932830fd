package record

import (
	"unicode/utf8"

	"github.com/tcpshift/tcpshift/internal/detect"
)

// Bounds, in bytes, that keep an alert with the longest labels within MaxLine.
const (
	maxAlertPath   = 1000 // of cgroup
	maxAlertCause  = 500
	maxAlertAdvice = 360
)

// Alert implements [Encoder]. Where names and labels leave no room for the path of the cgroup, it
// leaves the path out.
func (n *Native) Alert(dst []byte, a *detect.Alert) []byte {
	const maxSeq = len(`,"seq":18446744073709551615`) // may be added later
	line := n.alert(dst, a, maxAlertPath)
	if len(line)-len(dst)+maxSeq > MaxLine {
		line = n.alert(dst, a, 0)
	}
	return line
}

func (n *Native) alert(dst []byte, a *detect.Alert, maxPath int) []byte {
	o := n.begin(dst, "alert", a.Time).
		literal("kind", a.Kind).
		literal("phase", string(a.Phase)).
		literal("alert", a.ID).
		literal("severity", string(a.Severity)).
		culprit(&a.Culprit, maxPath).
		uint("netns", uint64(a.Netns)).
		literalIfSet("role", a.Role.String()).
		endpoints(a.Local, a.Peer).
		decimal("rate_per_s", a.Rate)
	if a.OccupancySource != "" {
		o = o.uint("occupancy", a.Occupancy).
			literal("occupancy_source", string(a.OccupancySource))
	}
	if a.CapacityKind != "" {
		o = o.uint("capacity", a.Capacity).
			literal("capacity_kind", a.CapacityKind)
	}
	o = o.uintIfSet("projected_occupancy", a.Projected)
	if a.Exhausts {
		o = o.decimal("exhaustion_in_s", a.ExhaustionIn.Seconds())
	}
	o = o.uintIfSet("drops", a.Drops).
		uintIfSet("overflows", a.Overflows).
		uintIfSet("failures", a.Failures).
		uint("lasted_ns", uint64(a.Lasted)).
		literalIfSet("close_reason", string(a.Reason)).
		literal("confidence", confidence(a)).
		uintIfSet("lost", a.Lost).
		trueIf("approximate", a.Approximate).
		string("cause", clip(a.Cause, maxAlertCause)).
		string("advice", clip(a.Advice, maxAlertAdvice))
	return n.end(o)
}

// confidence is "reduced" if the numbers of the alert may be wrong, and "unverified" if the
// kernel could not confirm them.
func confidence(a *detect.Alert) string {
	if a.Unverified {
		return "unverified"
	}
	if a.Lost > 0 || a.Approximate {
		return "reduced"
	}
	return "full"
}

// culprit appends the service that contributes most to the cause, and the next one. It
// appends nothing if no process is known.
func (o object) culprit(c *detect.Culprit, maxPath int) object {
	if !c.Known {
		return o
	}
	o = o.string("service", c.Service).
		trueIf("service_claimed", isServiceClaimed(c)).
		decimal("share", c.Share).
		uint("processes", uint64(c.Processes))
	if c.PID != 0 {
		o = o.uint("pid", uint64(c.PID)).
			decimal("pid_share", c.PIDShare)
	}
	o = o.bytes("comm", c.Comm.Bytes()).
		cgroup(c.Cgroup, maxPath).
		workload(c.Cgroup)
	if c.NextService != "" {
		o = o.string("next_service", c.NextService).
			decimal("next_share", c.NextShare)
	}
	return o
}

// isServiceClaimed reports whether a user other than root may have chosen the name of the service.
func isServiceClaimed(c *detect.Culprit) bool {
	return c.Cgroup != nil && c.Service == c.Cgroup.Service() && c.Cgroup.IsServiceClaimed()
}

// clip cuts s to at most maxBytes, between two runes. Of the texts of package detect it only cuts the
// cause of a storm with many bound ports, which ends in the name of a service: the name may be long.
func clip(s string, maxBytes int) string {
	if len(s) <= maxBytes {
		return s
	}
	end := maxBytes
	for !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end]
}
