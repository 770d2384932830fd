package record

import (
	"math"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/tcpshift/tcpshift/internal/detect"
	"github.com/tcpshift/tcpshift/internal/tcp"
)

// What an alert's line has room for, besides labels: see MaxLine.
const (
	maxAlertPath = 1000
	maxWords     = 480 // of cause and of advice, in bytes
)

// Alert implements [Encoder].
func (n *NDJSON) Alert(dst []byte, seq uint64, a *detect.Alert) []byte {
	o := n.begin(dst, `{"type":"alert","time":"`, a.Time, seq).
		symbol("kind", a.Kind).
		symbol("phase", string(a.Phase)).
		symbol("alert", a.ID).
		symbol("severity", string(a.Severity)).
		culprit(&a.Process).
		uint("netns", uint64(a.Netns))
	if a.Role != tcp.RoleUnknown {
		o = o.symbol("role", a.Role.String())
	}
	o = o.endpoints(a.Local, a.Peer).
		number("rate_per_s", a.Rate)
	if a.OccupancySource != "" {
		o = o.uint("occupancy", a.Occupancy).symbol("occupancy_source", string(a.OccupancySource))
	}
	if a.CapacityKind != "" {
		o = o.uint("capacity", a.Capacity).symbol("capacity_kind", a.CapacityKind)
	}
	if a.Projected != 0 {
		o = o.uint("projected_occupancy", a.Projected)
	}
	if a.Exhausts {
		o = o.number("exhaustion_in_s", a.ExhaustionIn.Seconds())
	}
	if a.Failures != 0 {
		o = o.uint("failures", a.Failures)
	}
	o = o.uint("lasted_ns", uint64(a.Lasted)).symbol("confidence", confidence(a))
	if a.Lost != 0 {
		o = o.uint("lost", a.Lost)
	}
	if a.Approximate {
		o = o.yes("approximate")
	}
	return o.string("cause", clip(a.Cause)).string("advice", clip(a.Advice)).end(n.labels)
}

// confidence is what the numbers deserve.
func confidence(a *detect.Alert) string {
	if a.Lost > 0 || a.Approximate {
		return "reduced"
	}
	return "full"
}

func (o object) culprit(w *detect.TopProcess) object {
	if !w.Known {
		return o
	}
	if w.PID != 0 {
		o = o.uint("pid", uint64(w.PID))
	}
	o = o.key("comm")
	o = appendString(o, w.Comm.Bytes())
	return o.cgroup(w.Cgroup, maxAlertPath).
		number("share", w.Share).
		uint("processes", uint64(w.Processes))
}

// number has at most three digits after the point.
func (o object) number(key string, v float64) object {
	const precision = 1000
	return strconv.AppendFloat(o.key(key), math.Round(v*precision)/precision, 'f', -1, 64)
}

// clip is for words of ours, which are short enough; it makes that sure.
func clip(s string) string {
	if len(s) <= maxWords {
		return s
	}
	end := maxWords
	for !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end]
}

// Alert implements [Encoder]: one paragraph that says who, where, how fast, how
// long is left, why, and what to do.
func (Text) Alert(dst []byte, _ uint64, a *detect.Alert) []byte {
	p := append(appendClock(append(dst, "! "...), a.Time), ' ')
	p = append(append(p, a.Kind...), ' ')
	switch a.Phase {
	case detect.Open:
		p = append(p, a.Severity...)
	case detect.Update:
		p = append(append(append(p, "still "...), a.Severity...), " after "...)
		p = append(p, a.Lasted.Round(time.Second).String()...)
	case detect.Close:
		p = append(append(p, "over after "...), a.Lasted.Round(time.Second).String()...)
	}
	p = append(p, ": "...)
	p = appendWho(p, &a.Process)
	p = appendWhere(p, a)
	p = appendHowMuch(p, a)
	if a.Phase == detect.Close {
		return append(p, ".\n"...)
	}
	p = appendHowLong(p, a)
	p = append(append(p, " Why: "...), clip(a.Cause)...)
	p = append(append(p, ". What to do: "...), clip(a.Advice)...)
	return append(p, ".\n"...)
}

func appendWho(p []byte, w *detect.TopProcess) []byte {
	if !w.Known {
		return append(p, "a process that is not known"...)
	}
	if w.PID == 0 {
		p = strconv.AppendInt(p, int64(w.Processes), 10)
		p = append(p, " or more processes named "...)
	}
	p = appendPrintable(p, w.Comm.Bytes())
	p = append(p, " ("...)
	if w.PID != 0 {
		p = append(strconv.AppendUint(append(p, "pid "...), uint64(w.PID), 10), ", "...)
	}
	p = append(strconv.AppendFloat(p, math.Floor(100*w.Share), 'f', 0, 64), " % of it"...)
	if w.PID != 0 && w.Processes > 1 {
		p = append(strconv.AppendInt(append(p, ", one of "...), int64(w.Processes), 10), " processes"...)
	}
	if w.Cgroup != nil && w.Cgroup.Container != "" {
		p = append(append(p, ", container "...), w.Cgroup.Container[:min(12, len(w.Cgroup.Container))]...)
	}
	return append(p, ')')
}

func appendWhere(p []byte, a *detect.Alert) []byte {
	r := row{p, len(p)}
	switch {
	case a.Peer.Addr.IsValid() && a.Role != tcp.RoleServer:
		r.dst = append(r.dst, " to "...)
		r.endpoint(0, a.Peer)
		if a.Local.Addr.IsValid() {
			r.dst = append(r.dst, " from "...)
			r.endpoint(0, a.Local)
		}
	case a.Local.Addr.IsValid() || a.Local.Port != 0:
		r.dst = append(r.dst, " at "...)
		r.endpoint(0, a.Local)
	}
	r.dst = append(r.dst, ", netns "...)
	return strconv.AppendUint(r.dst, uint64(a.Netns), 10)
}

// capacityWords are what a person calls a capacity.
var capacityWords = map[string]string{
	detect.EphemeralPorts:  " local ports taken",
	detect.TimeWaitBuckets: " TIME_WAITs there that the kernel keeps",
}

func appendHowMuch(p []byte, a *detect.Alert) []byte {
	p = append(p, ": "...)
	p = strconv.AppendFloat(p, a.Rate, 'f', 1, 64)
	p = append(append(append(p, ' '), a.Counted...), " a second"...)
	switch {
	case a.CapacityKind != "":
		p = strconv.AppendUint(append(p, ", "...), a.Occupancy, 10)
		p = strconv.AppendUint(append(p, " of "...), a.Capacity, 10)
		p = append(p, capacityWords[a.CapacityKind]...)
	case a.OccupancySource != "":
		p = strconv.AppendUint(append(p, ", "...), a.Occupancy, 10)
		p = append(p, " there"...)
	}
	if a.Failures > 0 {
		p = append(strconv.AppendUint(append(p, ", "...), a.Failures, 10), " failed so far"...)
	}
	return p
}

func appendHowLong(p []byte, a *detect.Alert) []byte {
	switch {
	case !a.Exhausts:
	case a.ExhaustionIn == 0:
		p = append(p, ". None is left"...)
	default:
		p = append(p, ". None is left in about "...)
		p = append(strconv.AppendFloat(p, a.ExhaustionIn.Seconds(), 'f', 1, 64), " s"...)
	}
	switch {
	case a.Lost > 0:
		p = append(p, " (not certain: "...)
		p = append(strconv.AppendUint(p, a.Lost, 10), " transitions were lost within a minute)"...)
	case a.Approximate:
		p = append(p, " (not certain: the numbers are approximate)"...)
	}
	return append(p, '.')
}
